"""Who is answered by the Edge API server: certificates that count, and those that do not."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable

import pytest

from replicator.controlplane.edge_api.tls import Peer
from tests.certificates import ONE_DAY, issue
from tests.edge import Pki, device
from tests.waiting import eventually


async def ask(one, **words):
    return await asyncio.to_thread(one.ask, **words)


# Who gets it


async def test_device_gets_nothing_of_another(edge, cluster):
    """On every route, the certificate's name is the only one that is answered."""
    cluster.put(device("gateway-8"))
    one = edge.device()

    for channel, way in (("data", "in"), ("control", "in"), ("data", "out"), ("control", "out")):
        said = await ask(one, channel=channel, way=way, name="gateway-8", body={} if way == "out" else None)
        assert said.status == 403
        assert b"gateway-8" not in said.body


async def test_name_is_compared_without_regard_to_case(edge):
    """Certificates and agents spell a name as they like; objects are lower case."""
    assert (await ask(edge.device("Gateway-7"), name="GATEWAY-7")).status == 200


async def test_namespace_is_the_certificates(edge, cluster):
    """A device of the same name in another namespace has another configuration; without a unit it is `default`."""
    cluster.put(device(namespace="other", s3={}))

    other = await ask(edge.device(unit="other"))

    assert (other.status, "storage" in other.content["configuration"]) == (200, False)
    assert (await ask(edge.device(unit=""))).status == 404


REFUSED: dict[str, Callable[[Pki], dict]] = {
    "unknown authority": lambda pki: {"by": issue("stranger", is_authority=True)},
    "expired": lambda pki: {"age": 3 * ONE_DAY, "life": ONE_DAY},
    "not valid yet": lambda pki: {"age": -ONE_DAY},
}


@pytest.mark.fault("E9")
@pytest.mark.parametrize("case", REFUSED)
async def test_certificate_that_does_not_count_is_refused(edge, pki, case):
    """By the handshake, before a request is read."""
    with pytest.raises(OSError):  # noqa: PT011 - an alert, or the end of the connection, as TLS 1.3 has it
        await ask(edge.device(**REFUSED[case](pki)))

    assert edge.metric("replicator_edge_connections_established_total") == 0
    assert edge.metric("replicator_edge_connections_accepted_total") == 1


async def test_nobody_without_a_certificate(edge, pki):
    """A connection without one ends."""
    one = edge.device()
    one.context = pki.trust()

    with pytest.raises(OSError):  # noqa: PT011
        await ask(one)


async def test_old_tls_is_refused_unless_it_is_allowed(start):
    """1.3 is asked for; 1.2 has to be allowed."""
    for oldest in ("1.3", "1.2"):
        edge = await start(edge_min_tls=oldest)
        one = edge.device()
        one.context.maximum_version = ssl.TLSVersion.TLSv1_2
        if oldest == "1.3":
            with pytest.raises(OSError):  # noqa: PT011
                await ask(one)
        else:
            assert (await ask(one)).status == 200


@pytest.mark.fault("E9")
async def test_certificate_that_expires_on_an_open_connection_ends(edge, monkeypatch):
    """The date is looked at with each request, on every route."""
    one = edge.device()
    assert (await ask(one)).status == 200
    later_s = time.time() + 11 * 86400
    monkeypatch.setattr(time, "time", lambda: later_s)

    for channel, way in (("data", "in"), ("control", "in"), ("data", "out"), ("control", "out")):
        said = await ask(one, channel=channel, way=way, body={} if way == "out" else None)
        assert said.status == 401


@pytest.mark.fault("E9")
async def test_renewed_files_are_used_without_a_restart(edge, pki):
    """New server certificate and new authority count for the next connection; those that are open stay."""
    old = edge.device()
    assert (await ask(old)).status == 200
    authority = issue("new authority", is_authority=True)
    new = edge.device(by=authority)
    new.context.load_verify_locations(cadata=authority.pem)
    pki.serve(issue("edge", by=authority), authority)

    async def is_in() -> bool:
        try:
            return (await ask(new)).status == 200
        except OSError:
            new.hang_up()
            return False

    deadline = asyncio.get_running_loop().time() + 10
    while not await is_in():
        assert asyncio.get_running_loop().time() < deadline
    assert (await ask(old)).status == 200
    old.hang_up()
    old.context.load_verify_locations(cadata=authority.pem)
    with pytest.raises(OSError):  # noqa: PT011 - nor by a session of before
        await ask(old)


@pytest.mark.fault("E9")
async def test_bad_files_leave_the_old_ones_in_use(edge, pki, caplog):
    """A certificate that is half written is told, and the next good one is taken."""
    (pki.directory / "tls.crt").write_text("half")
    with caplog.at_level(logging.ERROR):
        await eventually(lambda: "certificate not renewed" in caplog.text)

    assert (await ask(edge.device())).status == 200


def test_certificate_without_a_name_is_nobodys():
    """The first unit is the namespace, and a name there must be."""
    unit, name = (("organizationalUnitName", "fleet"),), (("commonName", "Gateway-7"),)
    other = (("organizationalUnitName", "other"),)
    date = {"notAfter": "Nov 23 12:00:00 2026 GMT"}

    assert Peer.of({"subject": (unit,), **date}) is None
    assert Peer.of({"subject": (unit, name, (("commonName", "gateway-8"),)), **date}) is None
    assert Peer.of({"subject": (unit, other, name), **date}) == Peer("fleet", "gateway-7", 1795435200.0)


async def test_namespace_that_is_not_served_is_refused(start, cluster):
    """A server of one namespace tells devices of others nothing, least of all to go."""
    edge = await start(namespace="fleet")

    assert (await ask(edge.device())).status == 200
    for channel in ("data", "control"):
        assert (await ask(edge.device(unit="other"), channel=channel)).status == 403
