"""The Edge API as a source: what its messages mean, and what a bad answer may never do."""

import contextlib
import json
import socket
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.message import is_disconnect, parse_message
from replicator.config.sources import edge_api, edge_client
from replicator.config.sources.edge_api import EdgeApiSource
from replicator.config.sources.source import make_source
from replicator.errors import ConfigError
from tests.certificates import issue
from tests.edge_api import PATH, SECRET, EdgeApi, b64, message, settings_of

pytestmark = pytest.mark.slow


@pytest.fixture
def source(api, identity, tmp_path):
    return EdgeApiSource(settings_of(api.endpoint, identity, tmp_path), poll_s=0.01)


async def polled(source, polls: int) -> list:
    """The snapshots of so many polls."""
    found: list = []
    changes = source.changes()
    asked, ask = 0, source._poll

    def counted():
        nonlocal asked
        asked += 1
        return ask() if asked <= polls else ConfigError(where="the test", problem="is over", fix="")

    source._poll = counted
    async with contextlib.aclosing(changes):
        async for snapshot in changes:
            if isinstance(snapshot, ConfigError) and snapshot.where == "the test":
                source._poll = ask
                return found
            found.append(snapshot)
    raise AssertionError


def ids(snapshot) -> list[str]:
    return [target.id for target in snapshot]


# Messages


def test_message_of_flotta_becomes_targets(source):
    """Paths, bucket and keys as Flotta sends them: one layer of base64, null for a side that is not there."""
    (target,) = source.read()

    assert (target.id, target.subdir, str(target.prefix)) == ("os-stats/egress/statistics", "stats", "statistics/")
    assert target.root.endswith("/volumes/os-stats")
    storage = target.storage
    assert (storage.endpoint, storage.bucket, storage.region) == ("https://play.min.io", "device-bucket-6", "us-east-1")
    assert storage.access_key_id.get_secret_value() == "ydayagi1369"
    assert storage.secret_access_key.get_secret_value() == SECRET


def test_region_that_flotta_ignores_is_none(api, source):
    """A claim's region is told as the word ignore; a signature gets the default."""
    api.default.says(message(s3={"bucket_region": "ignore"}))

    assert source.read()[0].storage.region == "us-east-1"


def test_authority_of_the_bucket_is_taken(api, source, authority):
    """The CA bundle arrives in base64 and becomes the trust of the bucket."""
    api.default.says(message(s3={"aws_ca_bundle": b64(authority.pem)}))

    assert "BEGIN CERTIFICATE" in source.read()[0].storage.ca_pem


def test_device_without_workloads_or_paths_needs_no_bucket(api, source):
    """No workload, or none with data paths, is an empty configuration and no error."""
    for workloads in ([], [{"name": "w"}], [{"name": "w", "data": {"egress": None, "ingress": None}}]):
        api.default.says(message(workloads=workloads, configuration={}))

        assert source.read() == ()


BAD = {
    "no JSON": b"<html>sign in</html>",
    "cut": message()[:-40],
    "a list": b"[]",
    "no content": b"{}",
    "deep": b"[" * 100_000,
    "no base64": message(s3={"aws_secret_access_key": SECRET}),
    "port": message(s3={"bucket_port": "https"}),
    "host": message(s3={"bucket_host": "https://play.min.io"}),
    "no bucket": message(configuration={"storage": {}}),
    "metadata service": message(s3={"bucket_host": "169.254.169.254"}),
    "path": message(workloads=[{"name": "w", "data": {"egress": [{"source": "../x", "target": "y"}]}}]),
    "name": message(workloads=[{"name": "../w", "data": {"egress": [{"source": "x", "target": "y"}]}}]),
    "unknown key": message(workloads=[{"name": "w", "data": {"egrss": []}}]),
}


@pytest.mark.fault("E8")
@pytest.mark.parametrize("case", BAD)
def test_bad_message_is_one_error_that_tells_no_secret(api, source, case):
    """The field and the way out are named, the words are not."""
    api.default.says(BAD[case])

    with pytest.raises(ConfigError) as caught:
        source.read()
    assert SECRET not in str(caught.value)
    assert caught.value.where.startswith((api.endpoint, "workload"))


@pytest.mark.fault("E8")
@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_answer_breaks_the_reader(body):
    """Whatever arrives is a message, no disconnect, or a ConfigError."""
    content = body if isinstance(body, bytes) else body.encode()
    for read in (parse_message, is_disconnect):
        with contextlib.suppress(ConfigError):
            read(content, where="w")


