"""The environment as a source."""

import pytest

from replicator.config.settings import load
from replicator.config.sources.env import EnvSource, word_files
from replicator.config.sources.source import make_source
from replicator.model import Direction

MAPPED = {"REPLICATOR_EGRESS": "stats=statistics,logs=remote/log", "REPLICATOR_INGRESS": "remote/data=download/data"}


def source_of(environ, flags=None):
    loaded = load(flags or {}, environ)
    return make_source(loaded.settings, environ, origins=loaded.origins)


def with_prefix(words, prefix):
    return {prefix + word: value for word, value in words.items()}


def test_sidecar_from_variables(bucket):
    """Mappings and a bucket's own words are all that a sidecar needs."""
    source = source_of(MAPPED | bucket)

    assert isinstance(source, EnvSource)
    assert [target.id for target in source.read()] == [
        "workload/egress/statistics",
        "workload/egress/remote/log",
        "workload/ingress/remote/data",
    ]
    target = source.read()[2]
    assert (target.direction, target.root, target.subdir) == (Direction.INGRESS, "/export", "download/data")
    assert target.storage.place == "https://play.min.io/device-bucket-6"
    assert target.storage.access_key_id.get_secret_value() == "ydayagi1369"
    assert target.storage.origin == "external storage (environment BUCKET_NAME)"


@pytest.mark.parametrize(
    ("flags", "environ", "origin"),
    [
        ({}, {"REPLICATOR_EGRESS": "a=b"}, "environment REPLICATOR_EGRESS[0]"),
        ({"egress": "a=b"}, {"REPLICATOR_EGRESS": "x=y"}, "flag --egress[0]"),
    ],
)
def test_origin_is_where_the_mapping_was_written(flags, environ, origin, bucket):
    """People see which word made a target."""
    assert [target.origin for target in source_of(environ | bucket, flags).read()] == [origin]


def test_workload_has_the_name_of_the_setting(bucket):
    """The name appears in ids, and in device mode it is the directory."""
    environ = bucket | {"REPLICATOR_EGRESS": "a=b", "REPLICATOR_WORKLOAD": "w", "REPLICATOR_VOLUMES_DIR": "/volumes"}

    assert [(target.id, target.root) for target in source_of(environ).read()] == [("w/egress/b", "/volumes/w")]


def test_nothing_mapped_is_refused(refusal, bucket):
    """A replicator without mappings is a forgotten setting."""
    error = refusal(source_of(bucket).read)

    assert error.problem == "nothing is mapped"
    assert "REPLICATOR_INGRESS=prefix=directory" in error.fix


def test_unsafe_mapping_names_the_variable(refusal, bucket):
    """The variable and its item are named."""
    error = refusal(source_of(bucket | {"REPLICATOR_INGRESS": "a=b,c=../d"}).read)

    assert (error.where, error.problem) == ("environment REPLICATOR_INGRESS[1].target", "'../d' leads upwards")


# Which bucket


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    ("prefixes", "chosen", "role"),
    [
        (["OBC_", "EXTERNAL_", ""], "OBC_", "in-cluster claim"),
        (["OBC_", ""], "OBC_", "in-cluster claim"),
        (["EXTERNAL_", ""], "EXTERNAL_", "external storage"),
        (["EXTERNAL_"], "EXTERNAL_", "external storage"),
        ([""], "", "external storage"),
    ],
)
def test_claim_comes_before_external_storage(prefixes, chosen, role, bucket):
    """OBC_ is the in-cluster claim and wins; EXTERNAL_ is more explicit than no prefix."""
    environ = dict(MAPPED)
    for prefix in prefixes:
        environ |= with_prefix(bucket | {"BUCKET_NAME": f"of-{prefix.lower().strip('_')}"}, prefix)

    storage = source_of(environ).read()[0].storage

    assert storage.bucket == f"of-{chosen.lower().strip('_')}"
    assert storage.origin == f"{role} (environment {chosen}BUCKET_NAME)"


@pytest.mark.fault("D6")
@pytest.mark.parametrize("prefix", ["OBC_", "EXTERNAL_"])
def test_words_of_two_places_are_never_mixed(prefix, refusal, bucket):
    """An incomplete place is an error: another place's key is not sent to its endpoint."""
    environ = MAPPED | bucket | with_prefix(bucket, prefix)
    del environ[f"{prefix}AWS_SECRET_ACCESS_KEY"]

    error = refusal(source_of(environ).read)

    assert (error.where, error.problem) == (f"environment {prefix}AWS_SECRET_ACCESS_KEY", "is missing")


