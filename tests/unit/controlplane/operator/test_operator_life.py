"""A device's whole life beside a provisioner that makes and takes down real buckets: nothing is left of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from replicator.cluster.client import Cluster
from tests.provisioner import Provisioner, running

OPERATOR = Path(__file__).parents[4] / "config" / "kubernetes" / "operator.yaml"


@pytest.fixture
async def provisioner(site, witness) -> AsyncIterator[Provisioner]:
    access = site.server.access(fixed_token=SecretStr("provisioner"))
    async with Cluster(access) as cluster, running(Provisioner(cluster, witness.client)) as one:
        yield one


def rights() -> set[tuple[str, str]]:
    """(resource with its group, verb) that config/kubernetes/operator.yaml grants."""
    return {
        (f"{resource}.{group}".rstrip("."), verb)
        for role in yaml.safe_load_all(OPERATOR.read_text(encoding="utf-8"))
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(site) -> set[tuple[str, str]]:
    """What the operator has asked for, in the same words; an apply may create, and is a patch."""
    asked = [request for request in site.server.requests if request.token == "operator" and request.plural]
    return {
        (
            f"{request.plural}{'/' * bool(request.subresource)}{request.subresource}.{group_of(request.path)}".rstrip(
                "."
            ),
            verb,
        )
        for request in asked
        for verb in (("patch", "create") if request.verb == "apply" else (request.verb,))
    }


def group_of(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "apis" else ""


@pytest.mark.slow
@pytest.mark.fault("E4")
async def test_device_that_is_unregistered_takes_its_bucket_along_and_comes_back_clean(site, settings, provisioner):
    """Registered, bound, filled, told to leave, drained, gone; registered again with a bucket that never saw a file.

    All of it with no more rights than config/kubernetes/operator.yaml grants, and with every one of those.
    """
    site.put("management.project-flotta.io/v1alpha1", "EdgeDeviceSet", "cameras", spec={})
    member = {"flotta/member-of": "cameras"}
    site.device(s3={"createOBC": True}, labels=member)
    async with site.operator(settings) as task:
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (bucket,) = provisioner.buckets()
        provisioner.s3.put_object(Bucket=bucket, Key="stats/a", Body=b"a")

        site.server.delete("edgedevices", "fleet", "camera")
        await site.until(lambda: ("Normal", "WaitingForDrain") in site.events())
        provisioner.s3.put_object(Bucket=bucket, Key="stats/late", Body=b"sent after it was told to leave")
        assert provisioner.buckets() == {bucket}

        drained = {"drainedAt": site.get("edgedevices")["metadata"]["deletionTimestamp"]}
        site.server.edit("edgedevices", "fleet", "camera", {"status": {"replication": drained}}, subresource="status")
        await site.until(lambda: site.get("edgedevices")["metadata"]["finalizers"] == ["device-finalizer"])
        assert [site.get(kind) for kind in ("objectbucketclaims", "configmaps", "secrets")] == [None] * 3
        assert provisioner.buckets() == set()

        site.release()
        site.device(s3={"createOBC": True}, labels=member)
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (clean,) = provisioner.buckets()
        assert clean != bucket
        assert "Contents" not in provisioner.s3.list_objects_v2(Bucket=clean)
        assert not task.done()

    # Told apart by what a cluster is like: a Route, owners that block a deletion, workloads whose sum is due.
    assert used(site) - rights() == set()
    assert rights() - used(site) == {
        ("routes.route.openshift.io", "get"),
        ("edgedevices/finalizers.management.project-flotta.io", "update"),
        ("edgeworkloads/status.management.project-flotta.io", "patch"),
    }


@pytest.mark.slow
async def test_bucket_of_a_class_that_retains_stays_with_its_objects(site, settings, provisioner):
    """What becomes of a bucket is its StorageClass's word; the claim goes all the same."""
    provisioner.reclaims = False
    site.device(s3={"createOBC": True})
    async with site.operator(settings, unregister_grace_s=0.0):
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (bucket,) = provisioner.buckets()
        provisioner.s3.put_object(Bucket=bucket, Key="stats/a", Body=b"a")

        site.server.delete("edgedevices", "fleet", "camera")
        await site.until(lambda: site.get("objectbucketclaims") is None)

    assert [one["Key"] for one in provisioner.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["stats/a"]
