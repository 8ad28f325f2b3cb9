"""Writes docs/reference/ from the code: settings, metrics, commands, words of errors.

    python docs/generate.py

Owns: which table of the code becomes which page, and how it reads. Never: a fact of its own, but for the next steps in
`docs/next_steps.toml`, which has to have exactly the words that the code has. Not part of the package.
"""

import inspect
import re
import textwrap
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic.fields import FieldInfo

from replicator import cli, errors
from replicator.config.fields import OptionsPatch
from replicator.config.settings import FLAGS, Settings
from replicator.controlplane import storage
from replicator.controlplane.settings import ControlSettings, EdgeApiSettings, OperatorSettings
from replicator.observe import edge_metrics, metrics, operator_metrics
from replicator.observe.status import State
from replicator.stores.files.beneath import OBSTACLES

HERE = Path(__file__).parent
REFERENCE = HERE / "reference"
PACKAGE = HERE.parent / "replicator"
MARK = "<!-- Made by docs/generate.py from the code: change that, then run `make docs`. -->\n"


def pages() -> dict[str, str]:
    """The text of each generated page by its file name."""
    return {name: MARK + "\n\n".join(made()).rstrip() + "\n" for name, made in PAGES.items()}


def main() -> None:
    """Write what has changed."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        file = REFERENCE / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


# Settings

_SECTIONS = {
    "config": "Where the configuration comes from",
    "export_dir": "Files and mappings",
    "s3_scheme": "The store",
    "watcher": "Noticing changes",
    "drain_timeout_s": "Transfers",
    "bandwidth": "The link, and what goes first",
    "connect_timeout_s": "Waiting and trying again",
    "open_files": "Which files, and what becomes of them",
    "http_listen": "What people and Prometheus see",
}
"""By the setting that begins each: those that follow it in `Settings` belong to it."""

_UNITS = {"_bytes_s": "bytes a second", "_bytes": "bytes", "_s": "seconds"}


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield textwrap.dedent("""\
        Each setting is an option, an environment variable and a YAML key of one name: `--sweep-interval-s`,
        `REPLICATOR_SWEEP_INTERVAL_S`, `sweep_interval_s`. Options win over the environment, the environment over the
        file that `REPLICATOR_CONFIG` names, the file over defaults. With `_FILE` behind its name, a variable names a
        file that holds the value. An unknown name is an error.

        Settings are read at the start; `bandwidth` and `data_budget` also when the file changes and on SIGHUP. Those
        that may differ **by target** can be set in `REPLICATOR_TARGET_OPTIONS` too, for a pattern of
        `workload/direction/prefix`, such as `{"os-stats/ingress/*": {"quota_bytes": 1000000}}`.

        `replicator settings` prints what is in force, and who said so. As files to begin with:
        [replicator.env](../../config/replicator.env), [replicator.yaml](../../config/replicator.yaml).""")
    for flag in FLAGS:
        if flag.name in _SECTIONS:
            yield f"## {_SECTIONS[flag.name]}"
        field = Settings.model_fields[flag.name]
        facts = [f"`{flag.option}`", _values(flag.name, field), _default(flag.default)]
        facts += ["by target"] if flag.name in OptionsPatch.model_fields else []
        yield f"### `{flag.variable}`"
        yield " · ".join(fact for fact in facts if fact)
        yield _words(field.description)


def _control_plane() -> Iterator[str]:
    yield "# Settings of the control plane"
    yield textwrap.dedent("""\
        `replicator operator` and `replicator edge-api` are set up by environment variables only, for a Deployment has
        no options. Both may be given one environment: what the other one reads is passed over. An unknown name that
        begins with `REPLICATOR_CONTROL_` is an error.""")
    both = set(ControlSettings.model_fields)
    for title, model, names in (
        ("Both", ControlSettings, both),
        ("`replicator operator`", OperatorSettings, set(OperatorSettings.model_fields) - both),
        ("`replicator edge-api`", EdgeApiSettings, set(EdgeApiSettings.model_fields) - both),
    ):
        yield f"## {title}"
        rows = []
        for variable, name in model.variables().items():
            if name in names:
                field = model.model_fields[name]
                default = str(field.default).removesuffix(".0").replace("False", "false")
                values = _values(name, field)
                rows.append(
                    [f"`{variable}`", f"`{default}`" if default else "empty", values, _words(field.description)]
                )
        yield _table("Variable", "Default", "Values", "What it is", rows=rows)


def _values(name: str, field: FieldInfo) -> str:
    """What a setting may be, as far as its type tells."""
    annotation = field.annotation
    if typing.get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    low, high = (next((getattr(m, k) for m in field.metadata if hasattr(m, k)), None) for k in ("ge", "le"))
    above = next((m.gt for m in field.metadata if hasattr(m, "gt")), None)
    start = f"above {_number(above)}" if above is not None else ("" if low is None else _number(low))
    if start and high is not None:
        return f"{start} to {_number(high)} {unit}".rstrip()
    return f"{'from ' * (low is not None)}{start} {unit}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def _default(text: str) -> str:
    return f"default `{text}`" if text else "no default"


# Metrics


def _metrics() -> Iterator[str]:
    yield "# Metrics"
    yield textwrap.dedent("""\
        `/metrics` of each program has these, in Prometheus' text format. Labels come from closed sets and from the
        configuration, never from a file name. `workload`, `direction` and `target` say which mapping it is.

        The dashboard [replicator.json](../../grafana/replicator.json) shows all those of `replicator run`,
        [controlplane.json](../../grafana/controlplane.json) those of the other two.
        Which are worth an alert: [monitoring](../monitoring.md).""")
    yield "## `replicator run`"
    yield _metric_table(metrics.TABLE.values())
    yield "\n".join(
        [
            f"- `outcome` of `replicator_files_total`: {_spans(metrics.OUTCOMES)}",
            f"- `outcome` of `replicator_notifications_total`: {_spans(metrics.NOTICES)}",
            f"- `stage` of `replicator_latency_seconds`: {_spans(metrics.STAGES)}",
            f"- `state` of `replicator_target_state`: {_spans(State)}",
            "- `reason`, everywhere: [the words of errors](errors.md)",
        ]
    )
    yield "## `replicator operator`"
    yield _metric_table(operator_metrics.TABLE.values())
    yield f"- `outcome`: {_spans(operator_metrics.OUTCOMES)}"
    yield "## `replicator edge-api`"
    yield _metric_table(edge_metrics.TABLE.values())
    yield f"- `outcome` of `replicator_edge_heartbeats_total`: {_spans(edge_metrics.OUTCOMES)}"


def _metric_table(rows: Iterable[metrics.Metric]) -> str:
    cells = [[f"`{row.name}`", row.kind.value, _spans(row.labels), row.help] for row in rows]
    return _table("Metric", "Type", "Labels", "What it is", rows=cells)


# Commands


def _commands() -> Iterator[str]:
    yield "# Options of the commands"
    yield textwrap.dedent("""\
        What each command is for, and the exit codes: [Commands](../commands.md). Commands that read settings take
        [every one of them](settings.md) as an option, too.""")
    group = typer.main.get_command(cli.app)
    settings = {flag.option for flag in FLAGS}
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]  # a group, by `cli.app`
        yield f"## `replicator {name}`"
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        reads = any(settings & set(option.opts) for option in options)
        own = [option for option in options if not settings & set(option.opts) and "--help" not in option.opts]
        usage = ["replicator", name, "[OPTIONS]", *(argument.name.upper() for argument in arguments)]
        yield f"```\n{' '.join(usage)}\n```"
        yield _words(inspect.cleandoc(command.help or ""))
        rows = [[f"`{argument.name.upper()}`", "", argument.help] for argument in arguments]
        rows += [[f"`{option.opts[0]}`", _choice(option), option.help] for option in own]
        if rows:
            yield _table("Option", "Default", "What it is", rows=rows)
        yield "Reads settings." if reads else "Reads no settings of replicator's own."


def _choice(option: Any) -> str:
    if option.is_flag or option.default in (None, ""):
        return ""
    return f"`{getattr(option.default, 'value', option.default)}`"


# Words of errors


def _errors() -> Iterator[str]:
    steps = tomllib.loads((HERE / "next_steps.toml").read_text(encoding="utf-8"))
    yield "# Words of errors"
    yield textwrap.dedent("""\
        A file that fails, a target that stands still and a label `reason` of a metric have one of these words. The
        sentence beside it in `replicator status` and in the log says more: which file, which key, which rule.""")
    yield "## It is tried again soon"
    yield "The fault lies outside the file, or the file was in motion. Nothing is lost meanwhile."
    yield error_table(_kinds(errors.Retryable), steps["errors"])
    yield "## A person must act"
    yield textwrap.dedent("""\
        Tried again every `REPLICATOR_PARKED_RETRY_S` (5 minutes), so that it goes on by itself once the cause is
        mended. The other files go on.""")
    yield error_table(_kinds(errors.Permanent), steps["errors"])
    yield "## Left out by rule"
    yield "No retry will bring these in: change the file, the rule or the mapping."
    yield _table("Word", "What it means and what to do", rows=agreed(steps["left_out"], left_out_words()))
    yield "## A target that stands still"
    yield "Beside the words above, `cause` of a blocked target can be:"
    yield _table("Word", "What it means and what to do", rows=agreed(steps["causes"], cause_words()))
    yield "## A device without a bucket"
    yield "The reason of the condition `StorageReady` of an EdgeDevice:"
    reasons = {reason.value for reason in storage.Reason} | {"StorageRefused"}
    yield _table("Reason", "What it means and what to do", rows=agreed(steps["storage"], reasons))


def _kinds(base: type[errors.TransferError]) -> dict[str, str]:
    """Word -> meaning, of an error and its descendants."""
    found: dict[str, str] = {}
    for kind in base.__subclasses__():
        if kind is not errors.LeftOut:
            meaning = re.sub(r" `retry_after_s`[^.]*\.", "", _words(inspect.getdoc(kind)))  # for who reads the code
            found[kind.reason] = found.get(kind.reason) or meaning
            found |= {word: text for word, text in _kinds(kind).items() if word not in found}
    return found


def left_out_words() -> set[str]:
    """Every word of a rule that leaves a file out, as the code has them."""
    named = {
        word for source in _sources() for word in re.findall(r'\brule="([a-z-]+)"|\bSkipped\(.*"([a-z-]+)"\)', source)
    }
    return {*OBSTACLES, *(word for pair in named for word in pair if word)}


def cause_words() -> set[str]:
    """Words for a blocked target that are no error's."""
    source = (PACKAGE / "report.py").read_text(encoding="utf-8")
    return set(re.findall(r'"([a-z]+-missing)"', source))


