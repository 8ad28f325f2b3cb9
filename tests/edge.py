"""What tests of the Edge API server share: certificates, a fleet in a fake cluster, and a device that asks."""

import asyncio
import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.certificates import Certificate, issue

SECRET = "s3cr3t-0f-the-t3st"
BASE = "/api/flotta-management/v1"
FLOTTA = "management.project-flotta.io/v1alpha1"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def made(kind: str, name: str, *, version=FLOTTA, namespace="fleet", labels=None, **more) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | more


def device(name="gateway-7", *, obc="", s3=None, **more) -> dict[str, Any]:
    words = {"configMapName": "words", "secretName": "keys"} if s3 is None else s3
    status = {"dataObc": obc} if obc else {}
    return made("EdgeDevice", name, **({"spec": {"storage": {"s3": words}}, "status": status} | more))


def workload(name="os-stats", *, container=None, **spec) -> dict[str, Any]:
    one = {"name": "stats", "image": "quay.io/jdzon/os-stats:v1"} | (container or {})
    data = {"egress": [{"source": "stats", "target": "statistics"}]}
    words = {"type": "pod", "deviceSelector": {}, "data": data, "pod": {"spec": {"containers": [one]}}} | spec
    return made("EdgeWorkload", name, spec={field: value for field, value in words.items() if value is not None})


def config_map(name="words", *, labels=None, **words) -> dict[str, Any]:
    values = {"BUCKET_NAME": "b", "BUCKET_HOST": "play.min.io", "BUCKET_PORT": "443", "BUCKET_REGION": "us-east-1"}
    return made("ConfigMap", name, version="v1", labels=labels, data=values | words)


def secret(name="keys", *, labels=None, namespace="fleet", **words) -> dict[str, Any]:
    values = {"AWS_ACCESS_KEY_ID": b64("ydayagi1369"), "AWS_SECRET_ACCESS_KEY": b64(SECRET)}
    return made("Secret", name, version="v1", labels=labels, namespace=namespace, data=values | words)


@dataclass(frozen=True)
class Pki:
    """An authority, and the files that the server reads."""

    directory: Path
    authority: Certificate

    @classmethod
    def at(cls, directory: Path) -> "Pki":
        directory.mkdir(exist_ok=True)
        pki = cls(directory, issue("authority", is_authority=True))
        pki.serve(issue("edge", by=pki.authority), pki.authority)
        return pki

    def serve(self, server: Certificate, authority: Certificate) -> None:
        """Write what the server presents, and whom it believes."""
        (self.directory / "tls.crt").write_text(server.pem)
        (self.directory / "tls.key").write_text(server.key_pem)
        (self.directory / "ca.crt").write_text(authority.pem)

    def settings(self) -> dict[str, Any]:
        names = {"edge_cert": "tls.crt", "edge_key": "tls.key", "edge_ca": "ca.crt"}
        return {setting: self.directory / name for setting, name in names.items()}

    def trust(self) -> ssl.SSLContext:
        """What a client trusts: the authority, which like many private ones is not as strict as Python since 3.13."""
        context = ssl.create_default_context(cadata=self.authority.pem)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def device(self, name="gateway-7", *, by: Certificate | None = None, unit="fleet", **more) -> "Device":
        one = issue(name, by=by or self.authority, unit=unit, **more)
        stem = f"{name}-{one.certificate.serial_number}"
        (self.directory / f"{stem}.crt").write_text(one.pem)
        (self.directory / f"{stem}.key").write_text(one.key_pem)
        context = self.trust()
        context.load_cert_chain(self.directory / f"{stem}.crt", self.directory / f"{stem}.key")
        return Device(name.lower(), context)


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> Any:
        return json.loads(self.body)["content"]


@dataclass
class Device:
    """Asks over TLS, on one connection."""

    name: str
    context: ssl.SSLContext
    port: int = 0
    _connection: http.client.HTTPSConnection | None = None

    def ask(self, channel="data", *, name="", way="in", body: Any = None, raw: bytes | None = None, **headers) -> Said:
        """GET, or POST with a body. Raises OSError when the server refuses the certificate."""
        self._connection = self._connection or http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=20, context=self.context
        )
        text = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        method = "POST" if way == "out" else "GET"
        self._connection.request(method, f"{BASE}/{channel}/{name or self.name}/{way}", body=text, headers=named)
        reply = self._connection.getresponse()
        return Said(reply.status, reply.read(), {key.lower(): value for key, value in reply.getheaders()})

    def tell(self, content: Any, directive="heartbeat") -> Said:
        return self.ask(way="out", body={"type": "data", "directive": directive, "content": content})

    def hang_up(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


async def asked_until(one: Device, condition: Callable[[Said], bool], *, within_s: float = 10, **words) -> Said:
    """Ask until the answer fits."""
    deadline = time.monotonic() + within_s
    while True:
        said = await asyncio.to_thread(one.ask, **words)
        if condition(said):
            return said
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.01)
