"""The fast reading of a listing says what botocore's own says, or nothing."""

from typing import Any

import pytest

from replicator.stores.s3 import session as s3_session
from replicator.stores.s3.listing import read_listing

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
END = "<IsTruncated>false</IsTruncated>"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>{etag}</ETag><Size>7</Size>"
    "<StorageClass>STANDARD</StorageClass><Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner></Contents>"
)


def hook(body: bytes) -> tuple[dict[str, Any], bytes]:
    """What the hook adds to the parsed answer, and the body it leaves to botocore."""
    response, added = {"body": body}, dict[str, Any]()
    read_listing(response_dict=response, customized_response_dict=added, operation_model=None)
    return added, response["body"]


def test_both_readings_agree(stub_s3, open_store, reply, monkeypatch):
    """Namespaces, blanks, elements we do not need and escaped text make no difference between the two."""
    fast = open_store(stub_s3.storage())
    monkeypatch.setattr(s3_session, "_read_listings_fast", lambda session: None)
    monkeypatch.setattr(s3_session, "_session", s3_session._session.__wrapped__)
    slow = open_store(stub_s3.storage())

    for body in (
        f"<ListBucketResult {SPACE}>{END}</ListBucketResult>",
        f"<ListBucketResult {SPACE}>{END}{ENTRY}</ListBucketResult>",
        f"<ListBucketResult>{END}{ENTRY}{ENTRY.replace('{key}', '{key}2')}</ListBucketResult>",
        f"<ListBucketResult {SPACE}>\n {END}\n <EncodingType>url</EncodingType>\n {ENTRY}\n</ListBucketResult>\n",
        f"<s:ListBucketResult {SPACE.replace('=', ':s=')}><s:IsTruncated>false</s:IsTruncated></s:ListBucketResult>",
    ):
        text = body.replace("{key}", "a&amp;b%20c+d").replace("{etag}", "&quot;e&quot;").encode()
        stub_s3.default = reply(200, {"Content-Type": "application/xml"}, text)
        assert hook(text)[0]
        assert list(fast.list("")) == list(slow.list(""))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<Error><Code>InternalError</Code></Error>",
        "<html/>",
        "<ListBucketResult>",
        "<ListBucketResult/>",
        "<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
        f"<ListBucketResult>{END}<Contents><Key>a</Key></Contents></ListBucketResult>",
        f"<ListBucketResult>{END}{ENTRY.replace('<Size>7', '<Size>seven')}</ListBucketResult>",
    ],
)
def test_anything_else_is_left_alone(body):
    """What is not a plain listing goes on to botocore as it came."""
    assert hook(body.encode()) == ({}, body.encode())
