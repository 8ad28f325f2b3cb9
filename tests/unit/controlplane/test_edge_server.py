"""The Edge API server over real TLS: who gets what, and what bad requests do."""

import asyncio
import datetime as dt
import http.client
import json
import logging
import socket

import pytest

from replicator.config.settings import load
from replicator.config.sources.edge_api import EdgeApiSource
from replicator.controlplane.edge_api import app as edge_app
from replicator.controlplane.edge_api.main import served
from replicator.controlplane.settings import EdgeApiSettings
from replicator.observe import logs
from tests.edge import BASE, SECRET, asked_until, b64, config_map, device, secret, workload
from tests.waiting import eventually

pytestmark = pytest.mark.slow


async def ask(one, **words):
    return await asyncio.to_thread(one.ask, **words)


# What a device gets


async def test_device_gets_its_configuration(edge):
    """The message of Flotta, with the bucket's words, and with the object's version of now."""
    said = await ask(edge.device())

    assert (said.status, said.headers["content-type"]) == (200, "application/json")
    assert said.content["device_id"] == "gateway-7"
    assert said.content["configuration"]["storage"]["s3"]["aws_secret_access_key"] == b64(SECRET)
    assert [one["name"] for one in said.content["workloads"]] == ["os-stats"]
    envelope = json.loads(said.body)
    assert (envelope["type"], envelope["directive"], envelope["version"]) == ("data", "device", 1)
    assert dt.datetime.fromisoformat(envelope["sent"]).tzinfo


def settings_of(edge, pki, one, tmp_path):
    cert = next(pki.directory.glob(f"{one.name}-*.crt"))
    return load(
        {
            "source": "edge-api",
            "device": one.name,
            "edge_api_url": f"https://127.0.0.1:{edge.serving.port}{BASE}",
            "edge_api_cert": str(cert),
            "edge_api_key": str(cert.with_suffix(".key")),
            "edge_api_ca": str(pki.directory / "ca.crt"),
            "volumes_dir": str(tmp_path / "volumes"),
            "state_dir": str(tmp_path / "state"),
        },
        {},
    ).settings


async def test_our_own_client_works_against_it(edge, pki, tmp_path, cluster):
    """The source edge-api takes the message, asks for news only, and ends its targets when it is told to go."""
    source = EdgeApiSource(settings_of(edge, pki, edge.device(), tmp_path), poll_s=0.01)
    snapshots = []

    async def follow():
        async for snapshot in source.changes():
            snapshots.append(snapshot)  # noqa: PERF401 - looked at meanwhile

    task = asyncio.create_task(follow())
    try:
        await eventually(lambda: len(snapshots) == 1)
        assert [target.id for target in snapshots[0]] == ["os-stats/egress/statistics"]
        await eventually(lambda: edge.metric('replicator_edge_requests_total{code="304",route="data_in"}') > 3)
        cluster.delete("edgedevices", "fleet", "gateway-7")
        await eventually(lambda: len(snapshots) == 2)
        assert snapshots[1] == ()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_news_only_are_sent_to_whom_asks_for_them(edge):
    """The same content is a 304 without a body, in each form of If-None-Match; ids and times are no news."""
    one = edge.device()
    first, second = await ask(one), await ask(one)
    etag = first.headers["etag"]

    assert json.loads(first.body)["message_id"] != json.loads(second.body)["message_id"]
    assert second.headers["etag"] == etag
    for mark in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        said = await ask(one, If_None_Match=mark)
        assert (said.status, said.body, said.headers["etag"]) == (304, b"", etag)
    assert (await ask(one, If_None_Match='"other"')).status == 200


async def test_heartbeat_of_a_device_renders_nothing(edge, cluster):
    """A status that moves changes the version that is told, and neither the content nor its mark."""
    one = edge.device()
    before = await ask(one)
    cluster.edit("edgedevices", "fleet", "gateway-7", {"status": {"phase": "up"}}, subresource="status")

    after = await asked_until(one, lambda said: said.content["version"] != before.content["version"])

    assert after.headers["etag"] == before.headers["etag"]
    assert edge.metric("replicator_edge_renderings_total") == 1


