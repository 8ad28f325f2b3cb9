"""What a device tells its Edge API: heartbeats, and that a disconnected device has sent all."""

import contextlib
import datetime as dt
import json
import socket
from collections.abc import AsyncGenerator

import pytest

from replicator.config.message import heartbeat
from replicator.config.sources.edge_api import EdgeApiSource
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe.standing import Report, Stand, Standing, from_json
from tests.certificates import issue
from tests.edge_api import PATH, SECRET, EdgeApi, message, settings_of

pytestmark = pytest.mark.slow

NOW_TS = 1_800_000_000.25
SENT = Standing("os-stats", Stand.SYNCED, last_upload_ts=NOW_TS - 60)
UP = Report((SENT,), is_drained=False, at_ts=NOW_TS)
DRAINED = Report((SENT,), is_drained=True, at_ts=NOW_TS)
LEFT = Report((Standing("os-stats", Stand.LAGGING, "", 3, 30, 5.0),), is_drained=False, at_ts=NOW_TS)


@pytest.fixture
def settings(api, identity, tmp_path):
    return settings_of(api.endpoint, identity, tmp_path, edge_api_heartbeat_s="60")


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "state/edge-api.json"


class Device:
    """A process with the source: its polls one by one."""

    def __init__(self, settings) -> None:
        self.source = EdgeApiSource(settings, poll_s=0.001)
        self._changes = self.source.changes()

    async def poll(self) -> list[str] | ConfigError:
        """The targets of the next news."""
        snapshot: tuple[Target, ...] | ConfigError = await anext(self._changes)
        return snapshot if isinstance(snapshot, ConfigError) else [target.id for target in snapshot]

    async def tell(self, report: Report) -> None:
        await self.source.tell(report)

    async def end(self) -> None:
        if isinstance(self._changes, AsyncGenerator):
            await self._changes.aclose()


@pytest.fixture
async def start(settings):
    """Starts processes one after the other: the one before ends."""
    running: list[Device] = []

    async def begin() -> Device:
        for device in running:
            await device.end()
        running.append(Device(settings))
        return running[-1]

    yield begin
    for device in running:
        await device.end()


TARGETS = ["os-stats/egress/statistics"]


# The heartbeat


def test_heartbeat_has_flottas_fields_and_our_report():
    """Status, version, workloads with their last upload, events; the report as it is in `replication`."""
    plain = json.loads(heartbeat(UP, version="338", message_id="m"))
    content = plain["content"]

    assert {name: plain[name] for name in ("type", "directive", "message_id", "version", "sent")} == {
        "type": "data",
        "directive": "heartbeat",
        "message_id": "m",
        "version": 1,
        "sent": "2027-01-15T08:00:00.250Z",
    }
    assert (content["status"], content["version"], content["events"]) == ("up", "338", [])
    assert content["workloads"] == [
        {"name": "os-stats", "status": "Running", "last_data_upload": "2027-01-15T07:59:00.250Z"}
    ]
    assert from_json(content["replication"]) == UP


def test_heartbeat_before_the_first_upload_tells_no_time():
    """Nothing stands in the place of a time that is not known; what is blocked is degraded."""
    blocked = Report((Standing("w", Stand.BLOCKED, "access-denied"),), is_drained=False, at_ts=NOW_TS)
    content = json.loads(heartbeat(blocked, version="", message_id="m"))["content"]

    assert content["workloads"] == [{"name": "w", "status": "Running"}]
    assert content["status"] == "degraded"


async def test_heartbeat_is_posted_over_the_connection_of_the_polls(api, start):
    """One POST to data/out with the device's certificate, JSON, no second handshake, no secret."""
    device = await start()
    assert await device.poll() == TARGETS
    await device.tell(UP)

    (post,) = [request for request in api.requests if request.method == "POST"]
    assert post.target == f"{PATH}/data/gateway-7/out"
    assert post.headers["content-type"] == "application/json"
    assert api.default.heard[0]["content"]["version"] == "338"
    assert SECRET.encode() not in post.body
    assert api.connections == 1


async def test_heartbeat_is_off_until_it_is_asked_for(api, identity, tmp_path):
    """Flotta's own agent tells the same of the device: by default nothing is posted."""
    device = Device(settings_of(api.endpoint, identity, tmp_path))
    await device.poll()
    await device.tell(UP)
    await device.end()

    assert device.source.heartbeat_s == 0
    assert not api.default.heard


@pytest.mark.parametrize("status", [403, 404, 409, 500])
async def test_refused_heartbeat_is_an_error_and_changes_nothing(api, start, reply, status):
    """It is raised for whoever tells it, and the next poll goes on as before."""
    device = await start()
    await device.poll()
    api.default.taken = reply(status)

    with pytest.raises(ConfigError, match=f"does not take the heartbeat \\({status}\\)"):
        await device.tell(UP)
    api.default.says(message("339", workloads=[]))
    assert await device.poll() == []


async def test_heartbeat_to_nobody_is_an_error(api, start):
    """A connection that cannot be made is told in the same words as a poll's."""
    device = await start()
    await device.poll()
    await device.end()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        device.source._client._port = deaf.getsockname()[1]

        with pytest.raises(ConfigError, match="cannot be told"):
            await device.tell(UP)


# Disconnected


