"""A request of one body, signed. Pure.

Source: AWS Signature Version 4, "Create a signed AWS API request"; S3's exceptions from it (paths are encoded once).
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from replicator.model import Storage
from replicator.stores.s3.network import DEFAULT_REGION

NOTHING = hashlib.sha256(b"").hexdigest()


def encoded(query: Mapping[str, str]) -> str:
    """A query in canonical form, which is also the form to send."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(query.items()))


def signed(
    storage: Storage,
    method: str,
    *,
    path: str,
    query: str,
    now: datetime,
    body_sha256: str = NOTHING,
    more: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The headers of `method path?query` at the storage's endpoint, both encoded already; `now` is UTC.

    `more` are other headers that are sent with it, names in lower case.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{storage.region or DEFAULT_REGION}/s3/aws4_request"
    headers = {"host": urlsplit(storage.endpoint).netloc, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
    if token := storage.session_token.get_secret_value():
        headers["x-amz-security-token"] = token
    headers = dict(sorted((headers | dict(more)).items()))
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{body_sha256}"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + storage.secret_access_key.get_secret_value().encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{storage.access_key_id.get_secret_value()}/{scope}"
    return headers | {
        "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    }
