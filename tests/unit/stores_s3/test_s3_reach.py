"""What an endpoint tells without credentials."""

import contextlib
import dataclasses
import datetime as dt
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from replicator.errors import Unavailable
from replicator.stores.s3 import reach
from replicator.stores.s3.network import Limits

LIMITS = Limits(connections=1, connect_timeout_s=2, read_timeout_s=2, min_rate_bytes_s=0, part_size_bytes=5 * 2**20)


def test_name_leads_to_its_addresses(stub_s3):
    """Each address once."""
    assert reach.addresses(stub_s3.storage()) == ["127.0.0.1"]


def test_name_that_nobody_knows_is_told(stub_s3):
    """The DNS is named as the place to look at."""
    storage = stub_s3.storage(endpoint="https://name.invalid:1")

    with pytest.raises(Unavailable, match=r"\(dns\)"):
        reach.addresses(storage)


def test_connection_without_tls_has_no_certificate(stub_s3):
    """And takes some time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        storage = stub_s3.storage(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")
        contact = reach.connect(storage, LIMITS)

    assert contact.certificate_left_s is None
    assert contact.seconds > 0


def test_certificate_tells_when_it_ends(stub_s3, authority, new_certificate, tmp_path):
    """The time that is left is that of the endpoint's own certificate."""
    server = new_certificate("server", by=authority, life=dt.timedelta(days=3), age=dt.timedelta(days=1))
    context = server.server_context(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        storage = stub_s3.storage(endpoint=f"https://127.0.0.1:{listener.getsockname()[1]}", ca_pem=authority.pem)
        serving = threads.submit(shake_hands, listener, context)
        contact = reach.connect(storage, LIMITS)
        serving.result(10)

    assert contact.certificate_left_s == pytest.approx(2 * 86400, abs=60)


def shake_hands(listener, context):
    """Take one connection and hold it until the other side has closed it."""
    listener.settimeout(10)
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(1)


@pytest.mark.fault("B20")
def test_certificate_that_is_not_trusted_is_told(start_stub, authority, new_certificate, tmp_path):
    """The same trust as that of requests."""
    stub = start_stub(new_certificate("server", by=authority).server_context(tmp_path))

    with pytest.raises(Unavailable, match=r"\(certificate\); .*tls\.crt"):
        reach.connect(stub.storage(), LIMITS)


def test_port_that_takes_no_connection_is_told(stub_s3):
    """With the endpoint's address."""
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        reach.connect(stub_s3.storage(endpoint="http://127.0.0.1:9"), LIMITS)


@pytest.mark.parametrize("ahead_s", [0, 3600, -100])
def test_clock_is_compared_with_the_date_of_any_answer(stub_s3, reply, ahead_s):
    """Ahead is positive; an answer's status does not matter, and no request is signed."""
    stub_s3.default = lambda _: reply(403, headers={"Date": formatdate(time.time() - ahead_s, usegmt=True)})

    assert reach.clock_ahead_s(stub_s3.storage(), LIMITS) == pytest.approx(ahead_s, abs=2)
    assert "authorization" not in stub_s3.requests[0].headers


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_endpoint_without_a_time_is_no_error(stub_s3, reply, headers):
    """What cannot be read is not known."""
    stub_s3.default = reply(headers=headers)

    assert reach.clock_ahead_s(stub_s3.storage(), LIMITS) is None


def test_endpoint_that_hangs_ends_in_time(stub_s3, reply):
    """The read timeout bounds the wait for the date."""
    stub_s3.default = reply(delay_s=5)

    with pytest.raises(Unavailable, match="timeout"):
        reach.clock_ahead_s(stub_s3.storage(), dataclasses.replace(LIMITS, connect_timeout_s=20, read_timeout_s=0.1))