# Polls


async def test_only_news_are_told(api, source):
    """The same message twice is one snapshot, and the second poll asks for news only."""
    assert [ids(one) for one in await polled(source, 3)] == [["os-stats/egress/statistics"]]

    data = [request for request in api.requests if "/data/" in request.target]
    assert [request.headers.get("if-none-match") for request in data] == [None, '"1"', '"1"']
    assert data[0].target == f"{PATH}/data/gateway-7/in"
    assert api.connections == 1


async def test_changed_message_is_told(api, source):
    """A new message is a new snapshot."""
    (first,) = await polled(source, 1)
    api.default.says(message("339", workloads=[]))

    assert (ids(first), await polled(source, 1)) == (["os-stats/egress/statistics"], [()])


@pytest.mark.fault("E8")
async def test_message_before_the_last_is_not_believed_at_once(api, source):
    """A replica that lags changes nothing; a cluster that was restored is believed when it says so again and again."""
    await polled(source, 1)
    api.default.says(message("12", workloads=[]))

    assert [len(await polled(source, 1)) for _ in range(2)] == [0, 0]
    assert await polled(source, 1) == [()]


@pytest.mark.fault("E8")
async def test_bad_message_changes_nothing_and_is_told_once(api, source):
    """The error is told, the kept copy stays the last good one, and the next good message is told again."""
    good = await polled(source, 1)
    api.default.says(b"<html>")

    (error,) = await polled(source, 3)
    assert isinstance(error, ConfigError)
    api.default.says(message("339"))
    assert await polled(source, 1) == good


@pytest.mark.fault("E2")
async def test_silence_is_told_after_three_polls(api, source, reply):
    """One lost poll is nothing; three are an error, and an answer is the configuration again."""
    good = await polled(source, 1)
    api.default.control = reply(503)
    api.default.says(b"", status=503)

    assert await polled(source, 2) == []
    (error,) = await polled(source, 1)
    assert "503" in str(error)
    api.default.says(message())
    assert await polled(source, 1) == good


@pytest.mark.parametrize(("status", "word"), [(401, "certificate"), (403, "certificate"), (404, "approval")])
async def test_refusal_says_what_to_do(api, source, status, word):
    """What a person has to mend is told at once."""
    api.default.says(b"", status=status)

    (error,) = await polled(source, 1)
    assert word in str(error)


@pytest.mark.fault("E8")
async def test_redirect_is_no_answer(api, source, start_stub):
    """The device's certificate and configuration come from the named host alone."""
    other = start_stub()
    api.default.says(b"", status=307, Location=other.endpoint)

    (error,) = await polled(source, 1)
    assert "307" in str(error)
    assert other.connections == 0


async def test_disconnected_device_replicates_nothing(api, source):
    """The disconnect command ends the targets; a device that is back starts anew."""
    await polled(source, 1)
    api.default.disconnects()

    assert await polled(source, 2) == [()]
    assert source.read() == ()
    api.default.knows_it_again()
    ((target,),) = await polled(source, 1)
    assert target.workload == "os-stats"


# Without the network


@pytest.mark.fault("E2")
async def test_last_good_message_outlives_a_restart(api, identity, tmp_path):
    """A device that starts without the network moves its data by what it was told last; nobody else may read that."""
    settings = settings_of(api.endpoint, identity, tmp_path)
    good = await polled(EdgeApiSource(settings, poll_s=0.01), 1)
    kept = tmp_path / "state/edge-api.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    api.default.says(b"", status=500)

    assert await polled(EdgeApiSource(settings, poll_s=0.01), 1) == good
    kept.write_text("{")
    (error,) = await polled(EdgeApiSource(settings, poll_s=0.01), 1)
    assert "500" in str(error)


