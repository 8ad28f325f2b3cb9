"""What commands are given: an option for every setting, from the settings' own table, and what follows from them."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from replicator.config.settings import FLAGS, Flag, Loaded, Settings, load
from replicator.model import Target
from replicator.observe import logs

if TYPE_CHECKING:
    from replicator.config.sources.source import Source

Json = Annotated[bool, typer.Option("--json", help="Print JSON with documented fields.")]
Command = Callable[..., int | None]


class Described(TyperCommand):
    """A command whose help keeps the settings apart from its own options, and says how else they are given."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The sections of the help, each with its lines."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], _SETTINGS: []}
        names = {flag.name for flag in FLAGS}
        for param in self.get_params(ctx):
            is_argument = param.param_type_name == "argument"
            title = _SETTINGS if param.name in names else "Arguments" if is_argument else "Options"
            if line := param.get_help_record(ctx):
                sections[title].append(line)
        for title, lines in sections.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


_SETTINGS = "Settings (also as REPLICATOR_<NAME>, or in the file of --config)"


def with_settings(command: Command) -> Command:
    """Give a command, whose first parameter is `loaded`, an option for every setting."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {flag.name: arguments.pop(flag.name) for flag in FLAGS}
        loaded = load({name: value for name, value in given.items() if value is not None}, os.environ)
        logs.configure(level=loaded.settings.log_level, format=loaded.settings.log_format)
        raise typer.Exit(command(loaded, **arguments) or 0)

    own = list(inspect.signature(command).parameters.values())[1:]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*keyword_only, *map(_option, FLAGS)])  # type: ignore[attr-defined]
    return run


def _option(flag: Flag) -> inspect.Parameter:
    choices = choices_of(flag.name)
    option = typer.Option(
        flag.option,
        help=f"{flag.help} [default: {flag.default or 'empty'}]",
        metavar="|".join(choices) or "VALUE",
        autocompletion=(lambda: choices) if choices else None,
    )
    return inspect.Parameter(
        flag.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def choices_of(name: str) -> list[str]:
    """The values that a setting can have, where they are a closed set; else none."""
    annotation = Settings.model_fields[name].annotation
    if annotation is bool:
        return ["true", "false"]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def source_of(loaded: Loaded) -> "Source":
    """Where workloads and storage come from."""
    from replicator.config.sources.source import make_source

    return make_source(loaded.settings, os.environ, origins=loaded.origins)


def targets_of(loaded: Loaded) -> tuple[Target, ...]:
    """The targets of this moment. Raises ConfigError."""
    return source_of(loaded).read()
