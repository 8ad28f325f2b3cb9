"""docs/json.md: what every command with --json prints, field by field, from the classes that say so.

python -m tests.answers docs/json.md
"""

import ast
import dataclasses
import enum
import inspect
import json
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

from replicator.commands.answers import ComparedTarget, MappedTarget, PlannedStep, SettingInForce
from replicator.doctor.findings import Finding
from replicator.observe.explanation import Explanation
from replicator.observe.status import Snapshot

MEND = "python -m tests.answers docs/json.md"

ANSWERS: Mapping[str, tuple[object, str]] = {
    "status": (
        Snapshot,
        "How everything stands; `/status` answers the same. With `--watch` it is one such object a line, each second.",
    ),
    "sync": (Snapshot, "How everything stands after the pass, in the form of `status`."),
    "sync --dry-run": (list[PlannedStep], "What a pass would do, a step each; nothing is listed that needs nothing."),
    "verify": (list[ComparedTarget], "Both sides of every target; with `--deep` in the same form."),
    "explain": (Explanation, "Where one file stands; `/explain?path=` answers the same."),
    "doctor": (list[Finding], "What was looked at, in that order; with `--write` in the same form."),
    "targets": (list[MappedTarget], "What is mapped to what."),
    "settings": (dict[str, SettingInForce], "Every setting by its name, secrets masked."),
}
"""What a command prints, and the sentence above its fields."""

_INTRODUCTION = f"""\
# JSON for programs

Written by `{MEND}` from the classes that are printed; do not edit it.

With `--json` a command prints one JSON value on standard output and nothing else there; log lines and errors go to
standard error. When a command cannot answer at all it prints no JSON: its exit code says so, and one line on standard
error says why. Exit codes are the same with and without `--json`; see [the commands](commands.md).

**What stays.** Within a major version fields are added. None is renamed, taken away, or given another meaning or type;
words of a closed set stay, and there may be new ones. So pass over what you do not know.

- Output is ASCII. In every text a control character, a byte that is not UTF-8 and a backslash stand in an escaped form
  (`\\x0a`, `\\\\`), so that no file name can harm who prints it. JSON then escapes the backslash once more.
- Names that end in `_s` are seconds, in `_ts` seconds since the epoch, in `_bytes` bytes; `size` is bytes too.
- Empty text and `null` mean that there is nothing to say. Lists of files may be cut short; the counts are whole.
"""

