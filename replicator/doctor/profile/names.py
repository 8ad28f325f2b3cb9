"""Trials with keys: which names a store carries as they are, refuses, changes, or takes for one another.

Source: S3 User Guide, "Naming objects": any UTF-8 up to 1,024 bytes. Stores on file systems carry less.
"""

from dataclasses import dataclass

from replicator.doctor.findings import Answer, failed, ok, warning
from replicator.errors import TransferError
from replicator.reconcile.keys import MAX_KEY_BYTES, MAX_NAME_BYTES
from replicator.stores.s3.answers import Page
from replicator.stores.s3.sandbox import Sandbox

_PLACE = "names/"

_NAMES = {
    "a space": "a b",
    "+": "a+b",
    "%": "a%41b%",
    "# and ?": "a#?b",
    "&<>\"'": "a&<>\"'b",
    "a backslash": "a\\b",
    "capitals": "CASE",
    "small letters": "case",
    "a composed letter": "\u00e9",
    "a decomposed letter": "e\u0301",
    "an emoji": "\U0001f600",
    "a dot at the end": "dot.",
    "a space at the end": "space ",
    "a line feed": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "a control character": "a\x01b",
    "a delete character": "a\x7fb",
    f"{MAX_NAME_BYTES} bytes in a segment": "n" * MAX_NAME_BYTES,
    "a key beneath a key": "case/beneath",
}
"""What a file's name may hold, by what people call it. No two are equal."""

_ELSEWHERE = {"an empty segment": "a//b", "a '.' segment": "a/./b", "a '..' segment": "a/../b"}
"""What no file's key has; wherever a store puts these, it is beneath the same place."""

_LONGEST = f"{MAX_KEY_BYTES} bytes"


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of names, by what people call them."""

    refused: dict[str, str]
    changed: list[str]
    unlisted: list[str]


def carried(box: Sandbox) -> Answer:
    """Every kind of name, written, read and listed."""
    room = MAX_KEY_BYTES - len((box.prefix + _PLACE).encode())
    longest = ("l" * 200 + "/") * (room // 201) + "l" * (room % 201)
    names = _NAMES | {_LONGEST: longest if not longest.endswith("/") else longest[:-1] + "l"}
    fate = _tried(box, names)
    foreign = _tried(box, _ELSEWHERE)
    too_long = box.put(_PLACE + longest + "l").status == 200
    told = _told(fate)
    aside = [f"{kind} is refused" for kind in foreign.refused] + [f"{kind} is changed" for kind in foreign.changed]
    aside += [f"more than {MAX_KEY_BYTES} bytes are taken"] if too_long else []
    extra = f" (no file has such a name: {', '.join(aside)})" if aside else ""
    if fate.changed:
        effect = "files with such names overwrite each other or cannot be found again"
        return failed(told + extra, "exclude such names, or use another store", effect=effect)
    if fate.refused:
        effect = "such files are listed as failing, the others go on"
        return warning(told + extra, "rename or exclude such files", effect=effect)
    if fate.unlisted:
        return warning(told + extra, "rename such objects", effect="such objects are not fetched, the others are")
    return ok(f"all {len(names)} kinds are carried as they are{extra}", effect="names are kept exactly")


def _tried(box: Sandbox, names: dict[str, str]) -> _Fate:
    puts = {kind: box.put(_PLACE + name, kind.encode()) for kind, name in names.items()}
    refused = {kind: put.code or str(put.status) for kind, put in puts.items() if put.status != 200}
    taken = {kind: name for kind, name in names.items() if kind not in refused}
    changed = [kind for kind, name in taken.items() if box.get(_PLACE + name).body != kind.encode()]
    listed = _listed(box)
    unlisted = [kind for kind, name in taken.items() if listed is None or box.prefix + _PLACE + name not in listed]
    return _Fate(refused, changed, unlisted)


def _listed(box: Sandbox) -> set[str] | None:
    """The keys that a listing tells; None where it cannot be read."""
    try:
        page: Page = box.page(box.list(_PLACE), name=_PLACE)
    except TransferError:
        return None
    return {entry.key for entry in page.objects}


def _told(fate: _Fate) -> str:
    told = [f"{kind} ({why})" for kind, why in fate.refused.items()]
    texts = [f"refused: {', '.join(told)}"] if told else []
    texts += [f"changed: {', '.join(fate.changed)}"] if fate.changed else []
    texts += [f"not listed as they are: {', '.join(fate.unlisted)}"] if fate.unlisted else []
    return "; ".join(texts)
