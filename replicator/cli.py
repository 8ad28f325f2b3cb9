"""The command line: words in, words and an exit code out. No logic: each command calls one function and shows it.

Every setting is an option of every command that reads settings; the options are made from the settings' own table.
Exit codes: 0 in step, 1 failed, 2 configuration, 3 differences, 4 some files failing.
"""

import asyncio
import functools
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator import __version__
from replicator.config.settings import FLAGS, Loaded, load, text_of
from replicator.config.sources.source import Source, make_source
from replicator.controlplane.sidecar import VOLUMES_DIR, Form, Kept
from replicator.errors import ConfigError, ReplicatorError
from replicator.model import Target
from replicator.observe import logs, words

if TYPE_CHECKING:
    from rich.console import Console

    from replicator.once import Step

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Keeps the /export directories of edge workloads and an S3 bucket in step, both ways, by events.",
)

EXIT_FAILED, EXIT_CONFIG, EXIT_DIFFERENT, EXIT_SOME_FAILING = 1, 2, 3, 4
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

_PATIENCE_S = 1.0
"""For threads to end at the end of the process. The interpreter itself would wait for ever."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON with documented fields.")]
Command = Callable[..., int | None]


def main() -> None:
    """The `replicator` command. Every expected error is one line on stderr and an exit code."""
    try:
        app()
    except ConfigError as error:
        _leave(EXIT_CONFIG, error)
    except ReplicatorError as error:
        _leave(EXIT_FAILED, error)
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        _leave(end.code or 0)
    except Exception:  # noqa: BLE001 - a fault of ours; the interpreter would print what the log masks
        print(logs.masked(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        _leave(EXIT_FAILED)


def _leave(code: int, error: ReplicatorError | None = None) -> None:
    """End the process, also when a thread is stuck in a request: the journal knows what was not confirmed."""
    if error:
        print(f"replicator: {words.escape(logs.masked(str(error)))}", file=sys.stderr)  # noqa: T201 - the command line's own voice
    deadline_s = time.monotonic() + _PATIENCE_S
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def with_settings(command: Command) -> Command:
    """Give a command, whose first parameter is `loaded`, an option for every setting."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {flag.name: arguments.pop(flag.name) for flag in FLAGS}
        loaded = load({name: value for name, value in given.items() if value is not None}, os.environ)
        logs.configure(level=loaded.settings.log_level, format=loaded.settings.log_format)
        raise typer.Exit(command(loaded, **arguments) or 0)

    own = list(inspect.signature(command).parameters.values())[1:]
    options = [
        inspect.Parameter(
            flag.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(flag.option, help=f"{flag.help} [default: {flag.default or 'empty'}]", metavar="VALUE"),
            ],
        )
        for flag in FLAGS
    ]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*keyword_only, *options])  # type: ignore[attr-defined]
    return run


@functools.cache
def _console() -> "Console":
    """Made when first drawn on: `run` never does, and the library takes 2 MiB."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def _source(loaded: Loaded) -> Source:
    return make_source(loaded.settings, os.environ, origins=loaded.origins)


def _targets(loaded: Loaded) -> tuple[Target, ...]:
    return _source(loaded).read()


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201


@app.command()
@with_settings
def run(loaded: Loaded) -> None:
    """Replicate until told to stop: SIGTERM sends what is settled first, a second one does not."""
    from replicator import supervisor

    supervisor.main(loaded.settings, _source(loaded), reread=lambda: load(loaded.flags, os.environ).settings)


@app.command()
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

    targets = _targets(loaded)
    if dry_run:
        return asyncio.run(_show_plan(once.plan(loaded.settings, targets), as_json=as_json))
    snapshot = asyncio.run(once.sync(loaded.settings, targets))
    if as_json:
        _print_json(to_json(snapshot))
    else:
        _console().print(render_status(snapshot))
    states = {view.state for view in snapshot.targets}
    if states & {State.BLOCKED, State.STARTING}:
        return EXIT_FAILED
    return EXIT_SOME_FAILING if states & {State.FAILING, State.BEHIND} else 0


async def _show_plan(steps: "AsyncIterator[Step]", *, as_json: bool) -> int:
    lines = []
    async for step in steps:
        if as_json:
            lines.append(
                {
                    "target": step.target.id,
                    "action": step.action.value,
                    "relpath": words.escape(step.relpath),
                    "size": step.size,
                }
            )
        else:
            _console().print(
                f"{step.action.value:8} {words.size(step.size):>10}  {step.target.id}  {words.escape(step.relpath)}",
                markup=False,
            )
            lines.append({})
    if as_json:
        _print_json(lines)
    elif not lines:
        _console().print("nothing to do: everything is in step")
    return 0


@app.command()
@with_settings
def verify(
    loaded: Loaded,
    deep: Annotated[bool, typer.Option("--deep", help="Compare the contents by checksum: reads every file.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Compare both sides of every target and name the differences. Exit code 3 when there are any."""
    from replicator import verify as comparison

    found = asyncio.run(comparison.verify(loaded.settings, _targets(loaded), is_deep=deep))
    if as_json:
        _print_json(
            [
                {
                    "target": result.target.id,
                    "equal": result.equal,
                    "differences": {words.escape(item.relpath): item.problem for item in result.differences},
                }
                for result in found
            ]
        )
    else:
        for result in found:
            for difference in result.differences:
                _console().print(
                    f"{result.target.id}  {words.escape(difference.relpath)}: {difference.problem}", markup=False
                )
            _console().print(
                f"{result.target.id}: {words.count(result.equal, 'file')} equal, "
                f"{words.count(len(result.differences), 'difference')}",
                markup=False,
            )
    return EXIT_DIFFERENT if any(result.differences for result in found) else 0


