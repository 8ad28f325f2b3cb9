"""Which bucket a device is told, and every reason why it is told none."""

import base64
import copy

import pytest

from replicator.controlplane.storage import Bucket, Places, Reason, Rules, StorageFault, bucket_of, places, set_of
from tests.certificates import issue

SECRET = "s3cr3t-0f-the-t3st"
ROUTE = Rules(ca_secret="")
CLAIM = Rules(endpoint="claim", ca_secret="")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def named(name, namespace="fleet", **more):
    return {"metadata": {"name": name, "namespace": namespace}, **more}


def device(s3=None, *, obc="", deleting=False, labels=None):
    one = named("gateway-7", spec={"storage": {"s3": s3}} if s3 is not None else {}, status={"dataObc": obc})
    one["metadata"]["labels"] = labels or {}
    if deleting:
        one["metadata"]["deletionTimestamp"] = "2026-11-23T11:00:00Z"
    return one


def claim(phase="Bound", object_bucket="obc-fleet-gateway-7", *, deleting=False):
    one = named("gateway-7", spec={"objectBucketName": object_bucket}, status={"phase": phase})
    if deleting:
        one["metadata"]["deletionTimestamp"] = "2026-11-23T11:00:00Z"
    return one


def config_map(name="words", **words):
    values = {
        "BUCKET_NAME": "device-bucket-6",
        "BUCKET_HOST": "play.min.io",
        "BUCKET_PORT": "443",
        "BUCKET_REGION": "us-east-1",
    } | words
    return named(name, data={word: value for word, value in values.items() if value is not None})


def secret(name="keys", **words):
    values = {"AWS_ACCESS_KEY_ID": b64("ydayagi1369"), "AWS_SECRET_ACCESS_KEY": b64(SECRET)} | words
    return named(name, data={word: value for word, value in values.items() if value is not None})


EXTERNAL = {"configMapName": "words", "secretName": "keys"}
ROUTED = named("s3", "openshift-storage", spec={"host": "s3.apps.example"})


def of_claim(rules=ROUTE, *, on=None, **found):
    objects = {"claim": claim(), "config_map": config_map("gateway-7"), "secret": secret("gateway-7"), "route": ROUTED}
    return bucket_of(on or device(obc="gateway-7"), None, rules=rules, **(objects | found))


def of_external(s3=None, **found):
    objects = {"config_map": config_map(), "secret": secret()}
    return bucket_of(device(EXTERNAL if s3 is None else s3), None, rules=Rules(), **(objects | found))


# Which bucket


def test_claim_is_told_by_its_route():
    """The host is the Route's, the port 443 and the region ignored: what the claim says of them is for the cluster."""
    bucket = of_claim(config_map=config_map("gateway-7", BUCKET_HOST="s3.storage.svc", BUCKET_PORT="80"))

    assert bucket == Bucket("s3.apps.example", 443, "device-bucket-6", "ignore", b64("ydayagi1369"), b64(SECRET))


def test_claim_is_told_by_its_own_endpoint_where_asked():
    """Other provisioners and plain stores have no Route: then host, port and region are the claim's."""
    bucket = of_claim(CLAIM, route=None, config_map=config_map("gateway-7", BUCKET_PORT="9000", BUCKET_REGION=""))

    assert isinstance(bucket, Bucket)
    assert (bucket.host, bucket.port, bucket.region) == ("play.min.io", 9000, "ignore")


def test_claim_is_told_by_a_fixed_endpoint():
    """One address for all claims, where a balancer stands before the store."""
    rules = Rules(endpoint="fixed", endpoint_host="s3.example", endpoint_port=8443, region="eu-1", ca_secret="")
    bucket = of_claim(rules, route=None)

    assert isinstance(bucket, Bucket)
    assert (bucket.host, bucket.port, bucket.region) == ("s3.example", 8443, "eu-1")


def test_claim_comes_before_external_storage():
    """A device with both has the claim, also when a set brings the external one."""
    both = device(EXTERNAL, obc="gateway-7")
    a_set = named("home", spec={"storage": {"s3": EXTERNAL}})

    assert places(both, None, Rules()) == places(both, a_set, Rules())
    assert places(both, a_set, Rules()) == Places(
        is_claim=True,
        claim=("fleet", "gateway-7"),
        config_map=("fleet", "gateway-7"),
        secret=("fleet", "gateway-7"),
        route=("openshift-storage", "s3"),
        ca=("openshift-ingress-operator", "router-ca"),
    )