async def test_thousand_polls_are_one_rendering(edge):
    """What has not moved is rendered once."""
    one = edge.device()
    for _ in range(50):
        assert (await ask(one)).status == 200

    assert edge.metric("replicator_edge_renderings_total") == 1


# Control


async def test_registered_device_hears_nothing(edge):
    """200 without a body: there is no command."""
    said = await ask(edge.device(), channel="control")

    assert (said.status, said.body) == (200, b"")


async def test_device_that_is_gone_or_leaves_is_told_to_go(edge, cluster):
    """While it is being deleted and after, each time; meanwhile it is told its bucket, and no workload."""
    one = edge.device()
    cluster.edit(
        "edgedevices", "fleet", "gateway-7", {"metadata": {"finalizers": ["replicator.project-flotta.io/storage"]}}
    )
    cluster.delete("edgedevices", "fleet", "gateway-7")

    said = await asked_until(one, lambda said: said.body != b"", channel="control")
    assert said.content == {"command": "disconnect", "arguments": None}
    leaving = (await ask(one)).content
    assert "storage" in leaving["configuration"]
    assert "workloads" not in leaving
    cluster.edit("edgedevices", "fleet", "gateway-7", {"metadata": {"finalizers": []}})
    await asked_until(one, lambda said: said.status == 404)
    assert (await ask(one, channel="control")).content["command"] == "disconnect"


@pytest.mark.fault("E3")
async def test_nobody_is_told_to_go_by_a_watch_alone(edge, cluster):
    """A device that no watch shows is asked for by name; without an answer nobody is told anything."""
    one = edge.device("gateway-9")
    cluster.answer(500, plural="edgedevices", verb="get", times=1)

    assert (await ask(one, channel="control")).status == 503
    cluster.put(device("gateway-9"))
    edge.serving.world.devices.objects.pop(("fleet", "gateway-9"), None)
    assert (await ask(one, channel="control")).body == b""


@pytest.mark.fault("E4")
async def test_device_made_again_starts_anew(edge, cluster):
    """Another uid under the old name is another device: it is told to stay, and what it has now."""
    one = edge.device()
    assert (await ask(one)).status == 200
    cluster.delete("edgedevices", "fleet", "gateway-7")
    await asked_until(one, lambda said: said.body != b"", channel="control")
    cluster.put(device(s3={}))

    await asked_until(one, lambda said: said.body == b"", channel="control")
    said = await asked_until(one, lambda said: said.status == 200)
    assert "storage" not in said.content["configuration"]


async def test_large_message_arrives_whole(edge, cluster):
    """Many times what TLS and the socket take at once."""
    long = [{"name": f"V{number}", "value": "x" * 4000} for number in range(200)]
    cluster.put(workload(container={"env": long}))

    said = await asked_until(edge.device(), lambda said: len(said.body) > 800_000)

    assert said.content["workloads"][0]["specification"].count("x" * 4000) == 200


# Bad requests