@app.command()
@with_settings
def doctor(
    loaded: Loaded,
    write: Annotated[bool, typer.Option("--write", help="Try the store with objects, and remove them again.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Look at this device and at the endpoint, and say what stands in the way; runs beside a running replicator."""
    from replicator.doctor.examination import CONFIGURATION, examine
    from replicator.doctor.findings import Verdict

    findings = []
    for finding in examine(loaded.settings, lambda: _targets(loaded), is_writing=write):
        findings.append(finding)
        if not as_json:
            _console().print(finding.as_line(), markup=False)
    bad = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if as_json:
        _print_json([finding.as_json() for finding in findings])
    if any(finding.check == CONFIGURATION for finding in bad):
        return EXIT_CONFIG
    return EXIT_FAILED if bad else 0


@app.command()
@with_settings
def targets(loaded: Loaded, as_json: Json = False) -> None:  # noqa: FBT002
    """Print what is mapped to what, and where each mapping came from."""
    from replicator.report import path_of, url_of

    rows = [
        {
            "id": target.id,
            "direction": str(target.direction),
            "path": path_of(target),
            "url": url_of(target),
            "endpoint": target.storage.endpoint,
            "storage": target.storage.origin,
            "origin": target.origin,
        }
        for target in _targets(loaded)
    ]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        arrow = "->" if row["direction"] == "egress" else "<-"
        _console().print(f"{row['path']} {arrow} {row['url']} at {row['endpoint']}", markup=False)
        _console().print(f"    {row['id']}, from {row['origin']}; storage from {row['storage']}", markup=False)


@app.command()
@with_settings
def settings(loaded: Loaded, as_json: Json = False) -> None:  # noqa: FBT002
    """Print the settings in force and where each came from, secrets masked."""
    values = {flag.name: text_of(getattr(loaded.settings, flag.name)) for flag in FLAGS}
    if as_json:
        _print_json({name: {"value": value, "origin": loaded.origins[name]} for name, value in values.items()})
        return
    width = max(map(len, values))
    for name, value in values.items():
        _console().print(f"{name:{width}}  {words.escape(value)}  ({loaded.origins[name]})", markup=False)


@app.command()
@with_settings
def status(loaded: Loaded, as_json: Json = False) -> int:  # noqa: FBT002
    """Ask the running replicator: is the data safe, and if not, why. Exit code 0 when it is in step."""
    from replicator.observe.http import fetch_status
    from replicator.observe.render import render_status
    from replicator.observe.status import State, to_json

    snapshot = asyncio.run(fetch_status(loaded.settings.http_listen))
    if as_json:
        _print_json(to_json(snapshot))
    else:
        _console().print(render_status(snapshot))
    return 0 if all(view.state is State.IN_STEP for view in snapshot.targets) else EXIT_SOME_FAILING


@app.command()
@with_settings
def explain(
    loaded: Loaded,
    path: Annotated[str, typer.Argument(help="A path on the device or beneath its export, or an object key.")],
    as_json: Json = False,  # noqa: FBT002
) -> int:
    """Ask the running replicator about one file: where it stands, and why. Exit code 0 when it needs nothing."""
    from replicator.observe.explanation import Verdict, to_json
    from replicator.observe.http import fetch_explanation
    from replicator.observe.render_explanation import render_explanation

    explanation = asyncio.run(fetch_explanation(loaded.settings.http_listen, path))
    if explanation.verdict is Verdict.UNKNOWN and not path.startswith(("/", "s3://")):  # as the shell completes it
        explanation = asyncio.run(fetch_explanation(loaded.settings.http_listen, str(Path.cwd() / path)))
    if as_json:
        _print_json(to_json(explanation))
    else:
        _console().print(render_explanation(explanation))
    if explanation.verdict is Verdict.UNKNOWN:
        return EXIT_FAILED
    return 0 if explanation.verdict in (Verdict.IN_STEP, Verdict.LEFT_OUT) else EXIT_SOME_FAILING


@app.command()
def pod(
    file: Annotated[Path, typer.Argument(help="A file with an EdgeWorkload.")],
    *,
    workload: Annotated[str, typer.Option(help="Which one, where the file has several.")] = "",
    sidecar: Annotated[Form, typer.Option(help="native: Kubernetes 1.29; container: older ones, podman.")] = Form.NONE,
    claim: Annotated[str, typer.Option(help="The bucket claim that the sidecar uses.")] = "",
    external: Annotated[str, typer.Option(help="CONFIGMAP/SECRET of an external bucket, instead of a claim.")] = "",
    image: Annotated[str, typer.Option(help="The sidecar's image.")] = f"replicator:{__version__}",
    volume: Annotated[Kept, typer.Option(help="Where /export is kept.")] = Kept.HOST_PATH,
    volumes_dir: Annotated[str, typer.Option(help="The device's volumes, a directory a workload.")] = VOLUMES_DIR,
    device: Annotated[str, typer.Option(help="Told to the containers as DEVICE_ID.")] = "",
    user: Annotated[int | None, typer.Option(help="The sidecar's uid; else the workload's.", min=0)] = None,
    grace_s: Annotated[int, typer.Option(help="Seconds that the Pod has to stop.")] = 60,
) -> None:
    """Print the Pod that runs an EdgeWorkload: its containers with /export, and the sidecar if wanted."""
    from replicator.controlplane.pod import Place
    from replicator.controlplane.rendering import Wish, pod_yaml

    place = Place(volume, volumes_dir.rstrip("/"))
    wish = Wish(workload, sidecar, claim, external, image, place, device, user, grace_s)
    print(pod_yaml(file, wish), end="")  # noqa: T201


@app.command("edge-api")
def edge_api() -> None:
    """Serve devices their configuration from the cluster, by Flotta's protocol; settings are REPLICATOR_CONTROL_*."""
    from replicator.controlplane.edge_api import main as server
    from replicator.controlplane.settings import EdgeApiSettings
    from replicator.controlplane.settings import load as control

    loaded = control(EdgeApiSettings, os.environ)
    logs.configure(level=loaded.log_level, format=loaded.log_format)
    raise typer.Exit(0 if server.main(loaded) else EXIT_FAILED)


@app.command()
def operator() -> None:
    """Give the devices of a cluster their bucket claims, and take them back; settings are REPLICATOR_CONTROL_*."""
    from replicator.controlplane.settings import OperatorSettings
    from replicator.controlplane.settings import load as control

    loaded = control(OperatorSettings, os.environ)
    logs.configure(level=loaded.log_level, format=loaded.log_format)
    from replicator.controlplane.operator import main as running

    running.main(loaded)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="End by itself after so long; 0 runs until Ctrl-C.")] = 0.0,
    port: Annotated[int, typer.Option(help="Port of the demo's S3 server; 0 takes a free one.")] = 0,
) -> None:
    """Run the main job on an embedded S3 server: a workload's files appear in a bucket, a client's on the device."""
    from replicator import demo as show

    raise typer.Exit(show.main(seconds=seconds, port=port))


@app.command()
def version() -> None:
    """Print the version."""
    _console().print(f"replicator {__version__}")
