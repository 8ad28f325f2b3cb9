"""`replicator doctor` as people call it."""

import json
import time
from email.utils import formatdate

import pytest

from tests.answers import documented

KNOWN_OF_MOTO = {"parts", "names"}
"""It fails on a part of an unknown upload, and knows no key with a line feed."""


def not_ok(out: str) -> dict[str, dict]:
    return {one["check"]: one for one in json.loads(out) if one["verdict"] != "ok"}


async def test_all_is_well_and_nothing_is_left_behind(replicator, witness):
    """Exit code 0, a line a check, JSON with the documented fields; no object, upload, file or directory stays."""
    (replicator.home / "export/out").mkdir()

    text = await replicator("doctor")
    as_json = await replicator("doctor", "--json")

    assert (text.code, as_json.code) == (0, 0), text.out + text.err
    lines = text.out.splitlines()
    assert {line.split()[0] for line in lines if line.split()[1] not in KNOWN_OF_MOTO} == {"ok"}, text.out
    found = documented("doctor", as_json.out)
    assert len(found) == len(lines)
    assert {"targets", "state directory", "events", "connection", "clock", "bucket", "uploads"} <= {
        one["check"] for one in found
    }
    assert await witness.keys() == []
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)
    assert sorted(path.name for path in replicator.home.rglob("*")) == ["export", "out"]


async def test_trials_with_objects_leave_nothing_behind(replicator, witness):
    """With leave to write, every trial is told with what it means; no object, version, marker or upload stays."""
    (replicator.home / "export/out").mkdir()
    await witness.put("sent/.replicator-doctor.txt", b"of the workload")
    witness.client.put_bucket_versioning(Bucket=witness.bucket, VersioningConfiguration={"Status": "Enabled"})

    result = await replicator("doctor", "--write", "--json")

    assert result.code == 0, result.out + result.err
    assert set(not_ok(result.out)) <= KNOWN_OF_MOTO, result.out
    found = {one["check"]: one for one in json.loads(result.out)}
    assert {"object", "ETag", "conditional get", "ranges", "complete upload", "names", "listing", "delete"} <= set(
        found
    )
    assert "MD5" in found["ETag"]["found"]
    assert found["names"]["effect"]
    assert found["left behind"]["found"] == "nothing"
    versions = witness.client.list_object_versions(Bucket=witness.bucket)
    assert [one["Key"] for one in versions["Versions"]] == ["sent/.replicator-doctor.txt"]
    assert "DeleteMarkers" not in versions
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)


async def test_it_runs_beside_the_service(replicator, until):
    """The running process keeps its lock and its work."""
    (replicator.home / "export/out").mkdir()
    async with replicator.running() as service:
        await until(service.is_in_step)
        result = await replicator("doctor")

        assert result.code == 0, result.out + result.err
        assert await service.is_in_step()


@pytest.mark.fault("B16")
async def test_missing_bucket_fails_with_the_fix(replicator):
    """The endpoint is fine, the bucket is not there: exit code 1, and what to check."""
    result = await replicator("doctor", "--json", OBC_BUCKET_NAME="no-such-bucket-anywhere")

    assert result.code == 1
    bad = not_ok(result.out)
    assert "NoSuchBucket" in bad["bucket"]["found"]
    assert "bucket's name" in bad["bucket"]["fix"]
    assert "connection" not in bad


async def test_dead_endpoint_fails_once(replicator):
    """Nobody listens there: the connection fails, and what would follow is left out."""
    result = await replicator("doctor", OBC_BUCKET_PORT="9")

    assert result.code == 1
    failed = [line for line in result.out.splitlines() if line.startswith("failed")]
    assert len(failed) == 1
    assert "127.0.0.1:9" in failed[0]
    assert "bucket " not in result.out


@pytest.mark.fault("B17", "F9", "H2")
async def test_wrong_secret_and_clock_are_told_and_no_secret_is_shown(replicator, stub_s3, reply):
    """Refused requests say which; a clock that is off by an hour is named; neither key nor secret is in any output."""
    body = b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
    stub_s3.default = lambda _: reply(403, headers={"Date": formatdate(time.time() + 3600, usegmt=True)}, body=body)
    secrets = {"OBC_AWS_ACCESS_KEY_ID": "canary-key-id", "OBC_AWS_SECRET_ACCESS_KEY": "canary-secret-value"}

    result = await replicator("doctor", "--json", OBC_BUCKET_PORT=str(stub_s3.port), **secrets)

    assert result.code == 1
    bad = not_ok(result.out)
    assert "SignatureDoesNotMatch" in bad["bucket"]["found"]
    assert "behind" in bad["clock"]["found"]
    assert "NTP" in bad["clock"]["fix"]
    assert bad["clock"]["verdict"] == "failed"
    assert "canary" not in result.out + result.err


async def test_broken_mapping_is_exit_code_2_and_the_device_is_examined_all_the_same(replicator):
    """The first line says where, what and the fix; checks that need no target follow."""
    result = await replicator("doctor", REPLICATOR_EGRESS="../other=x")

    assert result.code == 2
    first, second = result.out.splitlines()
    assert first.startswith("failed   targets: ")
    assert "REPLICATOR_EGRESS" in first
    assert second.startswith("ok       state directory")
