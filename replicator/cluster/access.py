"""Where the API server is, and who we are there.

Owns: the order KUBECONFIG, service account, ~/.kube/config; credentials that change on disk while we run.
Never: exec plugins (they run foreign programs), unverified TLS, a token over plain HTTP to another machine.
Source: Kubernetes, "Organizing Cluster Access Using kubeconfig Files" and "Accessing the API from a Pod".
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import SecretStr

from replicator.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a kubelet puts what a Pod may show: token, ca.crt, namespace."""

_MAX_BYTES = 1024 * 1024
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate or key: PEM text, or the file that holds it and may be replaced."""

    text: str = field(default="", repr=False)
    path: Path | None = None

    def read(self) -> str:
        return _read(self.path) if self.path else self.text


@dataclass(frozen=True)
class Access:
    """One API server and our credentials there. Files are read again when they change."""

    server: str
    namespace: str = "default"
    authority: Pem | None = None
    """Without one: the system's."""
    fixed_token: SecretStr = field(default_factory=lambda: SecretStr(""))
    token_file: Path | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    _made: dict[tuple[str, ...], ssl.SSLContext] = field(default_factory=dict, repr=False, compare=False)

    def token(self) -> SecretStr:
        """The bearer token of now: a kubelet replaces the file well before the old one expires. '' = none."""
        return SecretStr(_read(self.token_file).strip()) if self.token_file else self.fixed_token

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context of now; None for plain HTTP. Raises ConfigError when a file is not what it should be."""
        if urlsplit(self.server).scheme != "https":
            return None
        words = tuple(pem.read() if pem else "" for pem in (self.authority, self.certificate, self.key))
        if words not in self._made:
            self._made.clear()
            self._made[words] = _context(self.server, *words)
        return self._made[words]


def find(environ: Mapping[str, str] = os.environ, *, service_account: Path = SERVICE_ACCOUNT) -> Access:
    """The access of this environment. Raises ConfigError when there is none, or it cannot be used."""
    if named := environ.get("KUBECONFIG"):
        return from_kubeconfig(Path(named))
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host and (service_account / "token").is_file():
        namespace = service_account / "namespace"
        return _checked(
            Access(
                server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
                namespace=_read(namespace).strip() if namespace.is_file() else "default",
                authority=Pem(path=service_account / "ca.crt"),
                token_file=service_account / "token",
            )
        )
    usual = Path(environ.get("HOME", "/")) / ".kube" / "config"
    if usual.is_file():
        return from_kubeconfig(usual)
    problem = "no API server is known: there is no KUBECONFIG, no service account and no ~/.kube/config"
    fix = "Run it in a Pod with a service account, or set KUBECONFIG to a kubeconfig file"
    raise ConfigError(where="Kubernetes", problem=problem, fix=fix)


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig file."""
    if os.pathsep in str(path):
        raise _refused(path, "names several files", "Merge them: kubectl config view --flatten > FILE")
    try:
        words = yaml.safe_load(_read(path))
    except yaml.YAMLError:
        raise _refused(path, "is not valid YAML", "Correct the file") from None
    if not isinstance(words, dict):
        raise _refused(path, "is no kubeconfig", "Correct the file")
    context = _named(words, "contexts", "context", words.get("current-context"), path)
    cluster = _named(words, "clusters", "cluster", context.get("cluster"), path)
    user = _named(words, "users", "user", context.get("user"), path) if context.get("user") else {}
    if cluster.get("insecure-skip-tls-verify"):
        raise _refused(
            path, "asks for unverified TLS", "Give certificate-authority instead of insecure-skip-tls-verify"
        )
    for kind in ("exec", "auth-provider", "username"):
        if kind in user:
            fix = "Use a token, a tokenFile or a client certificate, such as those of a service account"
            raise _refused(path, f"logs in by `{kind}`, which is not supported", fix)
    return _checked(
        Access(
            server=str(cluster.get("server", "")).rstrip("/"),
            namespace=str(context.get("namespace") or "default"),
            authority=_pem(cluster, "certificate-authority", path),
            fixed_token=SecretStr(str(user.get("token") or "")),
            token_file=path.parent / str(user["tokenFile"]) if user.get("tokenFile") else None,
            certificate=_pem(user, "client-certificate", path),
            key=_pem(user, "client-key", path),
        )
    )


def _named(words: dict[str, Any], section: str, field_: str, name: Any, path: Path) -> dict[str, Any]:
    for entry in words.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(field_), dict):
            found: dict[str, Any] = entry[field_]
            return found
    raise _refused(path, f"has no {field_} called {name!r}", "Choose one with: kubectl config use-context")


def _pem(words: dict[str, Any], name: str, path: Path) -> Pem | None:
    """`name`-data, else the file `name`, relative to the kubeconfig; None when neither is there."""
    if encoded := words.get(f"{name}-data"):
        try:
            return Pem(text=base64.b64decode(str(encoded), validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            raise _refused(path, f"has a {name}-data that is not base64 of PEM", "Correct the file") from None
    return Pem(path=path.parent / str(words[name])) if words.get(name) else None


def _checked(access: Access) -> Access:
    """Refuse an address that cannot be used, and credentials that would travel in the open."""
    parts = urlsplit(access.server)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username:
        raise ConfigError(
            where="Kubernetes", problem="the API server's address is no URL", fix="Give https://HOST:PORT as `server`"
        )
    has_token = bool(access.token_file or access.fixed_token.get_secret_value())
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and has_token:
        problem = f"the token would travel unencrypted to {parts.hostname}"
        raise ConfigError(where="Kubernetes", problem=problem, fix="Give the API server's https address")
    access.tls()
    return access


def _context(server: str, authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """A context that trusts `authority` (PEM; '' = the system) and shows `certificate`, if there is one."""
    try:
        context = ssl.create_default_context(cadata=authority or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # refuses many clusters' authorities since Python 3.13
        if certificate:
            _show(context, certificate + "\n" + key)
    except (OSError, ValueError):  # the TLS library's faults among them, which may quote what they read
        fix = "Check that authority, certificate and key are PEM and belong together"
        raise ConfigError(where=server, problem="its certificates cannot be used", fix=fix) from None
    return context


def _show(context: ssl.SSLContext, chain: str) -> None:
    """The TLS library takes a key from a file only: one in memory, which no disk ever holds."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, chain.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _refused(path, f"is larger than {_MAX_BYTES} bytes", "Check that this is the file you meant")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8 text", "Check that this is the file you meant") from None
    except OSError as exc:
        raise _refused(path, f"cannot be read: {exc.strerror}", "Check the path and the permissions") from None


def _refused(path: Path, problem: str, fix: str) -> ConfigError:
    return ConfigError(where=str(path), problem=problem, fix=fix)
