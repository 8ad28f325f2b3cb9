"""Sidecars in what a device is told: a message's contents -> the same, with replicator in the Pods that want it. Pure.

Owns: which workloads get a sidecar, and the ConfigMap and Secret that are made up for it. The sidecar itself is the one
of `replicator pod`. Flotta's agent mounts /export into every container of a Pod, so that is left to it; and it syncs a
workload that has `data`, so that is left out: a directory has one writer. Its name carries a digest of the bucket's
words, because the agent starts a Pod anew only when the Pod's own text is another.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from replicator.config.manifests import EdgeWorkload
from replicator.controlplane import sidecar
from replicator.controlplane.edge_api.messages import Contents, references
from replicator.controlplane.pod import Place, add_sidecar, check, user_of
from replicator.controlplane.storage import Bucket, Object
from replicator.errors import ConfigError

ANNOTATION = "replicator.project-flotta.io/sidecar"
OFF, CONTAINER = "off", "container"

_GRACE_S = 60
_DIGITS = 10
_MAX_VARIABLE_BYTES = 96 * 1024
"""Of one word; Linux starts no program with a variable of 128 KiB."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What this server was told about sidecars."""

    usual: str = OFF
    """For workloads without the annotation."""
    image: str = ""
    volumes_dir: str = sidecar.VOLUMES_DIR
    """Where the agent keeps exports; journals are kept below it."""


def with_sidecars(given: Contents, rules: Rules, *, had_bucket: bool = False) -> Contents:
    """The same with sidecars. Without a bucket workloads run alone until there is one.

    Raises ConfigError for a word that is none of ours, a name that is taken, or a bucket that is not whole any more: to
    take sidecars out and put them in again would stop workloads twice.
    """
    if given.device["metadata"].get("deletionTimestamp"):
        return given
    if not any(_wants(workload, rules) for workload in given.workloads):
        return given
    if given.bucket is None and had_bucket:
        problem, fix = "has lost the bucket that its sidecars use", "Mend its storage; until then it keeps its sidecars"
        raise ConfigError(where=_device(given), problem=problem, fix=fix)
    if given.bucket is None:
        return replace(given, workloads=[_without_data(one, rules) for one in given.workloads])
    config_map, secret = _words(given.bucket)
    name = config_map["metadata"]["name"]
    _check_is_free(name, given)
    return replace(
        given,
        workloads=[_without_data(_joined(one, name, rules), rules) for one in given.workloads],
        config_maps={**given.config_maps, name: config_map},
        secrets={**given.secrets, name: secret},
    )


def _wants(workload: Object, rules: Rules) -> bool:
    """Whether it is to have a sidecar; who maps nothing needs none."""
    metadata = workload["metadata"]
    word = (metadata.get("annotations") or {}).get(ANNOTATION, rules.usual)
    where = f"EdgeWorkload {metadata.get('namespace', '')}/{metadata['name']}: annotation {ANNOTATION}"
    if word not in (OFF, CONTAINER):
        raise ConfigError(where=where, problem=f"is neither {OFF!r} nor {CONTAINER!r}", fix="Correct it, or remove it")
    data = (workload.get("spec") or {}).get("data") or {}
    is_wanted = word == CONTAINER and bool(data.get("egress") or data.get("ingress"))
    if is_wanted and not rules.image:
        problem, fix = "needs an image, and none is set", "Set REPLICATOR_CONTROL_SIDECAR_IMAGE of the Edge API"
        raise ConfigError(where=where, problem=problem, fix=fix)
    return is_wanted


def _joined(workload: Object, words: str, rules: Rules) -> Object:
    """The workload with the sidecar beside its containers."""
    if not _wants(workload, rules):
        return workload
    metadata = workload["metadata"]
    where = f"EdgeWorkload {metadata.get('namespace', '')}/{metadata['name']}"
    parsed = EdgeWorkload.of(workload, where=where, fix="Correct it; until then no device is told of it")
    spec = copy.deepcopy(parsed.spec.pod.spec)
    check(parsed, spec, has_sidecar=True)
    made = sidecar.Sidecar(
        form=sidecar.Form.CONTAINER,
        image=rules.image,
        bucket=sidecar.Bucket(words, words, is_claim=False),
        grace_s=_GRACE_S,
        user=user_of(parsed, kept=sidecar.Kept.HOST_PATH, default=sidecar.USER),
        has_own_volume=False,
    )
    add_sidecar(spec, parsed, sidecar=made, place=Place(volumes_dir=rules.volumes_dir))
    return _with_spec(workload, pod={"spec": spec})


def _without_data(workload: Object, rules: Rules) -> Object:
    """Not even without a bucket is the agent to sync what the sidecar will."""
    return _with_spec(workload, data=None) if _wants(workload, rules) else workload


def _with_spec(workload: Object, **fields: Any) -> Object:
    return {**workload, "spec": {**workload["spec"], **fields}}


def _words(bucket: Bucket) -> tuple[dict[str, Any], dict[str, Any]]:
    """ConfigMap and Secret of a bucket as devices reach it, of one name."""
    words = {
        "BUCKET_HOST": bucket.host,
        "BUCKET_NAME": bucket.name,
        "BUCKET_PORT": str(bucket.port),
        "BUCKET_REGION": bucket.region,
    }
    keys = {"AWS_ACCESS_KEY_ID": bucket.access_key_id, "AWS_SECRET_ACCESS_KEY": bucket.secret_access_key}
    if bucket.ca_bundle:
        keys["tls.crt"] = bucket.ca_bundle
    if len(bucket.ca_bundle) * 3 // 4 > _MAX_VARIABLE_BYTES:
        problem = f"has more than {_MAX_VARIABLE_BYTES // 1024} KiB, too much for a sidecar's variable"
        raise ConfigError(where="tls.crt of the bucket", problem=problem, fix="Leave in it what signed the endpoint")
    metadata = {"name": f"replicator-{_digest(words | keys)}"}
    return {"metadata": metadata, "data": words}, {"metadata": metadata, "data": keys}


def _digest(words: Mapping[str, str]) -> str:
    text = "\0".join(f"{word}={value}" for word, value in sorted(words.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _check_is_free(name: str, given: Contents) -> None:
    named = references(given.workloads)
    if name in named.secrets or name in named.config_maps:
        problem = f"runs a workload that names the Secret or ConfigMap {name!r}, which is its sidecar's"
        raise ConfigError(where=_device(given), problem=problem, fix="Name it otherwise in the workload")


def _device(given: Contents) -> str:
    metadata = given.device["metadata"]
    return f"EdgeDevice {metadata.get('namespace', '')}/{metadata['name']}"