@pytest.mark.fault("E2")
async def test_nobody_there_is_an_error_that_says_so(identity, tmp_path):
    """Without an answer and without a kept message there is nothing to do but say so."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{unused.getsockname()[1]}"

        (error,) = await polled(EdgeApiSource(settings_of(address, identity, tmp_path), poll_s=0.01), 1)
    assert "cannot be asked" in str(error)


# The connection


@pytest.mark.fault("E8")
@pytest.mark.parametrize("body", [b"<html>sign in</html>", message("339")[:-40], b""], ids=["HTML", "cut", "empty"])
@pytest.mark.parametrize("kind", ["text/html", "application/json", ""])
async def test_answer_that_is_no_message_keeps_what_is_in_force(api, source, identity, tmp_path, body, kind):
    """What the answer calls itself counts for nothing: what is in force stays, also over a restart."""
    good = await polled(source, 1)
    api.default.says(body, **{"Content-Type": kind})

    (error,) = await polled(source, 1)
    assert isinstance(error, ConfigError)
    assert await polled(EdgeApiSource(settings_of(api.endpoint, identity, tmp_path), poll_s=0.01), 1) == good


@pytest.mark.fault("E8")
async def test_unasked_304_is_no_answer(api, source, identity, tmp_path):
    """Only who asked for news by an ETag can be told that there are none; one for ever is told as a fault."""
    good = await polled(source, 1)
    api.default.says(b"", status=304)
    assert await polled(source, 5) == good, "to a request with an ETag it is an answer"

    (kept, error) = await polled(EdgeApiSource(settings_of(api.endpoint, identity, tmp_path), poll_s=0.01), 4)
    assert kept == good[0]
    assert "304" in str(error)


@pytest.mark.fault("E8")
def test_endless_answer_is_cut(api, source, monkeypatch):
    """An answer above the bound is an error and is not held in memory."""
    monkeypatch.setattr(edge_client, "MAX_ANSWER_BYTES", 1000)
    api.default.says(b"x" * 1001)

    with pytest.raises(ConfigError, match="more than"):
        source.read()


@pytest.mark.fault("E8")
def test_answer_that_drips_is_cut(source, api, monkeypatch, reply):
    """However slowly it talks, an answer has its deadline."""
    monkeypatch.setattr(edge_client, "_WHOLE_S", 0.2)
    api.default.data = reply(headers={"Content-Length": "100"}, body=b"{", delay_s=0.0)
    begun = time.monotonic()

    with pytest.raises(ConfigError, match="cannot be asked"):
        source.read()
    assert time.monotonic() - begun < edge_client._SILENCE_S / 2


async def test_connection_that_was_closed_meanwhile_is_opened_again(api, source, reply):
    """An idle connection that the server has closed costs no poll."""
    good = await polled(source, 1)
    source._client.ask("control")
    api.default.data = reply(headers={"Connection": "close"}, body=message(), cut_at=len(message()))
    await polled(source, 1)
    api.default.says(message("339"))

    assert await polled(source, 2) == good
    assert source._doubt.failures == 0


@pytest.mark.fault("E9")
def test_stranger_is_refused(start_stub, identity, tmp_path, reply):
    """An Edge API whose certificate is another authority's is told nothing."""
    stranger = issue("stranger", is_authority=True)
    stub = start_stub(issue("edge", by=stranger).server_context(tmp_path))
    stub.default = EdgeApi(reply)

    with pytest.raises(ConfigError, match="certificate"):
        EdgeApiSource(settings_of(stub.endpoint, identity, tmp_path)).read()
    assert stub.requests == []


@pytest.mark.fault("E9")
async def test_renewed_certificate_is_used_without_a_restart(api, source, identity, authority):
    """The files are looked at before each poll; a half-written one costs a poll and is said."""
    await polled(source, 1)
    renewed = issue("gateway-7", by=authority)
    (identity / "key.pem").write_text("half")
    (error,) = await polled(source, 1)
    assert "belong together" in str(error)

    (identity / "cert.pem").write_text(renewed.pem)
    (identity / "key.pem").write_text(renewed.key_pem)
    ((target,),) = await polled(source, 1)
    assert target.workload == "os-stats"
    assert api.connections == 2


# Settings


@pytest.mark.parametrize(
    "changes",
    [
        {"edge_api_url": ""},
        {"edge_api_url": "http://edge"},
        {"edge_api_url": "https://user@edge"},
        {"device": ""},
        {"egress": "a=b"},
    ],
)
def test_settings_that_do_not_fit_are_refused(api, identity, tmp_path, changes):
    """TLS, the address and the device's name are needed; mappings come from the Edge API alone."""
    with pytest.raises(ConfigError):
        settings_of(api.endpoint, identity, tmp_path, **changes)


def test_setting_chooses_the_source(api, identity, tmp_path):
    """`source` edge-api is what it says."""
    assert isinstance(make_source(settings_of(api.endpoint, identity, tmp_path), {}), edge_api.EdgeApiSource)
