"""Which bucket: the precedence rule as one function, and the words of a bucket checked one by one.

The in-cluster claim comes before external storage, and nothing falls back in silence: a claim that is there but
incomplete is an error. Pure: reads no file, no environment, no network.
Source: the keys that lib-bucket-provisioner (NooBaa, Rook) writes; Flotta's storage precedence.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import SecretStr

from replicator.errors import ConfigError
from replicator.model import Storage

CONFIG_WORDS = ("BUCKET_HOST", "BUCKET_NAME", "BUCKET_PORT", "BUCKET_REGION")
SECRET_WORDS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "tls.crt")
BUCKET_WORDS = CONFIG_WORDS + SECRET_WORDS

Scheme = Literal["https", "http"]

_DEFAULT_PORTS = {"https": 443, "http": 80}
NO_REGION = "ignore"
"""What Flotta says where a store has no regions; in a ConfigMap it means the same as an empty one."""
_DEFAULT_REGION = "us-east-1"
"""Claims often leave the region empty; a signature needs one, and stores without regions accept this."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""What botocore accepts as a bucket name."""
_REGION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A last label that is a number would make it an address to the C library: '127.1', '0x7f000001'.
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*(?!(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$){_LABEL}\.?")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Words:
    """The bucket words of one place, as found. A word that is not there is not in `values`."""

    config: str
    """What stands before a configuration word when it is named to people: 'ConfigMap ns/name: '."""
    secret: str
    values: Mapping[str, str] = field(repr=False)

    def name(self, word: str) -> str:
        return (self.config if word in CONFIG_WORDS else self.secret) + word

    def get(self, word: str) -> str:
        return self.values.get(word, "").strip()

    def need(self, word: str) -> str:
        value = self.get(word)
        if not value:
            state = "is empty" if word in self.values else "is missing"
            raise ConfigError(where=self.name(word), problem=state, fix=f"Set {word}; every bucket needs it")
        return value


def choose(
    *,
    claim: Callable[[], Words | None],
    external: Callable[[], Words | None],
    scheme: Scheme,
    looked_at: Sequence[str],
) -> Storage:
    """The bucket in force: the in-cluster claim if there is one, else external storage, else a ConfigError.

    The callables answer None for 'not there' and raise ConfigError for 'there, but incomplete'; the second is asked
    only when the first answers None. `looked_at` names all places, for the error.
    """
    for role, find in (("in-cluster claim", claim), ("external storage", external)):
        words = find()
        if words is not None:
            return storage_of(words, role=role, scheme=scheme)
    fix = f"Looked at: {'; '.join(looked_at)}. Configure one of them"
    raise ConfigError(where="storage", problem="no bucket is configured", fix=fix)


def storage_of(words: Words, *, role: str, scheme: Scheme) -> Storage:
    """The bucket that the words describe; `role` names for people what they are. Raises ConfigError."""
    host, port = _host(words), _port(words)
    bucket, region = words.need("BUCKET_NAME"), words.get("BUCKET_REGION")
    region = _DEFAULT_REGION if region in ("", NO_REGION) else region
    if not _BUCKET.fullmatch(bucket) or set(bucket) <= {"."}:
        fix = "Use the bare name: letters, digits, '.', '-' and '_'"
        raise ConfigError(where=words.name("BUCKET_NAME"), problem="is not a bucket name", fix=fix)
    if not _REGION.fullmatch(region):
        fix = "Use a name such as us-east-1, or leave it empty"
        raise ConfigError(where=words.name("BUCKET_REGION"), problem="is not a region name", fix=fix)
    origin = f"{role} ({words.name('BUCKET_NAME')})"
    if scheme == "https" and port == _DEFAULT_PORTS["http"]:
        origin += ", https on port 80: if the endpoint has no TLS, set REPLICATOR_S3_SCHEME=http"
    return Storage(
        endpoint=f"{scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"),
        bucket=bucket,
        region=region,
        access_key_id=_key(words, "AWS_ACCESS_KEY_ID", words.need("AWS_ACCESS_KEY_ID")),
        secret_access_key=_key(words, "AWS_SECRET_ACCESS_KEY", words.need("AWS_SECRET_ACCESS_KEY")),
        session_token=_key(words, "AWS_SESSION_TOKEN", words.get("AWS_SESSION_TOKEN")),
        ca_pem=_ca_pem(words),
        origin=origin,
    )


def _host(words: Words) -> str:
    text = words.need("BUCKET_HOST")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text
    try:
        address = ipaddress.ip_address("" if "%" in bare else bare)
    except ValueError:
        if _DNS_NAME.fullmatch(text):
            return text
        fix = "Write the bare DNS name or IP address, without scheme, port, path or blanks; the port is BUCKET_PORT"
        raise ConfigError(where=words.name("BUCKET_HOST"), problem="is not a host name", fix=fix) from None
    meant = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    if meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        # 169.254.169.254 is where clouds keep their machine credentials.
        problem = "is a link-local, multicast or unspecified address"
        raise ConfigError(where=words.name("BUCKET_HOST"), problem=problem, fix="Use the endpoint's own address")
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def _port(words: Words) -> int | None:
    text = words.get("BUCKET_PORT")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        fix = "Use a number from 1 to 65535, or leave it empty for the scheme's own port"
        raise ConfigError(where=words.name("BUCKET_PORT"), problem="is not a port number", fix=fix)
    return int(text)


def _key(words: Words, word: str, value: str) -> SecretStr:
    if not value.isascii() or not value.isprintable() or " " in value:
        fix = "Copy the key again; it is one word of printable ASCII"
        raise ConfigError(where=words.name(word), problem="holds blanks or characters no key has", fix=fix)
    return SecretStr(value)


def _ca_pem(words: Words) -> str:
    text = words.get("tls.crt")
    if not text:
        return ""
    # Only the certificates: a bundle may carry a private key, which must not travel further.
    pem = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        fix = "Put the PEM of the CA that signed the endpoint's certificate there, or leave it out"
        raise ConfigError(where=words.name("tls.crt"), problem="is not a PEM certificate", fix=fix) from None
    return pem + "\n"
