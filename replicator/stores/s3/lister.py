"""Listings over a plain HTTP connection.

A library that gives only parsed paths cannot be trusted with them: it takes a page of any other kind for an empty
listing, a cut one for the last, and `a/` for `a`.
Owns: ListObjectsV2 of one bucket. Never: a connection that outlives its listing.
Source: S3 API, ListObjectsV2.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from replicator.model import RemoteObject
from replicator.stores.s3.answers import Page, page_of
from replicator.stores.s3.direct import Asked, Direct, Link
from replicator.stores.s3.listing import listing_of
from replicator.stores.s3.table import AnswerUnusable

_OPERATION = "list_objects_v2"


class Lister:
    """Lists one bucket; safe from any thread."""

    def __init__(self, direct: Direct, *, page_keys: int) -> None:
        self._direct = direct
        self._page_keys = page_keys

    def probe(self) -> None:
        with closing(self._direct.link()) as link:
            _page(link, {"max-keys": "1"}, prefix="", after="")

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        last, token = "", ""
        tokens: set[str] = set()
        with closing(self._direct.link()) as link:
            while token not in tokens:
                tokens.add(token)
                query = {"encoding-type": "url", "max-keys": str(self._page_keys), "prefix": prefix}
                if token:
                    query["continuation-token"] = token
                page = _page(link, query, prefix=prefix, after=last)
                if page.objects:
                    last = page.objects[-1].key
                    yield page.objects
                token = page.token
                if not token:
                    return
            raise link.error(Asked(_OPERATION), AnswerUnusable("the listing is not trustworthy: it goes in circles"))


def _page(link: Link, query: Mapping[str, str], *, prefix: str, after: str) -> Page:
    def read(_: object, body: bytes) -> Page:
        listing = listing_of(body)
        if listing is None:
            raise AnswerUnusable("the answer is no listing")
        return page_of(listing, prefix=prefix, after=after)

    return link.ask(Asked(_OPERATION, query={"list-type": "2", **query}), read)
