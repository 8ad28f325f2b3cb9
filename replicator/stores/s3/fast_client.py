"""How requests leave the device through obstore: one attempt, one host, our own trust, deadlines by size of body.

Owns: the clients. Never: the process's AWS settings, which obstore would read; a second host, to which it would
follow redirects with the session token. Proxies are not for these clients: without a direct way there are none.
"""

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from replicator.model import Storage
from replicator.stores.s3.network import DEFAULT_REGION, USER_AGENT, Limits, is_proxied

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

NOWHERE = "127.0.0.1:0"
"""The proxy of all hosts but the endpoint's. Port 0 takes no connection, so a redirect to another host ends here."""

_SMALL_BYTES = 256 * 2**10
_SMALL_S = 60.0
_EVER_S = 365 * 86400.0
"""obstore's own default cuts a request after 30 s."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")

_STEP = 8
"""How much longer a body may be than the one that its client's deadline is made for."""

_ENVIRONMENT = threading.Lock()


@dataclass(frozen=True, slots=True)
class Clients:
    """Connection pools, which differ in how long a request may take."""

    small: S3Store
    """Bodies up to `small_bytes`, and answers without one."""
    large: tuple[tuple[int, S3Store], ...]
    """Longer bodies to be sent: the most bytes of each client, ascending."""
    stream: S3Store
    """Bodies to be received."""
    small_bytes: int

    def sending(self, size: int) -> S3Store:
        """The client that gives up when a body of so many bytes should long have been sent."""
        if size <= self.small_bytes:
            return self.small
        return next((client for most, client in self.large if size <= most), self.large[-1][1])


def clients(storage: Storage, limits: Limits) -> Clients | None:
    """None where obstore cannot do it: behind a proxy, with a certificate or a bucket's name that it does not check.

    Its read timeout begins with the request and so includes the sending: what is small enough to be sent within
    half of it has just that, larger bodies get the time that they need at the least rate on top. A server that takes
    a connection and no bytes is found out by nothing else, so that time has to fit the body.
    """
    if is_proxied(storage.endpoint) or not _BUCKET.fullmatch(storage.bucket):
        return None

    client = functools.partial(_client, storage, limits)
    rate, silence_s = limits.min_rate_bytes_s, limits.read_timeout_s
    sending_s = limits.part_size_bytes / rate if rate else _EVER_S
    small = min(_SMALL_BYTES, int(rate * silence_s / 2)) if rate else _SMALL_BYTES

    def large(most: int) -> S3Store:
        needed_s = most / rate if rate else _EVER_S
        return client(silence_s=silence_s + needed_s, whole_s=_SMALL_S + silence_s + needed_s)

    try:
        return Clients(
            small=client(silence_s=silence_s, whole_s=max(_SMALL_S, 2 * silence_s)),
            large=tuple((most, large(most)) for most in _steps(small, limits.part_size_bytes)),
            # Against a body that drips: the longest that is asked for at once, two parts, at the least rate.
            stream=client(silence_s=silence_s, whole_s=_SMALL_S + 2 * sending_s),
            small_bytes=small,
        )
    except (BaseError, ValueError):
        return None


def _steps(small: int, most: int) -> Iterator[int]:
    """The sizes for which there are clients."""
    while (small := max(1, small) * _STEP) < most:
        yield small
    yield most


def _client(storage: Storage, limits: Limits, *, silence_s: float, whole_s: float) -> S3Store:
    url = urlsplit(storage.endpoint)
    config: S3Config = {
        "endpoint": storage.endpoint,
        "region": storage.region or DEFAULT_REGION,
        "access_key_id": storage.access_key_id.get_secret_value(),
        "secret_access_key": storage.secret_access_key.get_secret_value(),
        "virtual_hosted_style_request": False,
    }
    options: ClientConfig = {
        "allow_http": url.scheme == "http",
        "connect_timeout": timedelta(seconds=limits.connect_timeout_s),
        "read_timeout": timedelta(seconds=silence_s),
        "timeout": timedelta(seconds=whole_s),
        "pool_max_idle_per_host": str(limits.connections),
        "user_agent": USER_AGENT,
        "proxy_url": f"http://{NOWHERE}",
        "proxy_excludes": url.hostname or "",
    }
    if token := storage.session_token.get_secret_value():
        config["session_token"] = token
    if storage.ca_pem:
        options["root_certificate"] = storage.ca_pem
    with _own_settings_only():
        return S3Store(storage.bucket, config=config, client_options=options, retry_config={"max_retries": 0})


@contextlib.contextmanager
def _own_settings_only() -> Iterator[None]:
    """Hide AWS_* from obstore, which takes from the environment what it is not told, and some cannot be unset.

    Only the C library's view changes, for the microseconds that it takes to build a client: `os.environ` stays.
    """
    names = [name for name in os.environ if name.startswith("AWS_")]
    with _ENVIRONMENT:
        for name in names:
            os.unsetenv(name)
        try:
            yield
        finally:
            for name in names:
                os.putenv(name, os.environ[name])
