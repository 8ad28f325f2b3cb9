"""Credentials that change on disk while transfers run: the next request has them, and nothing else starts over."""

import os
import time
from pathlib import Path

import pytest

from replicator.config.sources.env import EnvSource
from replicator.config.sources.files import FilesSource
from replicator.transfer.retry import RetryPolicy
from tests.certificates import issue
from tests.semantics.memory_s3 import MemoryS3

OLD, NEW, OTHER = "AKIAOLDOLDOLDOLDAAAA", "AKIANEWNEWNEWNEWBBBB", "AKIAHALFHALFHALFCCCC"
FOREVER_S = 3600.0
WORDS = {"BUCKET_HOST": "127.0.0.1", "BUCKET_NAME": "b", "BUCKET_REGION": "us-east-1"}


class Mount:
    """Credentials as files, in both ways in which they come to change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)

    def write(self, **words: str) -> None:
        """In place, as an agent on the device does."""
        for word, text in words.items():
            (self.directory / word).write_text(text)

    def swap(self, **words: str) -> None:
        """As the kubelet does: another directory, to which `..data` then leads."""
        made = self.directory / f"..{time.time_ns()}"
        made.mkdir()
        for word, text in words.items():
            (made / word).write_text(text)
            if not (self.directory / word).is_symlink():
                (self.directory / word).symlink_to(f"..data/{word}")
        (self.directory / "..fresh").symlink_to(made.name)
        os.replace(self.directory / "..fresh", self.directory / "..data")


def keys(name: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": f"secret of {name}".replace(" ", "-")}


@pytest.fixture
def keyed(stub_s3, reply) -> MemoryS3:
    return MemoryS3(stub_s3, reply, known={OLD})


@pytest.fixture
def mount(tmp_path) -> Mount:
    return Mount(tmp_path / "manifests/storage/obc")


@pytest.fixture
def settings(device):
    """What the device's sources and its engine are told alike."""
    return {
        "export_dir": str(device.export),
        "manifests_dir": str(device.home / "manifests"),
        "egress": "out=sent",
        "ingress": "incoming=in",
        "s3_scheme": "http",
        "sweep_interval_s": "3600",
    }


@pytest.fixture
def from_env(device, stub_s3, mount, settings):
    """The bucket's words as variables, its credentials as `_FILE` words."""
    named = {f"{word}_FILE": str(mount.directory / word) for word in keys(OLD)}

    def make(**more):
        environ = WORDS | {"BUCKET_PORT": str(stub_s3.port)} | named
        return EnvSource(device.effective(**settings | more), environ, poll_s=0.05, settle_s=0.05)

    return make


@pytest.fixture
def patient(monkeypatch):
    """Whoever fails waits an hour, so that nothing but new credentials can end the wait."""
    monkeypatch.setattr(RetryPolicy, "delay_s", lambda *_: FOREVER_S)


async def _replicated(device, keyed, until, name: str) -> None:
    content = name.encode()
    device.write(f"out/{name}", content)
    await until(lambda: keyed.objects.get(f"sent/{name}") == content)


