"""Configurations that change in the wrong moment, too often, or not to the better: one complete one is in force.

The whole engine with a real S3 server.
"""

import asyncio
import contextlib
import os
import threading
from urllib.parse import urlsplit

import pytest
import yaml

from replicator.config.sources.files import FilesSource
from tests.waiting import eventually

pytestmark = pytest.mark.slow
MIB = 2**20


class Manifests:
    """A directory with one workload, and a source that reads it several times a second."""

    def __init__(self, device) -> None:
        self.directory = device.home / "manifests"
        self.directory.mkdir()
        self.file = self.directory / "workload.yaml"
        storage = device.storage
        endpoint = urlsplit(storage.endpoint)
        words = {
            "BUCKET_HOST": endpoint.hostname or "",
            "BUCKET_PORT": str(endpoint.port),
            "BUCKET_NAME": storage.bucket,
            "BUCKET_REGION": storage.region,
            "AWS_ACCESS_KEY_ID": storage.access_key_id.get_secret_value(),
            "AWS_SECRET_ACCESS_KEY": storage.secret_access_key.get_secret_value(),
        }
        settings = device.effective(
            source="files", s3_scheme="http", export_dir=str(device.export), manifests_dir=str(self.directory)
        )
        self.source = FilesSource(settings, words, poll_s=0.05, settle_s=0.02)

    def text(self, *subdirs: str) -> str:
        paths = [{"source": one, "target": f"sent-{one}"} for one in subdirs]
        metadata = {"name": "w"}
        spec = {"data": {"egress": paths}}
        kind = {"apiVersion": "management.project-flotta.io/v1alpha1", "kind": "EdgeWorkload"}
        return yaml.safe_dump(kind | {"metadata": metadata, "spec": spec})


@pytest.fixture
def manifests(device) -> Manifests:
    return Manifests(device)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.fault("D5")
async def test_configuration_that_flaps(device, manifests, witness):
    """A manifest rewritten 100 times a second: few configurations are applied, and what they opened is given back."""
    for number in range(20):
        device.write(f"a/{number}/f")
        device.write(f"b/{number}/f")
    texts = [manifests.text("a", "b"), manifests.text("a")]
    manifests.file.write_text(texts[0])
    async with device.running(source=manifests.source) as running:
        await running.in_step()
        watches = [view.watcher.watches for view in running.supervisor.snapshot().targets]
        await eventually(lambda: [view.watcher.watches for view in running.supervisor.snapshot().targets] == [21, 21])
        patrol, descriptors, threads = running.engine.patrols["w/egress/sent-a"], open_descriptors(), threads_now()

        for number in range(200):
            manifests.file.write_text(texts[number % 2])
            await asyncio.sleep(0.01)
        flaps = running.supervisor.snapshot().config.generation
        manifests.file.write_text(texts[1])
        await eventually(lambda: len(running.supervisor.snapshot().targets) == 1)
        manifests.file.write_text(texts[0])
        await eventually(lambda: len(running.supervisor.snapshot().targets) == 2)
        await running.in_step()
        await eventually(lambda: [view.watcher.watches for view in running.supervisor.snapshot().targets] == [21, 21])

        assert flaps <= 60
        assert running.engine.patrols["w/egress/sent-a"] is patrol
        await eventually(lambda: open_descriptors() <= descriptors + 4)
        await eventually(lambda: threads_now() <= threads + 4)
        assert "delete_object" not in running.requests()
        assert watches
    assert len(await witness.keys("sent-")) == 40


def threads_now() -> int:
    return threading.active_count()


@pytest.mark.fault("D5")
async def test_lanes_that_come_and_go_leave_nothing(device, witness):
    """A target taken out and put in again 100 times in a row: no thread, descriptor or task stays behind."""
    for number in range(20):
        device.write(f"out/{number}/f")
        device.write(f"second/{number}/f")
    both = device.egress(), device.egress("second", "second/")
    async with device.running(*both) as running:
        await running.in_step()
        descriptors, threads, tasks = open_descriptors(), threads_now(), len(asyncio.all_tasks())
        for _ in range(100):
            running.source.offer(both[0])
            running.source.offer(*both)
        await eventually(lambda: running.supervisor.snapshot().config.generation == 201, within_s=40)
        await running.in_step()

        await eventually(lambda: open_descriptors() <= descriptors + 4)
        await eventually(lambda: threads_now() <= threads + 4)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)
    assert len(await witness.keys()) == 40


