"""Answers that the stub gives, and certificates of every kind."""

import pytest

from tests.certificates import Certificate, issue


@pytest.fixture
def without_pauses(monkeypatch):
    """s3fs rests 0.1 s after a failure, even where it does not try again; tests of what failures mean skip that."""
    monkeypatch.setattr("s3fs.core.S3_RETRYABLE_ERRORS", ())


@pytest.fixture(scope="session")
def authority() -> Certificate:
    return issue("authority", is_authority=True)


@pytest.fixture(scope="session")
def new_certificate():
    """The `issue` function above."""
    return issue


@pytest.fixture
def s3_error(reply):
    """An error answer as S3 sends it: `s3_error(404, "NoSuchKey")`; RGW leaves the message out."""

    def make(status, code, *, message="a message", headers=None, more=""):
        text = f"<Message>{message}</Message>" if message is not None else ""
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code>{text}{more}<RequestId>1</RequestId></Error>'
        return reply(status, {"Content-Type": "application/xml"} | (headers or {}), body.encode())

    return make


@pytest.fixture
def s3_page(reply):
    """A page of a listing: `s3_page(["a", "b"], token="next")`; keys are sent as they stand."""

    def make(keys, *, token="", is_truncated=None, encoding="url"):
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size></Contents>"
            for key in keys
        )
        cut = bool(token) if is_truncated is None else is_truncated
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<EncodingType>{encoding}</EncodingType><IsTruncated>{str(cut).lower()}</IsTruncated>{more}{entries}"
            "</ListBucketResult>"
        )
        return reply(200, {"Content-Type": "application/xml"}, body.encode())

    return make
