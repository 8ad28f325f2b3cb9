"""Whom we trust over TLS: the system's authorities and those of tls.crt, nobody else."""

import contextlib
import datetime as dt
import functools
import hashlib
import re
import socket
import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.errors import TransferError, Unavailable
from replicator.stores.s3 import network as s3_network

pytestmark = pytest.mark.slow

ONE_MONTH = dt.timedelta(days=30)
MD5 = hashlib.md5(b"body", usedforsecurity=False).digest()


def put(store):
    return store.put("k", b"body", md5=MD5, metadata={})


def failure(call) -> TransferError:
    with pytest.raises(TransferError) as caught:
        call()
    return caught.value


def test_upload_over_tls_is_one_plain_body_too(start_stub, open_any, reply, authority, new_certificate, tmp_path):
    """TLS changes nothing about the body, where libraries like to switch to signed chunks with trailers."""
    stub = start_stub(new_certificate("server", by=authority).server_context(tmp_path))
    stub.default = reply(headers={"ETag": '"e"'})

    put(open_any(stub.storage(ca_pem=authority.pem)))

    assert stub.requests[0].body == b"body"
    assert not {"expect", "transfer-encoding", "x-amz-trailer"} & set(stub.requests[0].headers)


@pytest.mark.fault("B20")
def test_authority_of_the_storage_is_trusted(start_stub, open_any, reply, authority, new_certificate, tmp_path):
    """A private authority in tls.crt is enough, whatever bundles the environment names."""
    stub = start_stub(new_certificate("server", by=authority).server_context(tmp_path))
    stub.default = reply(headers={"ETag": '"e"'})

    assert put(open_any(stub.storage(ca_pem=authority.pem))) == "e"


@pytest.mark.parametrize("anchor", ["intermediate", "server"])
def test_any_certificate_of_the_chain_is_an_anchor(
    start_stub, open_any, reply, authority, new_certificate, tmp_path, anchor
):
    """tls.crt may hold the intermediate or the endpoint's own certificate, as claims hand them out."""
    intermediate = new_certificate("intermediate", by=authority, is_authority=True)
    server = new_certificate("server", by=intermediate)
    stub = start_stub(server.server_context(tmp_path, intermediate))
    stub.default = reply(headers={"ETag": '"e"'})
    pem = {"intermediate": intermediate, "server": server}[anchor].pem

    assert put(open_any(stub.storage(ca_pem=pem))) == "e"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unknown", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("wrong-name", "IP address mismatch"),
        ("expired", "certificate has expired"),
    ],
)
@pytest.mark.fault("B20")
def test_bad_certificate_is_refused(
    start_stub, open_any, authority, new_certificate, monkeypatch, tmp_path, case, words
):
    """A certificate that proves nothing ends the connection before any request, and the message names the fix."""
    other = new_certificate("other", is_authority=True)
    server = {
        "unknown": lambda: new_certificate("server", by=authority),
        "self-signed": lambda: new_certificate("server"),
        "wrong-name": lambda: new_certificate("server", by=authority, address="127.0.0.2"),
        "expired": lambda: new_certificate("server", by=authority, age=ONE_MONTH, life=ONE_MONTH / 2),
    }[case]()
    stub = start_stub(server.server_context(tmp_path))
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(authority.pem + server.pem)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(bundle))
    trusted = authority if case in {"wrong-name", "expired"} else other

    error = failure(lambda: put(open_any(stub.storage(ca_pem=trusted.pem))))

    assert isinstance(error, Unavailable)
    assert re.search(f"{words}.*\\(certificate\\); .*tls.crt", str(error))
    assert stub.requests == []


@pytest.mark.fault("B20")
def test_unreadable_authority_is_told(start_stub, open_any, authority, new_certificate, tmp_path):
    """Text in tls.crt that is no PEM fails this store's requests with its name, not the process."""
    stub = start_stub(new_certificate("server", by=authority).server_context(tmp_path))

    for pem in ("not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        error = failure(functools.partial(put, open_any(stub.storage(ca_pem=pem))))
        assert isinstance(error, Unavailable)
        assert "tls.crt" in str(error)


def test_plain_server_behind_https_is_told(stub_s3, open_any):
    """Speaking TLS to a plain port is Unavailable with the settings to look at."""

    def answer(server):
        with contextlib.suppress(OSError):  # until the server is shut down
            while True:
                with server.accept()[0] as connection:
                    connection.recv(1)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        threads.submit(answer, server)
        endpoint = f"https://127.0.0.1:{server.getsockname()[1]}"
        error = failure(lambda: put(open_any(stub_s3.storage(endpoint=endpoint))))
        server.shutdown(socket.SHUT_RDWR)

    assert isinstance(error, Unavailable)
    assert "s3_scheme" in str(error)


@pytest.mark.fault("B20")
def test_old_tls_is_refused(start_stub, open_any, authority, new_certificate, tmp_path):
    """TLS 1.1 is not spoken."""
    context = new_certificate("server", by=authority).server_context(tmp_path)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    stub = start_stub(context)

    assert isinstance(failure(lambda: put(open_any(stub.storage(ca_pem=authority.pem)))), Unavailable)
    assert stub.requests == []


@pytest.mark.fault("B20")
def test_system_authorities_stay_trusted(authority):
    """tls.crt adds to the system's authorities, it does not replace them; names are checked, TLS 1.2 is the least."""
    alone, added = s3_network.trust(""), s3_network.trust(authority.pem)

    assert len(added.get_ca_certs()) == len(alone.get_ca_certs()) + 1
    assert added.check_hostname
    assert added.verify_mode is ssl.CERT_REQUIRED
    assert added.minimum_version is ssl.TLSVersion.TLSv1_2