async def test_drained_is_told_until_it_is_taken_and_then_no_more(api, start, reply, kept):
    """What is kept stays until somebody has heard it; afterwards nothing is left to tell."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    assert await device.poll() == []
    api.default.taken = reply(500)
    with contextlib.suppress(ConfigError):
        await device.tell(DRAINED)
    assert kept.exists()

    api.default.taken = reply(200)
    await device.tell(DRAINED)
    await device.tell(DRAINED)

    assert [report["is_drained"] for report in api.default.reports()] == [True]
    assert not kept.exists()


async def test_what_could_not_be_sent_is_told_as_it_is(api, start, kept):
    """A disconnected device with files left says how many, and that it is not drained; its words are kept."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    await device.poll()
    await device.tell(LEFT)

    (report,) = api.default.reports()
    assert (report["is_drained"], report["standings"][0]["pending_files"]) == (False, 3)
    assert kept.exists()


async def test_nothing_is_drained_before_the_disconnect(api, start, kept):
    """A registered device without anything to do is no device that leaves."""
    device = await start()
    await device.poll()
    await device.tell(DRAINED)

    assert [report["is_drained"] for report in api.default.reports()] == [False]
    assert kept.exists()


async def test_restart_during_the_drain_drains_once_more(api, start, kept):
    """A process that was killed over it has not proven anything: its targets run again until the next poll."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    await device.poll()

    again = await start()
    assert await again.poll() == TARGETS
    assert await again.poll() == []
    await again.tell(DRAINED)
    assert [report["is_drained"] for report in api.default.reports()] == [True]
    assert not kept.exists()


async def test_process_that_knows_of_nothing_proves_nothing(api, start):
    """Without the words of what ran, nobody can say that all of it is sent: nothing is told."""
    api.default.disconnects()
    device = await start()
    assert await device.poll() == []
    await device.tell(DRAINED)

    assert not api.default.heard


async def test_control_channel_that_fails_is_no_registration(api, start, reply):
    """A device that leaves goes on leaving while the answer is an error."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    await device.poll()
    api.default.control = reply(503)

    error = await device.poll()
    assert isinstance(error, ConfigError)
    assert device.source._is_leaving


async def test_device_that_is_registered_anew_starts_anew(api, start, kept):
    """The new message counts though its version is lower: it is another object's. What was kept is replaced."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    await device.poll()
    await device.tell(DRAINED)
    api.default.says(message("2"))
    api.default.knows_it_again()

    assert await device.poll() == TARGETS
    assert json.loads(kept.read_text())["content"]["version"] == "2"
    await device.tell(DRAINED)
    assert [report["is_drained"] for report in api.default.reports()] == [True, False]


async def test_device_that_is_back_before_it_was_drained_starts_anew(api, start):
    """Nothing of the registration before counts, not even the order of its versions."""
    device = await start()
    await device.poll()
    api.default.disconnects()
    await device.poll()
    api.default.says(message("2"))
    before = len([request for request in api.requests if "/data/" in request.target])
    api.default.knows_it_again()

    assert await device.poll() == TARGETS
    assert len([request for request in api.requests if "/data/" in request.target]) == before + 1


async def test_single_look_at_a_device_that_leaves_finds_nothing_to_do(api, start, settings):
    """Only who drains runs what was kept: `sync` and `check` have no targets."""
    await (await start()).poll()
    api.default.disconnects()

    assert EdgeApiSource(settings).read() == ()


# Certificates


@pytest.mark.fault("E9")
async def test_expired_certificate_is_refused_until_it_is_renewed(api, identity, authority, start):
    """The handshake fails and data goes on by what is in force; the renewed files are used by the next poll."""
    device = await start()
    await device.poll()
    long_ago = issue("gateway-7", by=authority, age=dt.timedelta(days=9), life=dt.timedelta(days=1))
    (identity / "cert.pem").write_text(long_ago.pem)
    (identity / "key.pem").write_text(long_ago.key_pem)

    assert isinstance(await device.poll(), ConfigError)
    with pytest.raises(ConfigError, match="cannot be told"):
        await device.tell(UP)
    renewed = issue("gateway-7", by=authority)
    (identity / "key.pem").write_text(renewed.key_pem)
    (identity / "cert.pem").write_text(renewed.pem)
    assert await device.poll() == TARGETS
    await device.tell(UP)
    assert len(api.default.heard) == 1


@pytest.mark.fault("E9")
async def test_device_of_another_authority_is_refused(api, identity, start):
    """A certificate that the Edge API's authority did not sign opens nothing."""
    stranger = issue("gateway-7", by=issue("stranger", is_authority=True))
    (identity / "cert.pem").write_text(stranger.pem)
    (identity / "key.pem").write_text(stranger.key_pem)

    assert isinstance(await (await start()).poll(), ConfigError)
    assert api.requests == []


@pytest.mark.fault("E9")
def test_edge_api_with_an_expired_certificate_is_told_nothing(start_stub, identity, authority, tmp_path, reply):
    """Neither a poll nor a heartbeat reaches it."""
    old = issue("edge", by=authority, age=dt.timedelta(days=9), life=dt.timedelta(days=1))
    stub = start_stub(old.server_context(tmp_path))
    stub.default = EdgeApi(reply)

    with pytest.raises(ConfigError, match="expired"):
        EdgeApiSource(settings_of(stub.endpoint, identity, tmp_path)).read()
    assert stub.requests == []
