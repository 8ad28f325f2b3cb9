"""What Flotta's agent makes of a message, and podman of its Pods, as far as tests look at it."""

import base64
import json
from typing import Any

import yaml

VOLUMES_DIR = "/var/local/yggdrasil/device/volumes"

Content = dict[str, Any]


def pod_on_device(content: Content, number: int = 0, *, volumes_dir: str = VOLUMES_DIR) -> dict[str, Any]:
    """The spec of a workload's Pod: every container has /export, and nobody who only starts before them."""
    told = content["workloads"][number]
    spec: dict[str, Any] = yaml.safe_load(told["specification"])
    name = f"export-{told['name']}"
    export = {"name": name, "hostPath": {"path": f"{volumes_dir}/{told['name']}", "type": "DirectoryOrCreate"}}
    spec["volumes"] = [*spec.get("volumes", ()), export]
    for container in spec["containers"]:
        container["volumeMounts"] = [*container.get("volumeMounts", ()), {"name": name, "mountPath": "/export"}]
    return spec


def environment(content: Content, container: dict[str, Any]) -> dict[str, str]:
    """A container's variables as `podman kube play` resolves them: the prefix of an envFrom is passed over."""
    maps = [yaml.safe_load(text) for one in content["workloads"] for text in one.get("configmaps", ())]
    words = {one["metadata"]["name"]: one["data"] for one in maps}
    secrets = {one["name"]: json.loads(one["data"]) for one in content.get("secrets", ())}
    environ: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if named := source.get("configMapRef"):
            environ |= words[named["name"]]
        else:
            secret = secrets[source["secretRef"]["name"]]
            environ |= {key: base64.b64decode(text).decode() for key, text in secret.items()}
    return environ | {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}


def container_in(spec: dict[str, Any], name: str = "replicator") -> dict[str, Any]:
    (found,) = [one for one in spec["containers"] if one["name"] == name]
    return found
