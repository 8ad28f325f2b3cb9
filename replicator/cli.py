"""The command line: which commands there are, and how the end of one becomes an exit code. No logic.

What a command does is in `commands`. Every expected error is one line on standard error.
"""

import os
import sys
import threading
import time
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from replicator.commands import first_steps, fleet, questions, terminal, work
from replicator.commands.exits import Exit
from replicator.commands.options import Described
from replicator.config.settings import FLAGS
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe import logs, words

_PATIENCE_S = 1.0
"""For threads to end at the end of the process. The interpreter itself would wait for ever."""


class _Commands(TyperGroup):
    """The commands. A setting that stands before one is told where it goes: that there is no such option is no help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        option = args[0].partition("=")[0] if args else ""
        if option in {flag.option for flag in FLAGS}:
            command = next((word for word in args if word in self.commands), "run")
            told = f"settings follow the command, as in `replicator {command} {option} VALUE`"
            raise typer.BadParameter(told, ctx=ctx, param_hint=option)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Keeps the /export directories of edge workloads and an S3 bucket in step, both ways, by events.",
)
for command in (
    work.run,
    work.sync,
    work.verify,
    questions.status,
    questions.explain,
    questions.doctor,
    questions.targets,
    questions.settings,
    fleet.pod,
    fleet.edge_api,
    fleet.operator,
    first_steps.demo,
    first_steps.version,
):
    app.command(command.__name__.replace("_", "-"), cls=Described)(command)


def main() -> None:
    """The `replicator` command."""
    try:
        app(prog_name="replicator")
    except ConfigError as error:
        _leave(Exit.CONFIG, error)
    except ReplicatorError as error:
        _leave(Exit.FAILED, error)
    except KeyboardInterrupt:
        _leave(Exit.INTERRUPTED)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        _leave(end.code or 0)
    except Exception:  # noqa: BLE001 - a fault of ours; the interpreter would print what the log masks
        print(logs.masked(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        _leave(Exit.FAILED)


def _leave(code: int, error: ReplicatorError | None = None) -> None:
    """End the process, also when a thread is stuck in a request: the journal knows what was not confirmed."""
    if error:
        _tell(error)
    deadline_s = time.monotonic() + _PATIENCE_S
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    try:
        sys.stdout.flush()
    except OSError as lost:  # the interpreter would try again, and say so in its own words
        if not isinstance(lost, BrokenPipeError) and not error:
            _tell(terminal.lost(lost))
            code = code or Exit.FAILED
        os._exit(code)
    if any(thread.is_alive() for thread in others):
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tell(error: ReplicatorError) -> None:
    print(f"replicator: {words.escape(logs.masked(str(error)))}", file=sys.stderr)  # noqa: T201 - the command line's own voice
