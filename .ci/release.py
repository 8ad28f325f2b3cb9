"""Cuts a release in the working tree: its version wherever one is named, and its section in CHANGELOG.md, dated today.

Makes no commit, no tag and no package: docs/releasing.md says what comes before and after.
Exit codes: 0 it is cut, 2 it was refused, and nothing is changed.
"""

import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = {
    "pyproject.toml": r'(?m)(?<=^version = ")[^"]+(?="$)',
    "replicator/__init__.py": r'(?m)(?<=^__version__ = ")[^"]+(?="$)',
    "config/**/*.yaml": r"(?<=image: replicator:)\S+",
    "config/**/*.container": r"(?<=Image=localhost/replicator:)\S+",
}
"""Where the version stands: files, and what finds it in them."""
_UNRELEASED = "## [Unreleased]\n"
_SECTION = re.compile(r"(?m)^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$")


class Refused(Exception):
    """The release cannot be cut; says why."""


def versions(tree: Path) -> dict[str, list[str]]:
    """The versions that each file names; files that name none are left out."""
    found = {
        path.relative_to(tree).as_posix(): re.findall(pattern, path.read_text(encoding="utf-8"))
        for glob, pattern in NAMED.items()
        for path in sorted(tree.glob(glob))
    }
    return {name: named for name, named in found.items() if named}


def released(changelog: str) -> list[str]:
    """The versions that have a section, the newest first."""
    return _SECTION.findall(changelog)


def cut(changelog: str, version: str, today: date) -> str:
    """The changelog with what was unreleased under a heading of its own. Raises Refused."""
    before, mark, after = changelog.partition(_UNRELEASED)
    entries = re.split(r"(?m)^## ", after)[0]
    if not mark or not re.search(r"(?m)^- ", entries):
        raise Refused("CHANGELOG.md has nothing under Unreleased: a release without a change is none")
    newer = [known for known in released(changelog) if _order(known) >= _order(version)]
    if newer:
        raise Refused(f"CHANGELOG.md has a section for {newer[0]} already; choose a later version than that")
    return f"{before}{_UNRELEASED}\n## [{version}] - {today.isoformat()}\n{after}"


def release(tree: Path, version: str, today: date) -> list[str]:
    """Cut it; the files that are changed. Raises Refused before any is."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise Refused(f"{version!r} is no version: say make release VERSION=1.2.3")
    now, *others = sorted({named for all_named in versions(tree).values() for named in all_named})
    if others:
        raise Refused(f"this tree names several versions: {now}, {', '.join(others)}; mend that first")
    if _order(version) < _order(now):
        raise Refused(f"{version} is before {now}, which this tree is; choose a later one")
    changed = {tree / "CHANGELOG.md": cut((tree / "CHANGELOG.md").read_text(encoding="utf-8"), version, today)}
    for glob, pattern in NAMED.items():
        for path in sorted(tree.glob(glob)):
            changed[path] = re.sub(pattern, version, path.read_text(encoding="utf-8"))
    names = [path for path, text in changed.items() if text != path.read_text(encoding="utf-8")]
    for path in names:
        path.write_text(changed[path], encoding="utf-8")
    return [path.relative_to(tree).as_posix() for path in names]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        names = release(ROOT, wanted, datetime.now(UTC).date())
    except Refused as why:
        sys.stderr.write(f"Nothing is changed. {why}\n")
        sys.exit(2)
    sys.stdout.write("\n".join([f"{wanted} is cut in", *(f"  {name}" for name in names)]))
    sys.stdout.write("\nLook at it with `git diff`, and go on as docs/releasing.md says.\n")