WORDS: Mapping[str, str] = {
    "Snapshot.version": "Of the replicator that answers.",
    "Snapshot.now_ts": "When this was true.",
    "Snapshot.started_ts": "When that process began.",
    "Snapshot.is_draining": "It was told to stop, and sends what is settled.",
    "Snapshot.is_ready": "What `/readyz` says.",
    "Snapshot.not_ready": "Why not, a sentence each.",
    "Snapshot.config": "The configuration in force.",
    "Snapshot.transfers_in_flight": "Files that move now.",
    "Snapshot.transfers_limit": "Most that may, as far as the store bears it.",
    "Snapshot.queue_jobs": "Paths that wait or move, of all targets.",
    "Snapshot.targets": "Every target.",
    "Snapshot.link": "What the link may carry and carries.",
    "Snapshot.throughput": "What has arrived lately.",
    "TargetView.id": "`workload/direction/prefix`, by which options and metrics name it too.",
    "TargetView.workload": "Whose files they are.",
    "TargetView.direction": "`egress` sends, `ingress` fetches.",
    "TargetView.prefix": "Of its objects' keys.",
    "TargetView.path": "Where its files are on the device.",
    "TargetView.url": "Where its objects are.",
    "TargetView.endpoint": "The store.",
    "TargetView.origin": "Who asked for the mapping.",
    "TargetView.state": "Where it stands.",
    "TargetView.in_flight": "What moves now.",
    "TargetView.pending_bytes": "Of those files.",
    "TargetView.failing": "Files whose last attempt failed.",
    "TargetView.failing_by_reason": "How many of them, by the word of the error.",
    "TargetView.skipped": "Files that a rule leaves out.",
    "TargetView.skipped_by_reason": "How many of them, by the word of the rule.",
    "TargetView.last_sweep_s": "How long that took.",
    "TargetView.journal_bytes": "Their bytes.",
    "TargetView.watcher": "How changes are noticed; null for ingress, which has no events.",
    "LinkView.down_limit": "The same for what is fetched.",
    "LinkView.down_achieved": "The same for what is fetched.",
    "LinkView.budget_used_bytes": "What has moved of it.",
    "ThroughputView.span_s": "Length of a span.",
    "ThroughputView.down": "To the device.",
    "ConfigView.source": "Where it comes from.",
    "ConfigView.generation": "How many have been applied since the start.",
    "ConfigView.valid": "Whether the newest one could be applied.",
    "ConfigView.error": "Why the newest one was refused.",
    "ConfigView.applied_ts": "When the one in force was applied.",
    "MovingFile.relpath": "Its path within the target.",
    "MovingFile.size": "Bytes that it has.",
    "MovingFile.moved_bytes": "Bytes of it that have gone.",
    "FailingFile.relpath": "Its path within the target.",
    "FailingFile.reason": "The word of the error.",
    "FailingFile.message": "The error, for people, with the next step.",
    "FailingFile.attempts": "How many have failed.",
    "SkippedFile.relpath": "Its path within the target.",
    "SkippedFile.reason": "The word of the rule.",
    "WatcherView.source": "`inotify`, `watchfiles` or `off`.",
    "WatcherView.degraded": "Why events are incomplete, one sentence; empty while they arrive.",
    "WatcherView.is_proven": "An event that replicator made itself came back of late.",
    "WatcherView.restarts": "How often the source of events was started anew.",
    "GenerationView.id": "The one that `current` leads to; empty before the first.",
    "Explanation.asked": "The question.",
    "Explanation.now_ts": "When this was true.",
    "Explanation.places": "Every place that the question can mean.",
    "PlaceView.target": "The target's `id`.",
    "PlaceView.direction": "`egress` sends, `ingress` fetches.",
    "PlaceView.path": "Where the file is on the device, or would be.",
    "PlaceView.url": "Where the object is, or would be.",
    "PlaceView.is_directory": "A directory is there.",
    "PlaceView.file": "What is on the device.",
    "PlaceView.row": "What both sides held when they were last in step.",
    "PlaceView.close_gate": "Egress: whether somebody may still be writing it.",
    "PlaceView.job": "What is to be done about it.",
    "PlaceView.block": "Why the whole target stands still.",
    "PlaceView.verdict": "Where it stands.",
    "FileView.size": "Bytes that it has.",
    "RowView.size": "Bytes that it had.",
    "RowView.modified_ts": "Its time.",
    "RowView.is_verified": "These very bytes are confirmed; else the store's ETag is no checksum of them.",
    "RowView.etag": "The object's version.",
    "JobView.is_running": "An attempt is under way.",
    "JobView.size": "Bytes to move, as far as known.",
    "JobView.moved_bytes": "Bytes that the attempt has moved.",
    "JobView.reason": "The word of the last error; empty when there was none.",
    "JobView.message": "That error, for people.",
    "JobView.fix": "The next step for a person.",
    "BlockView.message": "The reason, for people.",
    "BlockView.fix": "The next step for a person.",
    "Finding.check": "What was looked at.",
    "Finding.about": "The path, endpoint or URL that it is about.",
    "Finding.verdict": "How it ended.",
    "Finding.found": "What was found.",
    "Finding.fix": "What to do; empty where there is nothing to do.",
    "Finding.effect": "What replicator makes of it; empty where that is plain.",
    "PlannedStep.target": "The target's `id`.",
    "PlannedStep.relpath": "The path within the target.",
    "ComparedTarget.target": "The target's `id`.",
    "MappedTarget.id": "`workload/direction/prefix`.",
    "MappedTarget.direction": "`egress` sends, `ingress` fetches.",
    "MappedTarget.path": "Where its files are on the device.",
    "MappedTarget.url": "Where its objects are.",
    "MappedTarget.endpoint": "The store.",
    "SettingInForce.value": "In the form that flag and environment take.",
    "SettingInForce.origin": "Who said so: a flag, a variable, a file, or `default`.",
}
"""What a field is, where its docstring does not say it, or says it for those who read the code."""


