"""The Edge API's message for one device -> its workloads' paths and its bucket's words, and its heartbeat back. Pure.

The words of the bucket come with one layer of base64, as Secrets hold them; the rest of the message is for others and
passes. Errors name fields and never quote values.
Source: Flotta's device-configuration message and the envelope of yggdrasil around it.
"""

import base64
import binascii
import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from replicator.config.manifests import DataSpec
from replicator.config.shapes import Shape
from replicator.config.storage import NO_REGION, Words
from replicator.config.targets import WorkloadPaths
from replicator.errors import ConfigError
from replicator.observe.standing import Report, Stand, to_json

_FIX = "Look at the device's conditions in the cluster; the last good configuration stays in force"


class _S3(Shape):
    bucket_host: str = ""
    bucket_port: int | None = None
    bucket_name: str = ""
    bucket_region: str = ""
    aws_access_key_id: str = Field(default="", repr=False)
    aws_secret_access_key: str = Field(default="", repr=False)
    aws_ca_bundle: str = Field(default="", repr=False)


class _Storage(Shape):
    s3: _S3 | None = None


class _Configuration(Shape):
    storage: _Storage = _Storage()


class _Workload(Shape):
    name: str = Field(min_length=1)
    data: DataSpec = DataSpec()


class _Content(Shape):
    device_id: str = ""
    version: str = ""
    configuration: _Configuration = _Configuration()
    workloads: tuple[_Workload, ...] = ()


class _Command(Shape):
    command: str = ""


@dataclass(frozen=True, slots=True)
class DeviceMessage:
    """What one device has to do."""

    device: str
    version: str
    """Of the EdgeDevice object; grows with it, also when nothing else in the message does."""
    workloads: tuple[WorkloadPaths, ...]
    storage: Words | None
    """None where the device has no bucket (yet)."""


def parse_message(body: bytes, *, where: str) -> DeviceMessage:
    """The message in an answer's body. Raises ConfigError, whatever the bytes are."""
    envelope = _json(body, where)
    content = _Content.of(envelope.get("content"), where=f"{where}: content", fix=_FIX)
    s3 = content.configuration.storage.s3
    return DeviceMessage(
        device=content.device_id,
        version=content.version,
        workloads=tuple(_paths(workload, number, where) for number, workload in enumerate(content.workloads)),
        storage=_words(s3, f"{where}: content.configuration.storage.s3") if s3 else None,
    )


def is_disconnect(body: bytes, *, where: str) -> bool:
    """Whether an answer of the control channel tells the device to go. Raises ConfigError for one that is no answer."""
    if not body.strip():
        return False
    return _Command.of(_json(body, where).get("content") or {}, where=where, fix=_FIX).command == "disconnect"


def heartbeat(report: Report, *, version: str, message_id: str) -> bytes:
    """The heartbeat as Flotta takes it, with our report as its extension `replication`.

    `version` is that of the message in force. Of a workload's containers nothing is known here: one that the device was
    given counts as running. `last_data_upload` is left out before the first upload.
    """
    content = {
        "status": "degraded" if report.state is Stand.BLOCKED else "up",
        "version": version,
        "workloads": [
            {"name": one.workload, "status": "Running"}
            | ({"last_data_upload": _time(one.last_upload_ts)} if one.last_upload_ts is not None else {})
            for one in report.standings
        ],
        "events": [],
        "replication": to_json(report),
    }
    envelope = {"type": "data", "directive": "heartbeat", "message_id": message_id, "version": 1}
    return json.dumps(envelope | {"sent": _time(report.at_ts), "content": content}, allow_nan=False).encode()


def _time(ts: float) -> str:
    """RFC 3339 in UTC, milliseconds."""
    return dt.datetime.fromtimestamp(ts, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(body: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError(where=where, problem="is not JSON", fix=_FIX) from None
    if not isinstance(found, dict):
        raise ConfigError(where=where, problem="is not a message", fix=_FIX)
    return found


def _paths(workload: _Workload, number: int, where: str) -> WorkloadPaths:
    place = f"{where}: content.workloads[{number}] ({workload.name}).data"
    data = workload.data
    return WorkloadPaths(workload.name, data.egress, data.ingress, f"{place}.egress", f"{place}.ingress")


def _words(s3: _S3, where: str) -> Words:
    values = {
        "BUCKET_HOST": s3.bucket_host,
        "BUCKET_PORT": "" if s3.bucket_port is None else str(s3.bucket_port),
        "BUCKET_NAME": s3.bucket_name,
        "BUCKET_REGION": "" if s3.bucket_region == NO_REGION else s3.bucket_region,
        "AWS_ACCESS_KEY_ID": _decoded(s3.aws_access_key_id, f"{where}.aws_access_key_id"),
        "AWS_SECRET_ACCESS_KEY": _decoded(s3.aws_secret_access_key, f"{where}.aws_secret_access_key"),
        "tls.crt": _decoded(s3.aws_ca_bundle, f"{where}.aws_ca_bundle"),
    }
    return Words(config=f"{where} ", secret=f"{where} ", values={word: text for word, text in values.items() if text})


def _decoded(text: str, where: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise ConfigError(where=where, problem="is not base64 of text", fix=_FIX) from None