def _sources() -> Iterator[str]:
    return (path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def error_table(kinds: Mapping[str, str], steps: Mapping[str, str]) -> str:
    rows = []
    for word, text in kinds.items():
        if word not in steps:
            raise SystemExit(f"docs/next_steps.toml has no next step for the error {word!r}")
        rows.append([f"`{word}`", text, steps[word]])
    return _table("Word", "What happened", "What to do", rows=rows)


def agreed(steps: Mapping[str, str], words: set[str]) -> list[list[str]]:
    """The rows of steps that have exactly the words of the code."""
    if set(steps) != words:
        raise SystemExit(f"docs/next_steps.toml and the code differ in {sorted(set(steps) ^ words)}")
    return [[f"`{word}`", text] for word, text in steps.items()]


# Markdown


def _words(text: str | None) -> str:
    """A docstring as Markdown: names between single backticks, lines joined."""
    return " ".join((text or "").replace("``", "`").split())


def _spans(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(*heads: str, rows: Iterable[list[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


PAGES = {
    "settings.md": _settings,
    "control-plane.md": _control_plane,
    "metrics.md": _metrics,
    "commands.md": _commands,
    "errors.md": _errors,
}
"""Name of the file -> what gives its paragraphs."""

if __name__ == "__main__":
    main()
