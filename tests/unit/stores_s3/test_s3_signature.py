"""Our signature is the one that botocore makes, byte for byte."""

import datetime as dt
import hashlib

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import SecretStr

from replicator.model import Storage
from replicator.stores.s3.signature import encoded, signed

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize("token", ["", "TOKEN//+="])
@pytest.mark.parametrize("endpoint", ["https://s3.example.com", "http://127.0.0.1:9000", "http://[::1]:9000"])
@pytest.mark.parametrize("prefix", ["", "a/b/", "a b+c/%20/é~*'()&=?#/"])
@pytest.mark.parametrize(
    ("method", "body", "more"),
    [("GET", b"", {}), ("PUT", b"body", {}), ("PUT", b"body", {"x-amz-meta-a": "1", "if-match": '"e"', "range": "b"})],
)
def test_signature_is_that_of_botocore(monkeypatch, endpoint, token, prefix, method, body, more):
    """Host, query, token, body and whatever else is sent are signed as S3 reads them."""
    storage = Storage(endpoint, "b.ucket", "eu-west-1", SecretStr("AKID"), SecretStr("SECRET/+"), SecretStr(token))
    query = encoded({"list-type": "2", "prefix": prefix, "continuation-token": "1/+=", "max-keys": "1000"})
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: NOW.replace(tzinfo=None))
    theirs = AWSRequest(method, f"{endpoint}/b.ucket?{query}", data=body, headers=more)
    S3SigV4Auth(Credentials("AKID", "SECRET/+", token or None), "s3", "eu-west-1").add_auth(theirs)

    body_sha256 = hashlib.sha256(body).hexdigest()
    ours = signed(storage, method, path="/b.ucket", query=query, now=NOW, body_sha256=body_sha256, more=more)

    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert ours.get("x-amz-security-token", "") == token