BAD = {
    "no JSON": b"<html>",
    "a list": b"[]",
    "cut": b'{"type":"data","directive":"heartb',
    "deep": b"[" * 200_000,
    "no directive": b"{}",
    "unknown directive": b'{"directive":"x"}',
    "directive of another type": b'{"directive":[]}',
    "no content": b'{"directive":"heartbeat"}',
    "workloads": b'{"directive":"heartbeat","content":{"workloads":7}}',
    "a workload": b'{"directive":"heartbeat","content":{"workloads":[7]}}',
    "a time": b'{"directive":"heartbeat","content":{"workloads":[{"name":"w","last_data_upload":"x"}]}}',
    "a report": b'{"directive":"heartbeat","content":{"replication":{"standings":"x"}}}',
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.fault("E8")
@pytest.mark.parametrize("case", BAD)
async def test_bad_body_is_a_400_and_changes_nothing(edge, cluster, case):
    """Whatever is sent, it is refused, quotes nothing, and the connection goes on."""
    one = edge.device()
    before = cluster.get("edgedevices", "fleet", "gateway-7")
    said = await ask(one, way="out", raw=BAD[case])

    assert said.status == 400
    assert len(said.body) < 200
    assert cluster.get("edgedevices", "fleet", "gateway-7") == before
    assert (await ask(one)).status == 200


@pytest.mark.fault("E8")
async def test_body_beyond_the_limit_is_refused(edge):
    """1 MiB is far above a heartbeat."""
    said = await ask(edge.device(), way="out", raw=b" " * (edge_app.MAX_BODY_BYTES + 1))

    assert said.status == 413


@pytest.mark.fault("E8")
async def test_body_that_drips_is_cut(edge, monkeypatch):
    """A request has its time, however slowly it still talks."""
    monkeypatch.setattr(edge_app, "_WHOLE_S", 0.2)
    one = edge.device()

    def drip() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain,
            one.context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(f"POST {BASE}/data/gateway-7/out HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
            return tls.recv(4096)

    assert b" 408 " in (await asyncio.to_thread(drip)).splitlines()[0]


@pytest.mark.fault("E8")
async def test_headers_that_never_end_are_cut(start):
    """A connection on which no request comes about is closed."""
    edge = await start(edge_keepalive_s=0.3)
    one = edge.device()

    def silence() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain,
            one.context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(f"GET {BASE}/data/gateway-7/in HTTP/1.1\r\nHost: x\r\nX-".encode())
            return tls.recv(4096)

    assert await asyncio.to_thread(silence) == b""


async def test_unknown_route_and_method_are_no_fault(edge):
    """404 and 405, and the connection goes on."""
    one = edge.device()

    assert (await ask(one, channel="nowhere")).status == 404
    assert (await ask(one, channel="data", way="elsewhere")).status == 404
    assert (await ask(one)).status == 200


async def test_registration_is_told_where_it_belongs(edge):
    """Whoever enrols or registers learns that another server does it."""
    said = await ask(edge.device("register", unit=""), name="gateway-7", way="out", body={"directive": "enrolment"})
    again = await ask(edge.device(), way="out", body={"directive": "registration"})

    assert (said.status, again.status) == (400, 400)
    assert b"Flotta's own Edge API" in said.body
    assert again.body == said.body
    assert (await ask(edge.device("register", unit=""), name="gateway-7")).status == 403


async def test_control_messages_are_taken_and_dropped(edge):
    """As Flotta does."""
    assert (await ask(edge.device(), channel="control", way="out", body={"any": "thing"})).status == 200


async def test_device_that_asks_too_often_waits(start, cluster):
    """Its own requests are refused with a time; others are not touched."""
    cluster.put(device("gateway-8"))
    edge = await start(edge_rate=0.01, edge_burst=3)
    one = edge.device()
    answers = [await ask(one) for _ in range(4)]

    assert [said.status for said in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 50
    assert (await ask(edge.device("gateway-8"))).status == 200


async def test_connection_beyond_the_limit_is_closed(start):
    """Those that are there stay."""
    edge = await start(edge_connections=1)
    one = edge.device()
    assert (await ask(one)).status == 200

    with pytest.raises((OSError, http.client.HTTPException)):
        await ask(edge.device())
    assert (await ask(one)).status == 200
    assert edge.metric("replicator_edge_connections_turned_away_total") == 1


# Before, after, and beside


async def test_nothing_is_told_before_the_cluster_is_known(start, cluster):
    """A server that knows nothing yet answers 503, is not ready, and tells nobody to go."""
    fault = cluster.answer(500, plural="edgeworkloads", verb="list", times=10**6)
    edge = await start(waits=False)
    one = edge.device()

    assert (await ask(one)).status == 503
    assert (await ask(one, channel="control")).status == 503
    assert (await pages(edge, "/readyz"))[0] == 503
    fault.times = 0
    await asked_until(one, lambda said: said.status == 200)
    assert (await pages(edge, "/readyz"))[0] == 200


@pytest.mark.fault("E2")
async def test_api_server_that_is_away_leaves_devices_what_they_have(edge, cluster):
    """What is known goes on being told."""
    one = edge.device()
    before = await ask(one)
    cluster.stop()

    for _ in range(3):
        await asyncio.sleep(0.06)  # beyond the time after which what is not watched is asked for again
        assert (await ask(one)).headers["etag"] == before.headers["etag"]


async def test_request_that_is_under_way_is_finished_at_the_end(cluster, pki):
    """Who stops the server waits for the answer, and then nobody is let in."""
    cluster.answer(0, plural="secrets", verb="get", delay_s=0.3)
    settings = {"edge_listen": "127.0.0.1:0", "http_listen": "", "ca_secret": "", **pki.settings()}
    async with served(EdgeApiSettings.model_validate(settings), cluster.access()) as serving:
        await eventually(lambda: serving.is_ready)
        one = pki.device()
        one.port = serving.port
        asking = asyncio.create_task(ask(one))
        await eventually(lambda: cluster.count("get", "secrets") == 1)

    assert (await asking).status == 200
    one.hang_up()
    with pytest.raises(ConnectionRefusedError):
        await ask(one)


async def test_outage_is_told_once(edge, cluster, caplog):
    """However many ask meanwhile; and once when it is over."""
    one = edge.device("gateway-9")
    cluster.answer(500, plural="edgedevices", verb="get", times=20)
    with caplog.at_level(logging.INFO, "replicator.edge-api"):
        for _ in range(20):
            assert (await ask(one)).status == 503
        assert (await ask(one)).status == 404

    assert caplog.messages.count("object cannot be read") == 1
    assert caplog.messages.count("objects can be read again") == 1


async def pages(edge, path):
    def get():
        connection = http.client.HTTPConnection("127.0.0.1", edge.serving.http_port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(get)


async def test_probes_and_metrics_have_a_port_of_their_own(edge):
    """Without TLS; the page names no device."""
    await ask(edge.device())
    status, text = await pages(edge, "/metrics")

    assert (await pages(edge, "/healthz"))[0] == 200
    assert (status, 'replicator_edge_requests_total{code="200",route="data_in"} 1.0' in text) == (200, True)
    assert "gateway" not in text
    assert (await pages(edge, "/data"))[0] == 404


async def test_no_secret_is_logged(start, cluster, capsys):
    """At the level debug, through good answers, bad ones and faults, no line has a word of a Secret."""
    logs.configure(level="debug", format="json")
    try:
        edge = await start()
        one = edge.device()
        await ask(one)
        cluster.put(secret(AWS_SECRET_ACCESS_KEY=f"{SECRET}#"))
        await asked_until(one, lambda said: "storage" not in said.content["configuration"])
        cluster.put(config_map(BUCKET_HOST="http://x"))
        cluster.put(workload(container={"envFrom": [{"secretRef": {"name": "gone"}}]}))
        await asked_until(one, lambda said: said.status == 500)
        cluster.answer(500, plural="secrets", times=10**6)
        await ask(one)
        await ask(one, way="out", body={"directive": "heartbeat", "content": {"replication": SECRET}})
    finally:
        logs.configure(level="info", format="auto")
    told = capsys.readouterr().err

    assert "device has no bucket" in told
    assert "device keeps what it was told" in told
    for word in (SECRET, b64(SECRET), b64("ydayagi1369"), "ydayagi1369"):
        assert word not in told
