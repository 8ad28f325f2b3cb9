"""Which bucket, and whether its words are right."""

import pytest

from replicator.config.storage import BUCKET_WORDS, Words, choose


@pytest.fixture
def words():
    """Words of one place, with changes; None takes a word away."""

    def make(values, **changes):
        values = {word: value for word, value in (values | changes).items() if value is not None}
        return Words(config="ConfigMap n/c: ", secret="Secret n/s: ", values=values)

    return make


def storage_of(claim=None, external=None, scheme="https"):
    return choose(claim=lambda: claim, external=lambda: external, scheme=scheme, looked_at=("here", "there"))


# Precedence


@pytest.mark.fault("D6")
def test_claim_comes_first(words, bucket):
    """With both configured the in-cluster claim is used, and external storage is not even looked at."""

    def external():
        raise AssertionError("asked")

    found = choose(
        claim=lambda: words(bucket, BUCKET_NAME="claimed"), external=external, scheme="https", looked_at=("here",)
    )

    assert found.bucket == "claimed"
    assert found.origin == "in-cluster claim (ConfigMap n/c: BUCKET_NAME)"


def test_external_storage_comes_second(words, bucket):
    """Without a claim external storage is used."""
    found = storage_of(external=words(bucket))

    assert found.bucket == "device-bucket-6"
    assert found.origin == "external storage (ConfigMap n/c: BUCKET_NAME)"


def test_no_storage_names_the_places(refusal):
    """With neither, the error tells where one could be."""
    error = refusal(storage_of)

    assert (error.where, error.problem) == ("storage", "no bucket is configured")
    assert error.fix == "Looked at: here; there. Configure one of them"


@pytest.mark.parametrize("word", ["BUCKET_HOST", "BUCKET_NAME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize(("value", "problem"), [(None, "is missing"), ("", "is empty"), (" \n", "is empty")])
def test_incomplete_claim_is_no_reason_to_fall_back(word, value, problem, words, bucket, refusal):
    """A claim that lacks a word is an error that names resource and key, though external storage is complete."""
    error = refusal(storage_of, claim=words(bucket, **{word: value}), external=words(bucket))

    assert error.where == ("ConfigMap n/c: " if word.startswith("BUCKET") else "Secret n/s: ") + word
    assert error.problem == problem
    assert error.fix.startswith(f"Set {word}")


# Endpoint


@pytest.mark.parametrize(
    ("scheme", "host", "port", "endpoint"),
    [
        ("https", "play.min.io", "443", "https://play.min.io"),
        ("https", "play.min.io", "", "https://play.min.io"),
        ("https", "play.min.io", None, "https://play.min.io"),
        ("https", "play.min.io", "9000", "https://play.min.io:9000"),
        ("https", "play.min.io", "80", "https://play.min.io:80"),
        ("http", "minio", "80", "http://minio"),
        ("http", "minio", "443", "http://minio:443"),
        ("http", "minio", None, "http://minio"),
        ("https", "s3.openshift-storage.svc", "443", "https://s3.openshift-storage.svc"),
        ("https", "10.1.2.3", "65535", "https://10.1.2.3:65535"),
        ("https", "127.0.0.1", "1", "https://127.0.0.1:1"),
        ("https", "fd00::5", "443", "https://[fd00::5]"),
        ("https", "[FD00:0::5]", "9000", "https://[fd00::5]:9000"),
        ("https", " rook_ceph-rgw.Example.COM.\n", "0443", "https://rook_ceph-rgw.Example.COM."),
        ("https", "3com.com", None, "https://3com.com"),
        ("https", "3f2a1b", None, "https://3f2a1b"),
    ],
)
def test_endpoint_is_scheme_host_and_unusual_port(scheme, host, port, endpoint, words, bucket):
    """The port is left out where the scheme implies it; IPv6 addresses get brackets."""
    found = storage_of(words(bucket, BUCKET_HOST=host, BUCKET_PORT=port), scheme=scheme)

    assert found.endpoint == endpoint


@pytest.mark.parametrize(
    "host",
    [
        "https://play.min.io",
        "file:///etc/passwd",
        "play.min.io/bucket",
        "play.min.io:9000",
        "play min.io",
        "user@play.min.io",
        "play..min.io",
        "-play.min.io",
        "play-.min.io",
        "play.min.io\nx",
        "plαy.min.io",
        "a" * 64 + ".io",
        ".".join(["abcdefgh"] * 32),
        "127.1",
        "2130706433",
        "0x7f000001",
        "1.2.3.4.5",
        "[1.2.3.4]",
        "[fd00::5",
        "fd00::5%eth0",
        "fe80::1%25eth0",
        "play.min.io?x",
        "play.min.io#x",
        "[]",
        ".",
    ],
)
@pytest.mark.fault("F13")
def test_host_is_a_bare_name_or_address(host, words, bucket, refusal):
    """Schemes, ports, paths, blanks and numbers in disguise are refused."""
    error = refusal(storage_of, words(bucket, BUCKET_HOST=host))

    assert (error.where, error.problem) == ("ConfigMap n/c: BUCKET_HOST", "is not a host name")


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "::", "224.0.0.1"])
@pytest.mark.fault("F13")
def test_address_of_no_store_is_refused(host, words, bucket, refusal):
    """A manifest cannot point the device at its cloud's metadata address."""
    error = refusal(storage_of, words(bucket, BUCKET_HOST=host))

    assert error.problem == "is a link-local, multicast or unspecified address"