@pytest.mark.fault("B18")
@pytest.mark.parametrize("s3_engine", ["auto", pytest.param("s3fs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["in-place", "swap"])
async def test_next_request_has_the_new_credentials(device, keyed, mount, from_env, settings, until, way, s3_engine):
    """B7: rotated `_FILE` words are in force without a restart; rows, queue and watches stay as they are."""
    change = mount.write if way == "in-place" else mount.swap
    change(**keys(OLD))
    async with device.running(source=from_env(), **settings, s3_engine=s3_engine) as running:
        await _replicated(device, keyed, until, "first")
        await running.watching()
        lanes = [patrol.lane for patrol in running.engine.patrols.values()]

        keyed.known = {NEW}
        change(**keys(NEW))
        await until(lambda: running.supervisor.snapshot().config.generation == 2)
        before = keyed.asked[OLD]
        await _replicated(device, keyed, until, "second")
        await until(lambda: all(view.state == "in-step" for view in running.supervisor.snapshot().targets))

        assert keyed.asked[OLD] == before
        assert keyed.puts == {"sent/first": 1, "sent/second": 1}
        assert [patrol.lane for patrol in running.engine.patrols.values()] == lanes
        assert running.view().watcher.restarts == 0
        assert running.count("failed") == 0


@pytest.mark.fault("B18")
async def test_swapped_secret_directory_reaches_the_next_request(device, stub_s3, keyed, mount, settings, until):
    """B7: a mounted Secret that the kubelet swaps is noticed, and its lanes go on with it."""
    words = WORDS | {"BUCKET_PORT": str(stub_s3.port)}
    mount.swap(**words, **keys(OLD))
    described = {name: text for name, text in settings.items() if name not in {"egress", "ingress"}}
    told = device.effective(**described, source="files", workload="w")
    source = FilesSource(told, {}, poll_s=0.05, settle_s=0.05)
    (device.home / "manifests/w.yaml").write_text(
        "kind: EdgeWorkload\nmetadata: {name: w}\nspec: {data: {egress: [{source: out, target: sent}]}}\n"
    )
    async with device.running(source=source, **described) as running:
        await _replicated(device, keyed, until, "first")
        keyed.known = {NEW}
        mount.swap(**words, **keys(NEW))
        await until(lambda: running.supervisor.snapshot().config.generation == 2)
        await _replicated(device, keyed, until, "second")

        assert keyed.puts == {"sent/first": 1, "sent/second": 1}


@pytest.mark.fault("B18")
async def test_half_written_credentials_change_nothing(device, keyed, mount, from_env, settings, until):
    """B7: an emptied file is refused and told, the old key goes on, and the whole file is in force once it is there."""
    mount.write(**keys(OLD))
    async with device.running(source=from_env(), **settings) as running:
        await _replicated(device, keyed, until, "first")

        mount.write(AWS_SECRET_ACCESS_KEY="")
        await until(lambda: not running.supervisor.snapshot().config.valid)
        assert "AWS_SECRET_ACCESS_KEY: is empty" in running.supervisor.snapshot().config.error
        await _replicated(device, keyed, until, "second")
        assert set(keyed.asked) == {OLD}

        keyed.known = {NEW}
        mount.write(AWS_ACCESS_KEY_ID=OTHER[:9])  # of which nobody must hear: it is whole a moment later
        mount.write(**keys(NEW))
        await until(lambda: running.supervisor.snapshot().config.valid)
        await _replicated(device, keyed, until, "third")

        assert set(keyed.asked) == {OLD, NEW}
        assert keyed.puts == {"sent/first": 1, "sent/second": 1, "sent/third": 1}


@pytest.mark.fault("B17", "B18")
async def test_refused_key_is_left_alone_until_another_one_comes(
    device, keyed, mount, from_env, settings, until, patient
):
    """B7: a revoked key costs a handful of requests, the state tells which it is, and a new one ends every wait."""
    for number in range(40):
        device.write(f"out/{number}")
    keyed.known, keyed.objects["incoming/f"] = set(), b"from the bucket"
    mount.write(**keys(OLD))
    async with device.running(source=from_env(), **settings) as running:
        await until(lambda: all(view.state == "blocked" for view in running.supervisor.snapshot().targets))
        await until(lambda: not running.supervisor.snapshot().transfers_in_flight)
        asked = keyed.asked[OLD]
        for path in range(100):
            device.write(f"out/{path}", b"again")
        await until(lambda: running.view().pending_files == 100)
        told = running.view()

        assert asked == keyed.asked[OLD] <= 16
        assert f"access key ...{OLD[-4:]}: " in told.reason
        assert OLD not in str(running.supervisor.snapshot())
        assert "access key" in told.fix

        keyed.known = {NEW}
        mount.write(**keys(NEW))
        await until(lambda: sum(keyed.puts.values()) == 100)
        await until((device.inbox / "f").exists)
        await until(lambda: all(view.state == "in-step" for view in running.supervisor.snapshot().targets))

        assert keyed.asked[OLD] == asked
        assert set(keyed.puts.values()) == {1}


@pytest.mark.fault("B17", "B18")
async def test_request_under_way_with_the_old_key_is_repeated_with_the_new_one(
    device, keyed, mount, from_env, settings, until, patient
):
    """B7: a refusal that arrives after the rotation is the old key's: the file goes again at once, by the new one."""
    mount.write(**keys(OLD))
    device.outbox.mkdir()
    async with device.running(source=from_env(), **settings) as running:
        await running.watching()
        before, keyed.known, keyed.delay_s = keyed.asked[OLD], {NEW}, 1.5
        device.write("out/f")
        await until(lambda: keyed.asked[OLD] > before)
        mount.write(**keys(NEW))
        await until(lambda: running.supervisor.snapshot().config.generation == 2)
        assert running.supervisor.snapshot().transfers_in_flight
        keyed.delay_s = 0.0

        await until(lambda: keyed.puts["sent/f"] == 1)
        await until(lambda: running.view().state == "in-step")
        assert running.count("failed") == 1


@pytest.mark.fault("B20")
async def test_rotated_authority_is_trusted_and_the_old_one_no_longer(
    device, start_stub, reply, mount, settings, until, tmp_path
):
    """B7: once the endpoint shows a certificate of another authority nothing is sent, until tls.crt has that one."""
    before, after = issue("before", is_authority=True), issue("after", is_authority=True)
    tls = issue("server", by=before).server_context(tmp_path)
    tls.num_tickets = 0  # or a session of before would be resumed, without a look at the certificate
    stub = start_stub(tls)
    keyed = MemoryS3(stub, known={OLD}, reply=lambda *args, **more: _for_once(reply(*args, **more)))
    mount.write(**{"tls.crt": before.pem})
    environ = WORDS | {"BUCKET_PORT": str(stub.port), "tls.crt_FILE": str(mount.directory / "tls.crt")} | keys(OLD)
    settings = settings | {"s3_scheme": "https", "parked_retry_s": "3600"}
    source = EnvSource(device.effective(**settings), environ, poll_s=0.05, settle_s=0.05)
    async with device.running(source=source, **settings) as running:
        await _replicated(device, keyed, until, "first")

        issue("server", by=after).server_context(tmp_path)
        tls.load_cert_chain(tmp_path / "server.pem")
        for number in range(4):
            device.write(f"out/{number}")
        await until(lambda: "(certificate)" in running.view().reason)
        assert keyed.puts == {"sent/first": 1}

        mount.write(**{"tls.crt": after.pem})
        await until(lambda: running.view().state == "in-step" and len(keyed.puts) == 5)


def _for_once(answer):
    """The answer, with the connection closed after it: the next request shakes hands anew."""
    answer.headers["Connection"] = "close"
    return answer