def test_external_storage_is_told_as_it_is_written():
    """Every word passes unchanged, the keys in the one layer of base64 that a Secret has."""
    assert of_external() == Bucket(
        "play.min.io", 443, "device-bucket-6", "us-east-1", b64("ydayagi1369"), b64(SECRET), ""
    )


def test_region_may_be_empty():
    """A store without regions needs none."""
    assert of_external(config_map=config_map(BUCKET_REGION="")).region == ""


def test_storage_of_a_set_replaces_that_of_its_members():
    """Whole, not merged: a set without storage leaves its members without."""
    member = device(EXTERNAL, labels={"flotta/member-of": "home"})

    assert set_of(member) == ("fleet", "home")
    assert places(member, named("home", spec={"storage": {"s3": {"secretName": "theirs"}}}), Rules()) == Places(
        is_claim=False, secret=("fleet", "theirs")
    )
    assert places(member, named("home", spec={}), Rules()) is None
    assert places(member, None, Rules()).config_map == ("fleet", "words")


def test_authority_is_told_with_the_bucket():
    """For a claim from the cluster's Secret, whose key may be missing; for external storage from its own Secret."""
    authority = issue("authority", is_authority=True).pem
    ca = named("router-ca", "openshift-ingress-operator", data={"tls.crt": b64(authority)})

    assert of_claim(Rules(), ca=ca).ca_bundle == b64(authority)
    assert of_claim(Rules(), ca=named("router-ca", data={})).ca_bundle == ""
    assert of_external(secret=secret(**{"tls.crt": b64(authority)})).ca_bundle == b64(authority)


def test_private_key_beside_the_authority_stays_here():
    """A bundle may carry a key, which devices must not see."""
    authority = issue("authority", is_authority=True)
    bundle = of_external(secret=secret(**{"tls.crt": b64(authority.key_pem + authority.pem)})).ca_bundle

    assert base64.b64decode(bundle).decode() == authority.pem


def test_device_that_leaves_keeps_its_claim_while_it_drains():
    """The claim is deleted with its device, and the last files still have to go there."""
    leaving = device(obc="gateway-7", deleting=True)

    assert isinstance(of_claim(on=leaving, claim=claim(deleting=True)), Bucket)


# Which fault: in the order in which they are told

CLAIM_FAULTS: dict = {
    "claim missing": ({"claim": None}, Reason.OBC_MISSING, 'ObjectBucketClaim "gateway-7" not found'),
    "claim pending": ({"claim": claim("Pending")}, Reason.OBC_PENDING, 'ObjectBucketClaim "gateway-7" is "Pending", '),
    "claim new": ({"claim": claim("")}, Reason.OBC_PENDING, 'ObjectBucketClaim "gateway-7" is "Pending", not Bound'),
    "claim failed": ({"claim": claim("Failed")}, Reason.OBC_PENDING, 'ObjectBucketClaim "gateway-7" is "Failed", '),
    "bound in part": ({"claim": claim(object_bucket="")}, Reason.OBC_PENDING, "names no ObjectBucket yet"),
    "of the last device": ({"claim": claim(deleting=True)}, Reason.OBC_PENDING, "is being deleted"),
    "no ConfigMap": ({"config_map": None}, Reason.OBC_MISSING, 'ConfigMap "gateway-7" not found'),
    "no name": (
        {"config_map": config_map("gateway-7", BUCKET_NAME=None)},
        Reason.MISSING_FIELD,
        "Missing field BUCKET_NAME in resource fleet/gateway-7",
    ),
    "no Route": ({"route": None}, Reason.ROUTE_MISSING, 'Route "s3" not found'),
    "Route without host": ({"route": named("s3", spec={})}, Reason.ROUTE_MISSING, 'Route "s3" has no host'),
    "no Secret": ({"secret": None}, Reason.OBC_MISSING, 'Secret "gateway-7" not found'),
    "no key id": ({"secret": secret(AWS_ACCESS_KEY_ID=None)}, Reason.MISSING_FIELD, "Cannot get AWS_ACCESS_KEY_ID"),
    "no key": (
        {"secret": secret(AWS_SECRET_ACCESS_KEY="")},
        Reason.MISSING_FIELD,
        "Cannot get AWS_SECRET_ACCESS_KEY_ID",
    ),
    "no authority": ({"rules": Rules()}, Reason.CA_MISSING, 'Secret "router-ca" not found'),
    "no host of its own": (
        {"rules": CLAIM, "config_map": config_map("gateway-7", BUCKET_HOST="")},
        Reason.MISSING_FIELD,
        "Missing field BUCKET_HOST in resource fleet/gateway-7",
    ),
    "port of its own": (
        {"rules": CLAIM, "config_map": config_map("gateway-7", BUCKET_PORT="https")},
        Reason.INVALID_PORT,
        'strconv.ParseUint: parsing "https": invalid syntax',
    ),
    "not base64": (
        {"secret": secret(AWS_SECRET_ACCESS_KEY=SECRET)},
        Reason.INVALID_FIELD,
        "AWS_SECRET_ACCESS_KEY is not base64 of text",
    ),
}


