"""Commands that may be asked beside a running replicator: `status`, `explain`, `doctor`, `targets`, `settings`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from replicator.commands.exits import Exit
from replicator.commands.options import Json, targets_of, with_settings
from replicator.commands.terminal import print_json, say, show
from replicator.config.settings import Loaded


@with_settings
def status(
    loaded: Loaded,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until Ctrl-C, over its restarts too.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Ask the running replicator: is the data safe, and if not, why. Exit code 0 when it is in step."""
    from replicator.observe.http import fetch_status
    from replicator.observe.render import render_status
    from replicator.observe.status import State, to_json

    listen = loaded.settings.http_listen
    if watch:
        from replicator.commands import watch as following

        snapshot = asyncio.run(following.watch(listen, as_json=as_json))
    else:
        snapshot = asyncio.run(fetch_status(listen))
        print_json(to_json(snapshot)) if as_json else show(render_status(snapshot))
    if snapshot is None:
        return Exit.FAILED
    return Exit.DONE if all(view.state is State.IN_STEP for view in snapshot.targets) else Exit.SOME_FAILING


@with_settings
def explain(
    loaded: Loaded,
    path: Annotated[str, typer.Argument(help="A path on the device or beneath its export, or an object key.")],
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Ask the running replicator where one file stands, and why. Exit code 0 when it needs nothing."""
    from replicator.observe.explanation import Verdict, to_json
    from replicator.observe.http import fetch_explanation
    from replicator.observe.render_explanation import render_explanation

    listen = loaded.settings.http_listen
    explanation = asyncio.run(fetch_explanation(listen, path))
    if explanation.verdict is Verdict.UNKNOWN and not path.startswith(("/", "s3://")):
        from_here = asyncio.run(fetch_explanation(listen, str(Path.cwd() / path)))  # as the shell completes it
        explanation = from_here if from_here.verdict is not Verdict.UNKNOWN else explanation
    if as_json:
        print_json(to_json(explanation))
    else:
        show(render_explanation(explanation))
    if explanation.verdict is Verdict.UNKNOWN:
        return Exit.FAILED
    return Exit.DONE if explanation.verdict in (Verdict.IN_STEP, Verdict.LEFT_OUT) else Exit.SOME_FAILING


@with_settings
def doctor(
    loaded: Loaded,
    write: Annotated[bool, typer.Option("--write", help="Try the store with objects, and remove them again.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Look at device and endpoint, and say what stands in the way. May be run beside a running replicator."""
    from replicator.doctor.examination import CONFIGURATION, examine
    from replicator.doctor.findings import Verdict

    styles = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}
    findings = []
    for finding in examine(loaded.settings, lambda: targets_of(loaded), is_writing=write):
        findings.append(finding)
        if not as_json:
            say(finding.as_line(), first_word=styles[finding.verdict])
    bad = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if as_json:
        print_json([finding.as_json() for finding in findings])
    if any(finding.check == CONFIGURATION for finding in bad):
        return Exit.CONFIG
    return Exit.FAILED if bad else Exit.DONE


@with_settings
def targets(loaded: Loaded, as_json: Json = False) -> None:  # noqa: FBT002
    """Print what is mapped to what, and where each mapping came from."""
    from replicator.commands.answers import mapped, plain

    found = [mapped(target) for target in targets_of(loaded)]
    if as_json:
        print_json(plain(found))
        return
    for line in (line for target in found for line in target.lines):
        say(line)
    if not found:
        say("nothing is mapped. Set REPLICATOR_EGRESS or REPLICATOR_INGRESS, or the data paths of the workload")


@with_settings
def settings(loaded: Loaded, as_json: Json = False) -> None:  # noqa: FBT002
    """Print the settings in force and where each came from. Secrets are masked."""
    from replicator.commands.answers import in_force, plain

    found = in_force(loaded)
    if as_json:
        print_json(plain(found))
        return
    width = max(map(len, found))
    for name, setting in found.items():
        say(f"{name:{width}}  {setting.value}  ({setting.origin})")
