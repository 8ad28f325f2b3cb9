"""Commands that need no settings: `demo`, `version`."""

from typing import Annotated

import typer

from replicator import __version__
from replicator.commands.terminal import say


def demo(
    seconds: Annotated[float, typer.Option(help="End by itself after so long; 0 runs until Ctrl-C.")] = 0.0,
    port: Annotated[int, typer.Option(help="Port of the demo's S3 server; 0 takes a free one.")] = 0,
) -> None:
    """Show the main job on this machine, with an S3 server of its own.

    A workload's files appear in a bucket, and those of another client on the device.
    """
    from replicator import demo as performance

    raise typer.Exit(performance.main(seconds=seconds, port=port))


def version() -> None:
    """Print the version."""
    say(f"replicator {__version__}")
