"""A listing's XML read in one pass: an ingress poll is mostly this, every 15 s.

botocore looks up every element by name and type, twice, which takes three times as long. What is not a plain listing
is told from one: errors, other documents, XML that is cut. The result has botocore's shape, and both are read alike.
Source: S3 API, ListObjectsV2, response syntax.
"""

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

_ROOT = "ListBucketResult"


def read_listing(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """A `before-parse` hook: take a listing's content over and leave botocore an empty one."""
    listing = listing_of(response_dict["body"])
    if listing is not None:
        customized_response_dict.update(listing)
        response_dict["body"] = f"<{_ROOT}/>".encode()


def listing_of(body: bytes) -> dict[str, Any] | None:
    """What `body` says; None when it is no plain listing."""
    try:
        # expat bounds what entities may grow to, and the length of the answer is bounded already.
        root = ET.fromstring(body)  # noqa: S314
        return _listing(root, namespace=root.tag.removesuffix(_ROOT))
    except (ET.ParseError, LookupError, TypeError, ValueError):
        return None


def _listing(root: ET.Element, namespace: str) -> dict[str, Any]:
    key, size, etag, modified = (namespace + name for name in ("Key", "Size", "ETag", "LastModified"))
    listing: dict[str, Any] = {
        "IsTruncated": {"true": True, "false": False}[root.findtext(namespace + "IsTruncated", "")]
    }
    for name in ("EncodingType", "NextContinuationToken"):
        if text := root.findtext(namespace + name):
            listing[name] = text
    entries = []
    for node in root.iterfind(namespace + "Contents"):
        fields = {child.tag: child.text or "" for child in node}
        entries.append(
            {
                "Key": fields[key],
                "Size": int(fields[size]),
                "ETag": fields[etag],
                "LastModified": _time(fields[modified]),
            }
        )
    listing["Contents"] = entries
    return listing


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
