"""Commands that hold the state directory while they last: `run`, `sync`, `verify`."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.commands.exits import Exit
from replicator.commands.options import Json, source_of, targets_of, with_settings
from replicator.commands.progress import progress
from replicator.commands.terminal import print_json, say, show
from replicator.config.settings import Loaded, load
from replicator.observe import words

if TYPE_CHECKING:
    from replicator.once import Step


@with_settings
def run(loaded: Loaded) -> None:
    """Replicate until told to stop. SIGTERM, or Ctrl-C, sends what is settled first; a second one does not."""
    from replicator import supervisor

    supervisor.main(loaded.settings, source_of(loaded), reread=lambda: load(loaded.flags, os.environ).settings)


@with_settings
def sync(
    loaded: Loaded,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; move nothing.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Bring everything in step once. Exit code 0 when it is, 4 when some files fail, 1 when a target stands still."""
    from replicator import once
    from replicator.observe.render import render_status
    from replicator.observe.status import State, to_json

    targets = targets_of(loaded)
    if dry_run:
        return asyncio.run(_show_plan(once.plan(loaded.settings, targets), as_json=as_json))
    with progress("sync", loaded, is_wanted=not as_json) as tally:
        snapshot = asyncio.run(once.sync(loaded.settings, targets, tally=tally))
    if as_json:
        print_json(to_json(snapshot))
    else:
        show(render_status(snapshot))
    states = {view.state for view in snapshot.targets}
    if states & {State.BLOCKED, State.STARTING}:
        return Exit.FAILED
    return Exit.SOME_FAILING if states & {State.FAILING, State.BEHIND} else Exit.DONE


async def _show_plan(steps: "AsyncIterator[Step]", *, as_json: bool) -> int:
    from replicator.commands.answers import plain, planned

    found = []
    async for step in steps:
        found.append(planned(step))
        if not as_json:
            say(f"{step.action.value:8} {words.size(step.size):>10}  {step.target.id}  {step.relpath}")
    if as_json:
        print_json(plain(found))
    elif not found:
        say("nothing to do: everything is in step")
    return Exit.DONE


@with_settings
def verify(
    loaded: Loaded,
    deep: Annotated[bool, typer.Option("--deep", help="Compare the contents by checksum: reads every file.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Compare both sides of every target and name the differences. Exit code 3 when there are any."""
    from replicator import verify as comparison

    targets = targets_of(loaded)
    with progress("verify", loaded, is_wanted=not as_json) as tally:
        found = asyncio.run(comparison.verify(loaded.settings, targets, is_deep=deep, tally=tally))
    if as_json:
        from replicator.commands.answers import compared, plain

        print_json(plain([compared(result) for result in found]))
    else:
        for result in found:
            for difference in result.differences:
                say(f"{result.target.id}  {difference.relpath}: {difference.problem}")
            equal, different = words.count(result.equal, "file"), words.count(len(result.differences), "difference")
            say(f"{result.target.id}: {equal} equal, {different}")
    return Exit.DIFFERENT if any(result.differences for result in found) else Exit.DONE