def said_in(cls: type) -> dict[str, str]:
    """The first paragraph of each field's docstring, in the words of JSON."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                words = " ".join(inspect.cleandoc(text).split("\n\n", maxsplit=1)[0].split())
                found.setdefault(name, words.replace("None", "null").replace("''", "empty").replace("|", "\\|"))
        name = node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""
    return found


def meaning(cls: type, field: str) -> str:
    """A field in one line; empty when nobody says what it is."""
    return WORDS.get(f"{cls.__name__}.{field}") or said_in(cls).get(field, "")


def fields_of(cls: type) -> dict[str, object]:
    """The fields of a class and their types."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def type_words(hint: object) -> str:
    """A type as JSON has it."""
    arguments = typing.get_args(hint)
    match typing.get_origin(hint) or hint:
        case types.UnionType | typing.Union:
            return " or ".join(type_words(argument) for argument in arguments)
        case origin if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"object of {type_words(arguments[1])}"
        case origin if origin in (list, tuple):
            return f"list of {type_words(arguments[0])}"
        case kind if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return " ".join(f"`{one.value}`" for one in kind)
        case kind if dataclasses.is_dataclass(kind):
            return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return _PLAIN[typing.cast("type", hint)]


_PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def parts_of(hint: object) -> Iterator[type]:
    """Every class in a type, each before those in it."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
        for inner in fields_of(hint).values():
            yield from parts_of(inner)
    for argument in typing.get_args(hint):
        yield from parts_of(argument)


def misfits(value: object, hint: object, where: str = "") -> Iterator[str]:
    """What of an answer, as it was read from JSON, is not as its type says; fields that are not documented too."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    if origin in (types.UnionType, typing.Union):
        if all(list(misfits(value, argument)) for argument in arguments):
            yield f"{where}: {value!r} is none of {hint}"
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield from _misfits_of_fields(value if isinstance(value, dict) else {}, hint, where)
    elif arguments:
        is_right = isinstance(value, list if origin in (list, tuple) else dict)
        yield from [] if is_right else [f"{where}: {value!r} is not {hint}"]
        for one in value.values() if isinstance(value, dict) else typing.cast("list[object]", value):
            yield from misfits(one, arguments[-1 if isinstance(value, dict) else 0], f"{where}[]")
    elif not _is_plain(value, typing.cast("type", hint)):
        yield f"{where}: {value!r} is not {hint}"


def documented(command: str, out: str) -> typing.Any:
    """What a command printed, which has to be one JSON value as docs/json.md describes it."""
    value = json.loads(out)
    assert list(misfits(value, ANSWERS[command][0], command)) == []
    return value


def _misfits_of_fields(found: Mapping[str, object], part: type, where: str) -> Iterator[str]:
    fields = fields_of(part)
    yield from (f"{where}.{name}: missing or not documented" for name in found.keys() ^ fields.keys())
    for name in found.keys() & fields.keys():
        yield from misfits(found[name], fields[name], f"{where}.{name}")


def _is_plain(value: object, kind: type) -> bool:
    if issubclass(kind, enum.Enum):
        return value in [one.value for one in kind]
    return isinstance(value, (int, float) if kind is float else kind)


def page() -> str:
    """The document."""
    lines = [_INTRODUCTION, "## Commands", "", "| Command | Prints | |", "|---|---|---|"]
    lines += [f"| `replicator {name} --json` | {type_words(of)} | {words} |" for name, (of, words) in ANSWERS.items()]
    for part in dict.fromkeys(part for of, _ in ANSWERS.values() for part in parts_of(of)):
        lines += ["", f"## {part.__name__}", "", "| Field | Type | Meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {type_words(of)} | {meaning(part, name)} |" for name, of in fields_of(part).items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
