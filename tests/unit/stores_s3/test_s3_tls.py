"""Whom we trust over TLS: the system's authorities and those of tls.crt, nobody else."""

import asyncio
import datetime as dt
import hashlib
import re
import ssl
import warnings

import pytest

from replicator.errors import TransferError, Unavailable
from replicator.stores import s3_session

ONE_MONTH = dt.timedelta(days=30)
MD5 = hashlib.md5(b"body", usedforsecurity=False).digest()


async def put(store):
    return await store.put("k", b"body", md5=MD5, metadata={})


async def failure(call) -> TransferError:
    with pytest.raises(TransferError) as caught:
        await call
    return caught.value


async def test_upload_over_tls_is_one_plain_body_too(
    start_stub, open_store, reply, authority, new_certificate, tmp_path
):
    """TLS changes nothing about the body, where libraries like to switch to signed chunks with trailers."""
    stub = await start_stub(new_certificate("server", by=authority).server_context(tmp_path))
    stub.default = reply(headers={"ETag": '"e"'})

    await put(open_store(stub.storage(ca_pem=authority.pem)))

    assert stub.requests[0].body == b"body"
    assert not {"expect", "transfer-encoding", "x-amz-trailer"} & set(stub.requests[0].headers)


async def test_authority_of_the_storage_is_trusted(start_stub, open_store, reply, authority, new_certificate, tmp_path):
    """A private authority in tls.crt is enough, whatever bundles the environment names."""
    stub = await start_stub(new_certificate("server", by=authority).server_context(tmp_path))
    stub.default = reply(headers={"ETag": '"e"'})

    assert await put(open_store(stub.storage(ca_pem=authority.pem))) == "e"


@pytest.mark.parametrize("anchor", ["intermediate", "server"])
async def test_any_certificate_of_the_chain_is_an_anchor(
    start_stub, open_store, reply, authority, new_certificate, tmp_path, anchor
):
    """tls.crt may hold the intermediate or the endpoint's own certificate, as claims hand them out."""
    intermediate = new_certificate("intermediate", by=authority, is_authority=True)
    server = new_certificate("server", by=intermediate)
    stub = await start_stub(server.server_context(tmp_path, intermediate))
    stub.default = reply(headers={"ETag": '"e"'})
    pem = {"intermediate": intermediate, "server": server}[anchor].pem

    assert await put(open_store(stub.storage(ca_pem=pem))) == "e"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unknown", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("wrong-name", "IP address mismatch"),
        ("expired", "certificate has expired"),
    ],
)
async def test_bad_certificate_is_refused(
    start_stub, open_store, authority, new_certificate, monkeypatch, tmp_path, case, words
):
    """A certificate that proves nothing ends the connection before any request, and the message names the fix."""
    other = new_certificate("other", is_authority=True)
    server = {
        "unknown": lambda: new_certificate("server", by=authority),
        "self-signed": lambda: new_certificate("server"),
        "wrong-name": lambda: new_certificate("server", by=authority, address="127.0.0.2"),
        "expired": lambda: new_certificate("server", by=authority, age=ONE_MONTH, life=ONE_MONTH / 2),
    }[case]()
    stub = await start_stub(server.server_context(tmp_path))
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(authority.pem + server.pem)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(bundle))
    trusted = authority if case in {"wrong-name", "expired"} else other

    error = await failure(put(open_store(stub.storage(ca_pem=trusted.pem))))

    assert isinstance(error, Unavailable)
    assert re.search(f"{words}.*\\(certificate\\); .*tls.crt", str(error))
    assert stub.requests == []


async def test_unreadable_authority_is_told(start_stub, open_store, authority, new_certificate, tmp_path):
    """Text in tls.crt that is no PEM fails this store's requests with its name, not the process."""
    stub = await start_stub(new_certificate("server", by=authority).server_context(tmp_path))

    for pem in ("not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        error = await failure(put(open_store(stub.storage(ca_pem=pem))))
        assert isinstance(error, Unavailable)
        assert "tls.crt" in str(error)


async def test_plain_server_behind_https_is_told(stub_s3, open_store):
    """Speaking TLS to a plain port is Unavailable with the settings to look at."""

    async def answer(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(put(open_store(stub_s3.storage(endpoint=f"https://127.0.0.1:{port}"))))

    assert isinstance(error, Unavailable)
    assert "s3_scheme" in str(error)


async def test_old_tls_is_refused(start_stub, open_store, authority, new_certificate, tmp_path):
    """TLS 1.1 is not spoken."""
    context = new_certificate("server", by=authority).server_context(tmp_path)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    stub = await start_stub(context)

    assert isinstance(await failure(put(open_store(stub.storage(ca_pem=authority.pem)))), Unavailable)
    assert stub.requests == []


def test_system_authorities_stay_trusted(authority):
    """tls.crt adds to the system's authorities, it does not replace them; names are checked, TLS 1.2 is the least."""
    alone, added = s3_session.trust(""), s3_session.trust(authority.pem)

    assert len(added.get_ca_certs()) == len(alone.get_ca_certs()) + 1
    assert added.check_hostname
    assert added.verify_mode is ssl.CERT_REQUIRED
    assert added.minimum_version is ssl.TLSVersion.TLSv1_2