@pytest.mark.parametrize("case", CLAIM_FAULTS)
def test_claim_that_is_not_whole_is_no_bucket(case):
    """Nothing falls back in silence: the reason and the sentence are told, though external storage stands by."""
    found, reason, text = CLAIM_FAULTS[case]
    fault = of_claim(**({"on": device(EXTERNAL, obc="gateway-7")} | copy.deepcopy(found)))

    assert isinstance(fault, StorageFault)
    assert fault.reason is reason
    assert text in fault.text
    assert SECRET not in fault.text


def test_faults_of_a_claim_are_told_in_their_order():
    """With everything missing the first fault is told, and each repair shows the next."""
    steps = [
        ({"claim": claim()}, 'ConfigMap "gateway-7" not found'),
        ({"config_map": config_map("gateway-7")}, 'Route "s3" not found'),
        ({"route": ROUTED}, 'Secret "gateway-7" not found'),
        ({"secret": secret(AWS_ACCESS_KEY_ID=None)}, "Cannot get AWS_ACCESS_KEY_ID"),
        ({"secret": secret()}, 'Secret "router-ca" not found'),
    ]
    found: dict = {}
    for repair, text in steps:
        found |= repair

        assert bucket_of(device(obc="gateway-7"), None, rules=Rules(), **found).text == text


EXTERNAL_FAULTS: dict = {
    "no storage": ({"s3": {}}, Reason.NO_STORAGE, "storage cannot be missing"),
    "no ConfigMap": ({"config_map": None}, Reason.EXTERNAL_NOT_FOUND, 'ConfigMap "words" not found'),
    "no Secret": ({"secret": None}, Reason.EXTERNAL_NOT_FOUND, 'Secret "keys" not found'),
    "one name": (
        {"s3": {"configMapName": "words"}, "secret": None},
        Reason.EXTERNAL_NOT_FOUND,
        'Secret "" not found',
    ),
    "other name": (
        {"s3": {"secretName": "keys"}, "config_map": None},
        Reason.EXTERNAL_NOT_FOUND,
        'ConfigMap "" not found',
    ),
    **{
        f"no {word}": (
            {"config_map": config_map(**{word: None})},
            Reason.MISSING_FIELD,
            f"{word} in resource fleet/words",
        )
        for word in ("BUCKET_NAME", "BUCKET_HOST", "BUCKET_PORT", "BUCKET_REGION")
    },
    **{
        f"no {word}": (
            {"secret": secret(**{word: None})},
            Reason.MISSING_FIELD,
            f"Missing field {word} in resource fleet/keys",
        )
        for word in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    },
    "blank name": ({"config_map": config_map(BUCKET_NAME=" ")}, Reason.MISSING_FIELD, "Missing field BUCKET_NAME"),
    "port in letters": (
        {"config_map": config_map(BUCKET_PORT="abc")},
        Reason.INVALID_PORT,
        'strconv.ParseUint: parsing "abc": invalid syntax',
    ),
    "port empty": ({"config_map": config_map(BUCKET_PORT="")}, Reason.INVALID_PORT, 'parsing "": invalid syntax'),
    "port negative": (
        {"config_map": config_map(BUCKET_PORT="-1")},
        Reason.INVALID_PORT,
        'parsing "-1": invalid syntax',
    ),
    "port above": (
        {"config_map": config_map(BUCKET_PORT="65536")},
        Reason.INVALID_PORT,
        'strconv.ParseUint: parsing "65536": value out of range',
    ),
    "port endless": (
        {"config_map": config_map(BUCKET_PORT="9" * 9000)},
        Reason.INVALID_PORT,
        '...": value out of range',
    ),
    "port zero": ({"config_map": config_map(BUCKET_PORT="00")}, Reason.INVALID_PORT, "0 is not a valid port number"),
    "host blank": ({"config_map": config_map(BUCKET_HOST="")}, Reason.INVALID_HOST, "BUCKET_HOST"),
    "host with scheme": ({"config_map": config_map(BUCKET_HOST="https://x")}, Reason.INVALID_HOST, "BUCKET_HOST"),
    "host with path": ({"config_map": config_map(BUCKET_HOST="x/y")}, Reason.INVALID_HOST, "BUCKET_HOST"),
    "host with port": ({"config_map": config_map(BUCKET_HOST="x:443")}, Reason.INVALID_HOST, "BUCKET_HOST"),
    "bucket name": ({"config_map": config_map(BUCKET_NAME="a/b")}, Reason.INVALID_FIELD, "BUCKET_NAME"),
    "region": ({"config_map": config_map(BUCKET_REGION="a b")}, Reason.INVALID_FIELD, "BUCKET_REGION"),
    "not base64": ({"secret": secret(AWS_ACCESS_KEY_ID="#")}, Reason.INVALID_FIELD, "AWS_ACCESS_KEY_ID"),
    "not text": (
        {"secret": secret(AWS_SECRET_ACCESS_KEY=base64.b64encode(b"\xff").decode())},
        Reason.INVALID_FIELD,
        "AWS_SECRET_ACCESS_KEY",
    ),
    "no certificate": ({"secret": secret(**{"tls.crt": b64("nonsense")})}, Reason.INVALID_FIELD, "tls.crt"),
}