@pytest.mark.parametrize("port", ["0", "65536", "https", "-1", "4 3", "44３", "1e2", "0x50", "1" * 5000])
def test_port_is_a_number_in_range(port, words, bucket, refusal):
    """Text, zero and numbers beyond 16 bits are refused."""
    error = refusal(storage_of, words(bucket, BUCKET_PORT=port))

    assert (error.where, error.problem) == ("ConfigMap n/c: BUCKET_PORT", "is not a port number")


def test_https_on_port_80_is_possible_and_suspicious(words, bucket):
    """Rook announces port 80 for plain HTTP: the origin, which people see, tells what to set."""
    found = storage_of(words(bucket, BUCKET_PORT="80"))

    assert "set REPLICATOR_S3_SCHEME=http" in found.origin
    assert "REPLICATOR_S3_SCHEME" not in storage_of(words(bucket, BUCKET_PORT="80"), scheme="http").origin


# Bucket, region, keys, certificate


@pytest.mark.parametrize(
    ("given", "region"), [(None, "us-east-1"), ("", "us-east-1"), ("ignore", "us-east-1"), ("eu-1", "eu-1")]
)
def test_region_is_kept_or_the_usual_one(given, region, words, bucket):
    """Flotta's `ignore` says that there is none, as an empty one does; a signature then names the usual one."""
    assert storage_of(words(bucket, BUCKET_REGION=given)).region == region


@pytest.mark.parametrize("word", ["BUCKET_NAME", "BUCKET_REGION"])
@pytest.mark.parametrize("value", ["a/b", "a b", "a\nb", "ä", "x" * 256, "s3://x", "a?b"])
def test_names_are_bare(word, value, words, bucket, refusal):
    """A bucket or region that would change the path or the signature of a request is refused."""
    assert refusal(storage_of, words(bucket, **{word: value})).where == f"ConfigMap n/c: {word}"


@pytest.mark.parametrize("value", [".", ".."])
def test_bucket_is_no_step(value, words, bucket, refusal):
    """A bucket of dots would be a path."""
    assert refusal(storage_of, words(bucket, BUCKET_NAME=value)).problem == "is not a bucket name"


def test_keys_lose_only_what_editors_add(words, bucket, secret_text):
    """A line end after a key, which `echo | base64` puts there, is no part of it."""
    found = storage_of(words(bucket, AWS_SECRET_ACCESS_KEY=f"{secret_text}\n"))

    assert found.secret_access_key.get_secret_value() == secret_text


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "schlüssel", "a\x7f"])
@pytest.mark.parametrize("word", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_key_that_cannot_be_one_is_refused(word, value, words, bucket, refusal):
    """Keys are one printable word; the message does not quote it."""
    error = refusal(storage_of, words(bucket, **{word: value}))

    assert error.where == f"Secret n/s: {word}"
    assert value not in str(error)


@pytest.mark.parametrize(("value", "token"), [(None, ""), ("", ""), ("FQoGZX//token==\n", "FQoGZX//token==")])
def test_session_token_belongs_to_temporary_keys(value, token, words, bucket):
    """AWS_SESSION_TOKEN is taken where it is there; lasting keys have none."""
    found = storage_of(words(bucket, AWS_SESSION_TOKEN=value))

    assert found.session_token.get_secret_value() == token
    assert "FQoGZX" not in repr(found)


@pytest.mark.parametrize("value", [None, "", "\n"])
def test_certificate_may_be_left_out(value, words, bucket):
    """Without tls.crt the system's own authorities count."""
    assert storage_of(words(bucket, **{"tls.crt": value})).ca_pem == ""


@pytest.mark.fault("F9")
def test_only_certificates_are_kept(words, bucket, ca_pem):
    """A bundle with comments and a private key gives its certificates and nothing else."""
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n"

    found = storage_of(words(bucket, **{"tls.crt": f"# CA\n{key}{ca_pem}{ca_pem}"}))

    assert found.ca_pem == ca_pem + ca_pem


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
        "-----BEGIN CERTIFICATE-----\nMIIFCTND...\n-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----",
    ],
    ids=["text", "base64-twice", "cut", "key"],
)
def test_certificate_must_be_one(value, words, bucket, refusal):
    """tls.crt that no TLS library can load is refused before a connection is tried."""
    error = refusal(storage_of, words(bucket, **{"tls.crt": value}))

    assert (error.where, error.problem) == ("Secret n/s: tls.crt", "is not a PEM certificate")


@pytest.mark.fault("F9")
def test_secrets_do_not_show(words, bucket, secret_text):
    """Neither the words nor the storage show a key when they are printed."""
    given = words(bucket)

    assert secret_text not in repr(given)
    assert secret_text not in repr(storage_of(given))
    assert set(BUCKET_WORDS) >= set(bucket)
