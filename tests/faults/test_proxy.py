"""The fault proxy itself: what is armed happens, and what is not armed passes."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError, ResponseStreamingError

from tests.faults import wire


@pytest.fixture
def client(s3_server, proxy):
    """A client of the proxy that is not ours and tries once."""
    config = Config(
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",
        retries={"max_attempts": 0},
        read_timeout=1,
    )
    one = boto3.client(
        "s3",
        endpoint_url=proxy.endpoint,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.region,
        config=config,
    )
    yield one
    one.close()


def test_nothing_armed_changes_nothing(client, bucket, proxy):
    """Bodies, ETags and errors pass as they are, and each call is known by its operation."""
    told = client.put_object(Bucket=bucket, Key="a b+c/ü", Body=b"content")["ETag"]

    found = client.get_object(Bucket=bucket, Key="a b+c/ü")
    assert (found["Body"].read(), found["ETag"]) == (b"content", told)
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b+c/ü"]
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket=bucket, Key="absent")
    assert [call.operation for call in proxy.calls] == ["put", "get", "list", "head"]
    assert proxy.calls[0].key == "a b+c/ü"


def test_lost_answer_is_an_object_nobody_was_told_of(client, bucket, proxy):
    """The server has done it, the client sees a closed connection, and the next call passes."""
    rule = proxy.on("put", wire.lost(), key="l*")

    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="lost", Body=b"content")
    assert client.get_object(Bucket=bucket, Key="lost")["Body"].read() == b"content"
    assert rule.hits == 1


def test_reset_upload_never_reaches_the_server(client, bucket, proxy):
    """A connection that ends within the body leaves no object."""
    proxy.reset_upload(at=100_000)

    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="cut", Body=bytes(1_000_000))
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert proxy.seen("put")[0].length == 100_000


def test_nth_call_is_struck_and_no_other(client, bucket, proxy):
    """A rule for the second and third call leaves the first and the fourth alone."""
    proxy.on("get", wire.error(503, "SlowDown"), nth=2, times=2)
    client.put_object(Bucket=bucket, Key="k", Body=b"content")

    def outcome():
        try:
            return client.get_object(Bucket=bucket, Key="k")["Body"].read()
        except ClientError as error:
            return error.response["Error"]["Code"]

    assert [outcome() for _ in range(4)] == [b"content", "SlowDown", "SlowDown", b"content"]


def test_answers_are_cut_flipped_and_stalled(client, bucket, proxy):
    """What comes back differs as it was asked for."""
    client.put_object(Bucket=bucket, Key="k", Body=bytes(1000))
    for fault in (wire.cut(10), wire.flipped(10), wire.short(10), wire.stalled(), wire.etag("other"), wire.etag(None)):
        proxy.on("get", fault)

    def get():
        return client.get_object(Bucket=bucket, Key="k")

    with pytest.raises(ResponseStreamingError):
        get()["Body"].read()
    assert get()["Body"].read() == bytes(10) + b"\xff" + bytes(989)
    assert get()["Body"].read() == bytes(10)
    with pytest.raises(ReadTimeoutError):
        get()["Body"].read()
    assert get()["ETag"] == '"other"'
    assert "ETag" not in get()


def test_chaos_is_the_same_for_the_same_seed(client, bucket, proxy):
    """A third of the calls fails, and the same ones when it is done again."""

    def outcomes():
        proxy.chaos(7, 1 / 3, {"slow": wire.error(503, "SlowDown"), "broken": wire.status(500)})
        found = []
        for _ in range(40):
            try:
                found.append(client.put_object(Bucket=bucket, Key="k", Body=b"")["ResponseMetadata"]["HTTPStatusCode"])
            except ClientError as error:
                found.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return found

    once, again = outcomes(), outcomes()
    assert once == again
    assert {200, 500, 503} == set(once)
