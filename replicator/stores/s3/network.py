"""What every request to a store has in common, whichever library sends it: trust, name, and the proxies' say.

Only HTTPS_PROXY, HTTP_PROXY and NO_PROXY are taken from the environment, since gateways need them.
"""

import functools
import importlib.metadata
import ssl
import urllib.request
from urllib.parse import urlsplit

ANSWER_LIMIT_BYTES = 4 * 2**20
"""Above the longest honest answer: a page of 1,000 keys of 1,024 bytes, each byte percent-encoded."""

DEFAULT_REGION = "us-east-1"


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


@functools.cache
def user_agent() -> str:
    try:
        return f"replicator/{importlib.metadata.version('replicator')}"
    except importlib.metadata.PackageNotFoundError:
        return "replicator/0"
