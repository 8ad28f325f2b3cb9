"""What every request to a store has in common, whichever library sends it: trust, name, and the proxies' say.

Only HTTPS_PROXY, HTTP_PROXY and NO_PROXY are taken from the environment, since gateways need them.
"""

import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from replicator import __version__

USER_AGENT = f"replicator/{__version__}"

ANSWER_LIMIT_BYTES = 4 * 2**20
"""Above the longest honest answer: a page of 1,000 keys of 1,024 bytes, each byte percent-encoded."""

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store may take of the network, and of time."""

    connections: int
    """Open at a time, through s3fs; idle at a time, through obstore, whose callers' threads bound those in use."""
    connect_timeout_s: float
    """For TCP and TLS."""
    read_timeout_s: float
    """For each silence of the server."""
    min_rate_bytes_s: float
    """Below it sending a body is given up, where silence cannot be seen; 0 sets no bound."""
    part_size_bytes: int
    """The longest body that is sent at once."""


def declares_entities(answer: bytes) -> bool:
    """Whether an answer may grow while it is parsed. No store declares a document type; a NUL would hide one in UTF-16.

    expat bounds the growth, but only from 8 MiB on and in relation to the answer: that is 100 MiB and more.
    """
    return b"\0" in answer or (b"<!" in answer and (b"<!DOCTYPE" in answer or b"<!ENTITY" in answer))


def trust(ca_pem: str) -> ssl.SSLContext:
    """The system's authorities and those of `ca_pem`, names checked, TLS 1.2 or newer.

    Any certificate of `ca_pem` is an anchor, an intermediate or the endpoint's own too: claims hand out all three.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The same on every Python: 3.13 turns both flags on by itself, and strict refuses many private authorities.
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    return context


def is_proxied(endpoint: str) -> bool:
    """Whether the environment puts a proxy between us and the endpoint."""
    url = urlsplit(endpoint)
    return bool(urllib.request.getproxies().get(url.scheme)) and not urllib.request.proxy_bypass(url.netloc)