@pytest.mark.parametrize("case", EXTERNAL_FAULTS)
def test_external_storage_that_is_not_whole_is_no_bucket(case):
    """Each way in which the two objects can be wrong has its reason and its sentence, without a word of the Secret."""
    found, reason, text = EXTERNAL_FAULTS[case]
    fault = of_external(**copy.deepcopy(found))

    assert isinstance(fault, StorageFault)
    assert fault.reason is reason
    assert text in fault.text
    assert len(fault.text) < 250
    assert SECRET not in fault.text


@pytest.mark.fault("E7")
@pytest.mark.parametrize(
    "host", ["169.254.169.254", "::ffff:169.254.169.254", "file:///etc/passwd", "0.0.0.0", "127.1"]
)
def test_bucket_of_the_machine_itself_is_refused(host):
    """Where clouds keep their credentials, and what is no host at all, is told to no device."""
    assert of_external(config_map=config_map(BUCKET_HOST=host)).reason is Reason.INVALID_HOST


def owned_by(uid, claim):
    return claim | {"metadata": claim["metadata"] | {"ownerReferences": [{"kind": "EdgeDevice", "uid": uid}]}}


@pytest.mark.fault("E7")
def test_claim_of_a_neighbour_is_no_bucket():
    """A status that names another device's claim hands out no credentials; the device's own claim stays good."""
    mine = device(obc="gateway-7")
    mine["metadata"]["uid"] = "mine"
    other = device(obc="gateway-8")
    other["metadata"]["uid"] = "mine"
    unowned = claim()
    unowned["metadata"]["name"] = "gateway-8"

    assert isinstance(of_claim(on=mine, claim=owned_by("mine", claim())), Bucket)
    for found in (of_claim(on=mine, claim=owned_by("theirs", claim())), of_claim(on=other, claim=unowned)):
        assert isinstance(found, StorageFault)
        assert found.reason == Reason.OBC_FOREIGN


@pytest.mark.fault("E7")
@pytest.mark.parametrize("odd", [None, 7, [], "text", {"s3": 7}, {"s3": []}, {"s3": {"secretName": {"a": 1}}}])
def test_odd_spec_is_no_storage(odd):
    """What a schema would have refused ends as no storage, never as a crash."""
    one = device()
    one["spec"] = {"storage": odd}

    assert bucket_of(one, None, rules=Rules()).reason is Reason.NO_STORAGE


def test_words_of_secrets_are_not_shown():
    """A bucket in a log line tells no key."""
    assert b64(SECRET) not in repr(of_external())