def test_empty_words_are_no_place(bucket):
    """Compose files pass empty variables for what is not set."""
    environ = MAPPED | bucket | dict.fromkeys(with_prefix(bucket, "OBC_"), "")

    assert source_of(environ).read()[0].storage.bucket == "device-bucket-6"


def test_no_bucket_names_both_places(refusal):
    """Without any word the error names the claim's and the external variables."""
    error = refusal(source_of(MAPPED).read)

    assert error.problem == "no bucket is configured"
    assert "OBC_BUCKET_NAME" in error.fix
    assert "EXTERNAL_BUCKET_NAME" in error.fix


def test_scheme_is_a_setting(bucket):
    """Plain HTTP is used only where it is asked for."""
    environ = MAPPED | bucket | {"BUCKET_PORT": "80", "REPLICATOR_S3_SCHEME": "http"}

    assert source_of(environ).read()[0].storage.endpoint == "http://play.min.io"


# Words in files


@pytest.fixture
def filed(tmp_path, bucket):
    """An environment whose keys stand in files, as mounted Secrets do, and the directory of these."""
    for word in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / word).write_text(bucket.pop(word) + "\n")
        bucket[f"{word}_FILE"] = str(tmp_path / word)
    return MAPPED | bucket


def test_keys_may_stand_in_files(filed, secret_text):
    """<WORD>_FILE is read without its line end."""
    storage = source_of(filed).read()[0].storage

    assert storage.secret_access_key.get_secret_value() == secret_text
    assert [path.name for path in word_files(filed)] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_session_token_may_stand_in_a_file(bucket, tmp_path):
    """So is the token of temporary keys, which rotates with them."""
    (tmp_path / "token").write_text("TOKEN\n")
    environ = MAPPED | bucket | {"AWS_SESSION_TOKEN_FILE": str(tmp_path / "token")}

    assert source_of(environ).read()[0].storage.session_token.get_secret_value() == "TOKEN"
    assert [path.name for path in word_files(environ)] == ["token"]


def test_certificate_may_stand_in_a_file(bucket, tmp_path, ca_pem):
    """tls.crt is a word like any other."""
    (tmp_path / "ca").write_text(ca_pem)

    storage = source_of(MAPPED | bucket | {"tls.crt_FILE": str(tmp_path / "ca")}).read()[0].storage

    assert storage.ca_pem == ca_pem


def test_absent_file_is_named(filed, tmp_path, refusal):
    """A word whose file is not there is an error about that file."""
    (tmp_path / "AWS_ACCESS_KEY_ID").unlink()

    assert refusal(source_of(filed).read).where == str(tmp_path / "AWS_ACCESS_KEY_ID")


def test_word_and_file_at_once_are_refused(filed, refusal, secret_text):
    """Two words for one key are not weighed against each other."""
    error = refusal(source_of(filed | {"AWS_SECRET_ACCESS_KEY": secret_text}).read)

    assert (error.where, error.problem) == (
        "environment AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_ACCESS_KEY_FILE is set as well",
    )


# Changes


@pytest.mark.fault("B18")
async def test_rotated_key_is_noticed(filed, tmp_path, next_of, followed):
    """A new key in the file is a new snapshot, a broken one an error, and then the good one again."""
    loaded = load({}, filed)
    changes = followed(EnvSource(loaded.settings, filed, poll_s=0.02, settle_s=0.02))
    before = await next_of(changes)

    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("rotated")
    after = await next_of(changes)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("")
    broken = await next_of(changes)
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("rotated")
    mended = await next_of(changes)

    assert after != before
    assert after[0].storage.secret_access_key.get_secret_value() == "rotated"
    assert broken.where == "environment AWS_SECRET_ACCESS_KEY"
    assert mended == after


async def test_environment_without_files_wakes_nobody(bucket, next_of, followed, monkeypatch):
    """Variables never change: after the first snapshot nothing is looked at."""
    environ = MAPPED | bucket
    source = EnvSource(load({}, environ).settings, environ, poll_s=0.001, settle_s=0.001)
    changes = followed(source)
    first = await next_of(changes)
    monkeypatch.setattr(source, "read", None)

    with pytest.raises(TimeoutError):
        await next_of(changes, deadline_s=0.1)

    assert first == source_of(environ).read()
