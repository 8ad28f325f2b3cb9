"""What event notifications say, in the words of each kind of store."""

import json

import pytest

from replicator.observe.notifications import MAX_CHANGES, Change, Notice, notice_of

AWS = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "eu-central-1",
            "eventTime": "2026-03-01T10:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "AWS:EXAMPLE"},
            "requestParameters": {"sourceIPAddress": "192.0.2.7"},
            "responseElements": {"x-amz-request-id": "EXAMPLE"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "fleet",
                "bucket": {"name": "fleet", "ownerIdentity": {"principalId": "EXAMPLE"}, "arn": "arn:aws:s3:::fleet"},
                "object": {
                    "key": "remote/red+flower%2B%C3%A9.jpg",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}
SNS = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:eu-central-1:123456789012:fleet",
    "Subject": "Amazon S3 Notification",
    "Message": json.dumps(AWS),
    "Timestamp": "2026-03-01T10:00:01.000Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLE",
    "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
}
MINIO = {
    "EventName": "s3:ObjectRemoved:Delete",
    "Key": "fleet/remote/red flower+\u00e9.jpg",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2026-03-01T10:00:00.000Z",
            "eventName": "s3:ObjectRemoved:Delete",
            "userIdentity": {"principalId": "edge"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {"name": "fleet", "ownerIdentity": {"principalId": "edge"}, "arn": "arn:aws:s3:::fleet"},
                "object": {"key": "remote%2Fred+flower%2B%C3%A9.jpg", "sequencer": "15612487A9DF732C"},
            },
            "source": {"host": "192.0.2.7", "port": "", "userAgent": "MinIO (linux; amd64)"},
        }
    ],
}
CEPH = {
    "Records": [
        {
            "eventVersion": "2.2",
            "eventSource": "ceph:s3",
            "awsRegion": "default",
            "eventTime": "2026-03-01T10:00:00.000000Z",
            "eventName": "ObjectCreated:CompleteMultipartUpload",
            "userIdentity": {"principalId": "edge"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "fleet",
                "bucket": {"name": "fleet", "ownerIdentity": {"principalId": "edge"}, "arn": "arn:aws:s3:::fleet"},
                "object": {"key": "remote/50%25+1.jpg", "size": 9, "etag": "x", "versionId": "", "metadata": []},
            },
            "eventId": "1583149984.0.x",
            "opaqueData": "",
        }
    ]
}


def body_of(said: object) -> bytes:
    return json.dumps(said).encode()


def record(event: str = "ObjectCreated:Put", key: object = "k", bucket: object = "b") -> dict:
    return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}


@pytest.mark.parametrize("said", [AWS, SNS, MINIO], ids=["aws", "sns", "minio"])
def test_key_is_decoded_and_its_bucket_known(said):
    """Spaces, '+', '/' and letters beyond ASCII come out as they are in the bucket, in each store's spelling."""
    (change,) = notice_of(body_of(said)).changes

    assert change.bucket == "fleet"
    assert change.key == "remote/red flower+\u00e9.jpg"


def test_key_of_ceph_may_be_either_spelling():
    """RGW sends keys as they are; who looks at both finds the object, whichever version of RGW it is."""
    assert set(notice_of(body_of(CEPH)).changes) == {
        Change("fleet", "remote/50%25+1.jpg"),
        Change("fleet", "remote/50% 1.jpg"),
    }


@pytest.mark.parametrize(
    "event",
    [
        "ObjectCreated:Put",
        "s3:ObjectCreated:Copy",
        "ObjectRemoved:DeleteMarkerCreated",
        "LifecycleExpiration:Delete",
        "s3:ObjectLifecycle:Expiration:Current",
        "s3:ObjectSynced:Create",
    ],
)
def test_creations_and_removals_tell(event):
    """With and without the `s3:` in front."""
    assert notice_of(body_of({"Records": [record(event)]})).changes == (Change("b", "k"),)


@pytest.mark.parametrize("event", ["s3:ObjectAccessed:Head", "s3:ObjectAccessed:Get", "ObjectRestore:Post", "s3:X"])
def test_our_own_look_is_no_change(event):
    """A look at an object is an event too where such events are asked for; following it would never end."""
    assert notice_of(body_of({"Records": [record(event)]})) == Notice(ignored=1)


def test_bad_records_do_not_stop_the_good_ones():
    """Each record counts for itself."""
    bad: list[object] = [
        {},
        None,
        5,
        [],
        "x",
        record(key=5),
        record(bucket=None),
        {"eventName": "ObjectCreated:Put", "s3": []},
    ]

    assert notice_of(body_of({"Records": [*bad, record(), *bad]})) == Notice((Change("b", "k"),), ignored=2 * len(bad))


def test_key_that_is_no_utf8_stays_as_it_was_sent():
    """What cannot be decoded was not encoded."""
    assert notice_of(body_of({"Records": [record(key="%ff")]})).changes == (Change("b", "%ff"),)


@pytest.mark.parametrize(
    "said",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "fleet", "RequestId": "x", "HostId": "y"},
        {"Type": "Notification", "Message": json.dumps({"Event": "s3:TestEvent"})},
        {"Type": "UnsubscribeConfirmation", "SubscribeURL": "https://sns.example/"},
        {"Records": []},
    ],
    ids=["test", "test in an envelope", "unsubscribed", "nothing"],
)
def test_what_tells_of_no_object_is_fine(said):
    """Stores prove their connection so; an error would stop them from sending."""
    assert notice_of(body_of(said)) == Notice()


def test_subscription_gives_its_url_to_people():
    """Somebody has to open it; we do not."""
    said = {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example/?Action=ConfirmSubscription"}

    notice = notice_of(body_of(said))

    assert notice == Notice(is_subscription=True, confirm_url="https://sns.example/?Action=ConfirmSubscription")


@pytest.mark.parametrize("url", [None, 5, "", "http://plain", "file:///etc", "https://a\nb", "https://" + "x" * 2048])
def test_url_that_nobody_should_open_is_not_shown(url):
    """Only what may be a link of SNS, on one line, and not too long."""
    notice = notice_of(body_of({"Type": "SubscriptionConfirmation", "SubscribeURL": url}))

    assert notice == Notice(is_subscription=True)


def test_too_many_records_are_a_flood():
    """Up to the bound they are told one by one, above it none is."""
    fits = notice_of(body_of({"Records": [record()] * MAX_CHANGES}))
    flood = notice_of(body_of({"Records": [record()] * (MAX_CHANGES + 1)}))

    assert (len(fits.changes), fits.is_flood) == (MAX_CHANGES, False)
    assert flood == Notice(is_flood=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"garbage",
        b"null",
        b"[]",
        b"5",
        b'"Records"',
        b"{}",
        b'{"Records": null}',
        b'{"Records": {"0": 1}}',
        b'{"Type": "Notification"}',
        b'{"Type": "Notification", "Message": 5}',
        b'{"Type": "Notification", "Message": "garbage"}',
        b'{"Type": "Notification", "Message": "[]"}',
        b"[" * 100_000,
        b'{"Records":' + b"[" * 100_000,
        b"1" * 10_000,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_no_notification_is_one_sentence(body):
    """Whatever it is, the complaint is short and repeats nothing of it."""
    with pytest.raises(ValueError, match=r"^the body (is|has) no[a-zA-Z ]*$"):
        notice_of(body)
