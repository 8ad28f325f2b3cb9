"""Who a device is: TLS with certificates of one authority, and the name and namespace in the device's own.

Owns: the TLS context and what of a certificate counts. Never: issuing or renewing certificates; that is Flotta's.
The handshake refuses certificates that are missing, of another authority, or out of date; because a connection may
outlast its certificate, the date is looked at again with each request.
Source: Flotta's mTLS rules: the device is the common name, its namespace the first organizational unit.
"""

import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator.errors import ConfigError

DEFAULT_NAMESPACE = "default"
REGISTRANT = "register"
"""The common name of devices that have no certificate of their own yet."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a certificate names."""

    namespace: str
    name: str
    """In lower case, as names in the cluster are."""
    expires_ts: float

    @classmethod
    def of(cls, certificate: Mapping[str, Any]) -> "Peer | None":
        """From a verified certificate, in the form of `ssl.SSLSocket.getpeercert`; None when it names nobody."""
        words: dict[str, list[str]] = {}
        for part in certificate.get("subject", ()):
            for name, value in part:
                words.setdefault(name, []).append(value)
        names = words.get("commonName", [])
        if len(names) != 1 or not names[0]:  # of several, others take the last: nobody may be two
            return None
        (namespace, *_) = words.get("organizationalUnitName", [DEFAULT_NAMESPACE])
        return cls(namespace, names[0].lower(), _time(certificate["notAfter"]))


@functools.lru_cache(maxsize=10_000)
def _time(text: str) -> float:
    """Asked for with each request, and slow to read."""
    return ssl.cert_time_to_seconds(text)


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files of the server's certificate and key, and of the authority of devices."""

    certificate: Path
    key: Path
    authority: Path
    oldest: str = "1.3"
    """Version of TLS."""

    @property
    def all(self) -> list[Path]:
        return [self.certificate, self.key, self.authority]

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError when a file is missing or is not what it should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.oldest]
        context.verify_mode = ssl.CERT_REQUIRED
        where = self.authority
        try:
            context.load_verify_locations(self.authority)
            where = self.certificate
            context.load_cert_chain(self.certificate, self.key)
        except OSError as exc:  # the TLS library's faults among them
            fix = "Check that certificate, key and authority are PEM files that belong together"
            raise ConfigError(where=str(where), problem=f"cannot be used: {exc.strerror or exc}", fix=fix) from None
        return context
