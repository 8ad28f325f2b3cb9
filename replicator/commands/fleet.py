"""Commands of the control plane: `pod`, `edge-api`, `operator`. Their settings are not those of replication."""

import os
from pathlib import Path
from typing import Annotated

import typer

from replicator import __version__
from replicator.commands.exits import Exit
from replicator.controlplane.sidecar import VOLUMES_DIR, Form, Kept
from replicator.observe import logs


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
    """Print the Pod of an EdgeWorkload: its containers with /export. With --sidecar replicator is one of them."""
    from replicator.controlplane.pod import Place
    from replicator.controlplane.rendering import Wish, pod_yaml

    place = Place(volume, volumes_dir.rstrip("/"))
    wish = Wish(workload, sidecar, claim, external, image, place, device, user, grace_s)
    print(pod_yaml(file, wish), end="")  # noqa: T201


def edge_api() -> None:
    """Serve devices their configuration, by Flotta's protocol. Settings are variables REPLICATOR_CONTROL_*."""
    from replicator.controlplane.edge_api import main as server
    from replicator.controlplane.settings import EdgeApiSettings
    from replicator.controlplane.settings import load as control

    loaded = control(EdgeApiSettings, os.environ)
    logs.configure(level=loaded.log_level, format=loaded.log_format)
    raise typer.Exit(Exit.DONE if server.main(loaded) else Exit.FAILED)


def operator() -> None:
    """Give devices their bucket claims, and take them back. Settings are variables REPLICATOR_CONTROL_*."""
    from replicator.controlplane.settings import OperatorSettings
    from replicator.controlplane.settings import load as control

    loaded = control(OperatorSettings, os.environ)
    logs.configure(level=loaded.log_level, format=loaded.log_format)
    from replicator.controlplane.operator import main as running

    running.main(loaded)
