"""Objects of a small fleet, as they are applied to a cluster."""

import base64
from typing import Any

GROUP = "management.project-flotta.io/v1alpha1"
NAMESPACE = "fleet"
DEVICE = "gateway-7"
SECRET_TEXT = "s3cr3t-0f-the-t3st"

Object = dict[str, Any]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _object(
    kind: str, name: str, *, api_version: str = GROUP, labels: dict[str, str] | None = None, **fields
) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE} | ({"labels": labels} if labels else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def s3(name: str) -> Object:
    """A spec whose storage is external: ConfigMap and Secret of one name."""
    return {"storage": {"s3": {"configMapName": name, "secretName": name}}}


def device(name: str = DEVICE, *, spec: Object | None = None, obc: str = "", member_of: str = "", **labels) -> Object:
    """A device at home, with storage `external` unless told otherwise."""
    labels = {"dc": "home"} | ({"flotta/member-of": member_of} if member_of else {}) | labels
    status: Object = {"status": {"dataObc": obc}} if obc else {}
    return _object("EdgeDevice", name, labels=labels, spec=s3("external") if spec is None else spec, **status)


def device_set(name: str, spec: Object) -> Object:
    return _object("EdgeDeviceSet", name, spec=spec)


def workload(name: str = "os-stats", *, data: Object | None = None, **addressed) -> Object:
    """A workload for all devices at home that sends `stats`, unless told otherwise."""
    data = {"egress": [{"source": "stats", "target": "statistics"}]} if data is None else data
    if not addressed:
        addressed = {"deviceSelector": {"matchLabels": {"dc": "home"}}}
    addressed = {field: value for field, value in addressed.items() if value is not None}
    pod = {"spec": {"containers": [{"name": name, "image": f"example/{name}"}]}}
    return _object("EdgeWorkload", name, spec={"type": "pod", "data": data, "pod": pod, **addressed})


def config_map(name: str = "external", *, bucket: str = "device-bucket-6", **words: str) -> Object:
    words = {"BUCKET_HOST": "play.min.io", "BUCKET_NAME": bucket, "BUCKET_PORT": "443", "BUCKET_REGION": ""} | words
    return _object("ConfigMap", name, api_version="v1", data=words)


def secret(name: str = "external", **words: str) -> Object:
    """Its words in one layer of base64, as they travel."""
    words = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET_TEXT} | words
    return _object("Secret", name, api_version="v1", data={word: b64(text) for word, text in words.items()})


def bucket_words(name: str = "external", bucket: str = "device-bucket-6") -> list[Object]:
    """ConfigMap and Secret of one name."""
    return [config_map(name, bucket=bucket), secret(name)]
