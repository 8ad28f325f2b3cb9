"""An endpoint that sends us elsewhere: nobody else hears a header, a token or a body."""

import contextlib
import hashlib
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from replicator.errors import TransferError
from tests.certificates import issue

MD5 = hashlib.md5(b"body", usedforsecurity=False).digest()
STATUSES = (301, 302, 303, 307, 308)


def every_request(store) -> list[Callable[[], object]]:
    """All that a store is asked for. Listings and the proof of its care go by a connection of our own."""
    return [
        lambda: store.put("k", b"body", md5=MD5, metadata={}),
        lambda: store.put_parts("k", iter([b"x" * 5 * 2**20, b"body"]), part_size=5 * 2**20, metadata={}),
        lambda: store.get("k", etag="e"),
        lambda: store.head("k"),
        lambda: list(store.list("")),
        store.probe,
        lambda: store.create_upload("k", metadata={}),
        lambda: store.put_part("k", "id", 1, b"body", md5=MD5),
        lambda: store.complete_upload("k", "id", ["e"]),
        lambda: store.abort_upload("k", "id"),
        lambda: store.list_uploads(""),
        lambda: store.delete("k"),
        lambda: store.is_checking_uploads("k"),
    ]


def ask(store) -> int:
    """Make each request once; how many failed."""
    failed = 0
    for request in every_request(store):
        with contextlib.suppress(TransferError):
            if request():
                continue
        failed += 1
    return failed


@pytest.mark.fault("B19")
def test_redirect_to_another_host_is_not_followed(start_stub, open_any, reply):
    """No request that was redirected reaches the other server, with or without its headers."""
    first, second = start_stub(), start_stub()
    second.default = reply(headers={"ETag": '"e"'})
    store = open_any(first.storage(session_token=SecretStr("TOKEN")))

    for status in STATUSES:
        first.default = reply(status, {"Location": f"http://localhost:{second.port}/b/k"})
        assert ask(store) == len(every_request(store))

    assert len(first.requests) >= len(STATUSES) * 10
    assert second.connections == 0


@pytest.mark.fault("B19")
def test_redirect_from_tls_to_plain_text_is_not_followed(start_stub, open_any, reply, tmp_path):
    """Whoever can forge an answer cannot have the next request in the clear."""
    authority = issue("authority", is_authority=True)
    first = start_stub(issue("server", by=authority).server_context(tmp_path))
    second = start_stub()
    second.default = reply(headers={"ETag": '"e"'})
    store = open_any(first.storage(session_token=SecretStr("TOKEN"), ca_pem=authority.pem))

    for status in STATUSES:
        first.default = reply(status, {"Location": f"{second.endpoint}/b/k"})
        assert ask(store) == len(every_request(store))

    assert first.requests
    assert second.connections == 0