@pytest.mark.fault("D5")
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_mapping_that_is_removed_while_it_uploads(device, witness, resume_after_s):
    """A mapping goes in the middle of a large upload and comes back before that has ended: one whole object."""
    path = device.write("out/f", os.urandom(11 * MIB))
    may_go, begun = threading.Event(), threading.Event()
    settings = {"part_size_bytes": 5 * MIB, "resume_after_s": resume_after_s}
    async with device.running(device.egress("other", "other/"), **settings) as running:
        running.source.offer(device.egress("other", "other/"), device.egress())
        await eventually(lambda: len(running.engine.patrols) == 2)
        store = running.engine.patrols["w/egress/sent"].lane.objects
        put_part, put_parts = store.put_part, store.put_parts

        def hold(*args, **more):
            begun.set()
            may_go.wait(20)
            return put_part(*args, **more)

        def hold_stream(key, parts, **more):
            def held():
                for part in parts:
                    begun.set()
                    may_go.wait(20)
                    yield part

            return put_parts(key, held(), **more)

        store.put_part, store.put_parts = hold, hold_stream
        await eventually(begun.is_set)
        running.source.offer(device.egress("other", "other/"))
        await eventually(lambda: len(running.engine.patrols) == 1)
        running.source.offer(device.egress("other", "other/"), device.egress())
        await eventually(lambda: len(running.engine.patrols) == 2)
        may_go.set()
        await running.in_step()

        assert not any(view.failing for view in running.supervisor.snapshot().targets)
    assert await witness.get("sent/f") == path.read_bytes()
    assert await witness.keys() == ["sent/f"]
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)


@pytest.mark.fault("D2")
async def test_manifest_that_is_removed_or_half_written(device, manifests, witness):
    """Gone, empty, cut anywhere or nonsense: the last good one stays in force, the fault is told till it is mended."""
    text = manifests.text("a")
    manifests.file.write_text(text)
    device.write("a/first")
    async with device.running(source=manifests.source) as running:
        await running.in_step()
        patrol = next(iter(running.engine.patrols.values()))
        for number, cut in enumerate((None, "", text[: len(text) // 2], "\0", "a: [", "kind: EdgeWorkload")):
            if cut is None:
                manifests.file.unlink()
            else:
                manifests.file.write_text(cut)
            await eventually(lambda: not running.supervisor.snapshot().config.valid)
            assert running.supervisor.snapshot().config.error
            assert "configuration invalid" in str(running.supervisor.snapshot().not_ready)
            device.write(f"a/{number}")
            await eventually(lambda number=number: witness.keys(f"sent-a/{number}"))

            manifests.file.write_text(text)
            await eventually(lambda: running.supervisor.snapshot().config.valid)
        assert next(iter(running.engine.patrols.values())) is patrol
        await running.in_step()
    assert len(await witness.keys()) == 7


@pytest.mark.fault("D2")
async def test_swaps_of_a_mounted_directory_while_it_is_read(device, manifests, witness):
    """A ConfigMap whose `..data` is swapped all the time: each configuration in force is one of the two, whole."""
    for number, subdirs in enumerate((("a", "b"), ("a", "c"))):
        (manifests.directory / f"..{number}").mkdir()
        (manifests.directory / f"..{number}/workload.yaml").write_text(manifests.text(*subdirs))
    (manifests.directory / "..data").symlink_to("..0")
    manifests.file.symlink_to("..data/workload.yaml")
    seen: set[tuple[str, ...]] = set()
    async with device.running(source=manifests.source) as running:
        for number in range(100):
            link = manifests.directory / "..new"
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(f"..{number % 2}")
            link.rename(manifests.directory / "..data")
            await asyncio.sleep(0.02)
            assert running.supervisor.snapshot().config.valid
            seen.add(tuple(sorted(view.path[-1] for view in running.supervisor.snapshot().targets)))
        assert seen <= {("a", "b"), ("a", "c"), ("a",)}
        await eventually(lambda: set(running.engine.patrols) == {"w/egress/sent-a", "w/egress/sent-c"})
        device.write("c/f")
        await eventually(lambda: witness.keys("sent-c/f"))
