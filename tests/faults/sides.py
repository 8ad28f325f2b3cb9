"""Both sides as somebody sees them who shares no code with replicator, and what replicator says of a fault."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from tests.device import Device, Running

if TYPE_CHECKING:
    from tests.conftest import Witness


async def both_equal(device: Device, witness: "Witness") -> None:
    """Fails unless each side holds exactly what the other does, byte by byte, and no upload was left open."""
    for directory, prefix in ((device.outbox, "sent/"), (device.inbox, "incoming/")):
        objects = {key.removeprefix(prefix): await witness.get(key) for key in await witness.keys(prefix)}
        files = await asyncio.to_thread(files_in, directory)
        assert files.keys() == objects.keys()
        assert [name for name in files if files[name] != objects[name]] == []
    assert uploads(witness) == []
    assert not list((device.export / ".replicator").glob("tmp/*"))


def files_in(directory: Path) -> dict[str, bytes]:
    """Every file by its path beneath the directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def keep_versions(witness: "Witness") -> None:
    """Let the bucket keep every version, so that whatever was written twice can be counted."""
    kept = {"Status": "Enabled"}
    witness.client.put_bucket_versioning(Bucket=witness.bucket, VersioningConfiguration=kept)


def versions(witness: "Witness", key: str) -> list[str]:
    """The ETags that the key has had, the newest first."""
    told = witness.client.list_object_versions(Bucket=witness.bucket, Prefix=key).get("Versions", ())
    return [version["ETag"].strip('"') for version in told if version["Key"] == key]


def uploads(witness: "Witness") -> list[str]:
    """Keys of the unfinished uploads."""
    told = witness.client.list_multipart_uploads(Bucket=witness.bucket).get("Uploads", ())
    return [upload["Key"] for upload in told]


def put_off(running: Running) -> dict[str, float]:
    """How many attempts were put off, by reason."""
    found: dict[str, float] = {}
    for metric in running.engine.metrics.retries.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                found[sample.labels["reason"]] = found.get(sample.labels["reason"], 0) + sample.value
    return found


def told(running: Running) -> set[str]:
    """Outcomes of S3 requests so far, in words of the metric."""
    metrics = running.engine.metrics.s3_requests.collect()
    return {sample.labels["code"] for metric in metrics for sample in metric.samples if "code" in sample.labels}


async def sweep(running: Running) -> None:
    """One sweep of each target, now."""
    for patrol in list(running.engine.patrols.values()):
        await patrol.sweep()
