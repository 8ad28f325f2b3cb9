"""What a person may call a file: the relpaths that one text can stand for in a target.

A text may be an absolute path, a path beneath the export, an object key, `s3://bucket/key`, or a relpath. Nothing is
cleaned but an absolute path, and no link is followed: what the text says is what is looked for. Pure.
"""

import posixpath

from replicator.model import CURRENT, INCOMING_DIR, Target


def relpaths_named(asked: str, target: Target) -> dict[str, bool]:
    """The relpaths of `target` that `asked` can stand for; True for those whose place names this target.

    A bare relpath may be meant for any target, so it counts only where something of that name is known.
    """
    if asked.startswith("s3://"):
        bucket, _, key = asked.removeprefix("s3://").partition("/")
        return _sure(_beneath(target.prefix.text, key)) if bucket == target.storage.bucket else {}
    if asked.startswith("/"):
        inside = _beneath(f"{target.root.rstrip('/')}/", posixpath.normpath(asked))
        return _sure(*(_beneath(directory, inside) for directory in _directories(target)))
    sure = _sure(*(_beneath(start, asked) for start in (*_directories(target), target.prefix.text)))
    return {asked: False} | sure if asked else sure


def _directories(target: Target) -> list[str]:
    """Where the files are beneath the export, and, for generations, where their readers find them; as prefixes."""
    directories = [target.subdir]
    if target.has_generations:
        directories.append(target.subdir.removesuffix(INCOMING_DIR) + CURRENT)
    return [f"{directory}/" if directory else "" for directory in directories]


def _beneath(start: str, text: str) -> str:
    """What follows `start`; '' when nothing does, or `text` lies elsewhere."""
    return text.removeprefix(start) if text.startswith(start) else ""


def _sure(*relpaths: str) -> dict[str, bool]:
    return {relpath: True for relpath in relpaths if relpath}
