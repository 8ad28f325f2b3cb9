"""The fast reading of a listing says what botocore's own says, or nothing."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.stores.s3 import listing
from replicator.stores.s3 import session as s3_session
from replicator.stores.s3.answers import page_of
from replicator.stores.s3.listing import read_listing
from replicator.stores.s3.table import AnswerUnusable

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
END = "<IsTruncated>false</IsTruncated>"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>{etag}</ETag><Size>7</Size>"
    "<StorageClass>STANDARD</StorageClass><Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner></Contents>"
)


def hook(body: bytes) -> tuple[dict[str, Any], bytes]:
    """What the hook adds to the parsed answer, and the body it leaves to botocore."""
    response, added = {"body": body}, dict[str, Any]()
    read_listing(response_dict=response, customized_response_dict=added, operation_model=None)
    return added, response["body"]


@pytest.mark.slow
def test_both_readings_agree(stub_s3, open_store, reply, monkeypatch):
    """Namespaces, blanks, elements we do not need and escaped text make no difference between the two."""
    fast = open_store(stub_s3.storage())
    monkeypatch.setattr(s3_session, "_read_listings_fast", lambda session: None)
    monkeypatch.setattr(s3_session, "_session", s3_session._session.__wrapped__)
    slow = open_store(stub_s3.storage())

    for body in (
        f"<ListBucketResult {SPACE}>{END}</ListBucketResult>",
        f"<ListBucketResult {SPACE}>{END}{ENTRY}</ListBucketResult>",
        f"<ListBucketResult>{END}{ENTRY}{ENTRY.replace('{key}', '{key}2')}</ListBucketResult>",
        f"<ListBucketResult {SPACE}>\n {END}\n <EncodingType>url</EncodingType>\n {ENTRY}\n</ListBucketResult>\n",
        f"<s:ListBucketResult {SPACE.replace('=', ':s=')}><s:IsTruncated>false</s:IsTruncated></s:ListBucketResult>",
    ):
        text = body.replace("{key}", "a&amp;b%20c+d").replace("{etag}", "&quot;e&quot;").encode()
        stub_s3.default = reply(200, {"Content-Type": "application/xml"}, text)
        assert hook(text)[0]
        assert list(fast.list("")) == list(slow.list(""))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<Error><Code>InternalError</Code></Error>",
        "<html/>",
        "<ListBucketResult>",
        "<ListBucketResult/>",
        "<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
        f"<ListBucketResult>{END}<Contents><Key>a</Key></Contents></ListBucketResult>",
        f"<ListBucketResult>{END}{ENTRY.replace('<Size>7', '<Size>seven')}</ListBucketResult>",
    ],
)
def test_anything_else_is_left_alone(body):
    """What is not a plain listing goes on to botocore as it came."""
    assert hook(body.encode()) == ({}, body.encode())


HEAD = f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {SPACE}><EncodingType>url</EncodingType>{END}'
USUAL = {
    "aws": "<ETag>&quot;0f&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
    "<ChecksumType>FULL_OBJECT</ChecksumType><Size>7</Size><StorageClass>STANDARD</StorageClass>",
    "minio": "<ETag>&#34;0f-2&#34;</ETag><Size>7</Size><Owner><ID>1 x</ID><DisplayName>m</DisplayName></Owner>"
    "<StorageClass>STANDARD</StorageClass>",
    "rgw": '<ETag>"0f"</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass><Owner><ID>u</ID><DisplayName>'
    "</DisplayName></Owner><Type>Normal</Type>",
    "bare": "<ETag>&quot;opaque/+==&quot;</ETag><Size>123456789012345</Size>",
}


def entry(fields: str = USUAL["aws"], *, key: str = "a", moment: str = "2026-01-02T03:04:05.678Z") -> str:
    return f"<Contents><Key>{key}</Key><LastModified>{moment}</LastModified>{fields}</Contents>"


def by_parser(body: bytes) -> dict[str, Any] | None:
    """What the parser alone says."""
    try:
        return listing._parsed(body)
    except (ET.ParseError, LookupError, TypeError, ValueError):
        return None


@pytest.mark.parametrize("fields", USUAL.values(), ids=USUAL)
def test_usual_form_is_read_by_the_pattern(fields, monkeypatch):
    """The forms of the stores at hand take the short way, and it says what the parser says."""
    body = (HEAD + entry(fields, key="a%20b") + entry(fields, key="c d+~'") + "</ListBucketResult>").encode()

    expected = by_parser(body)
    monkeypatch.delattr(listing, "_parsed")

    found = listing.listing_of(body)

    assert found == expected
    assert found is not None
    assert len(found["Entries"]) == 2


RUN = entry(key="a") + entry(key="b")


@pytest.mark.parametrize(
    "body",
    [
        HEAD + f"<!-- {RUN} --></ListBucketResult>",
        HEAD + f"<![CDATA[{RUN}]]></ListBucketResult>",
        HEAD + f"<?x {RUN}?></ListBucketResult>",
        HEAD + f"<More>{RUN}</More></ListBucketResult>",
        HEAD + f"{entry()}<!-- {entry()} -->{entry(key='b')}</ListBucketResult>",
        HEAD + f"{entry()}<Contents><Size>1</Size></Contents></ListBucketResult>",
        HEAD + f"{entry()}\n{entry(key='b')}</ListBucketResult>",
        HEAD + f"{entry()}<Prefix>p</Prefix>{entry(key='b')}</ListBucketResult>",
        HEAD + f"{RUN}<Contents xmlns='urn:x'/></ListBucketResult>",
        HEAD + f"{RUN}<Contents/></ListBucketResult>",
        HEAD + f"{RUN}</Contents></ListBucketResult>",
        HEAD + f"<Contents>{RUN}</ListBucketResult>",
        HEAD + RUN,
        HEAD + f"{entry(USUAL['aws'].replace('<Size>7', '<Size>7</Size><Size>8'))}</ListBucketResult>",
        HEAD + f"{entry(key='a&amp;b')}</ListBucketResult>",
        HEAD + entry(key="caf\u00e9") + "</ListBucketResult>",
        HEAD + entry(key="a\x01b") + "</ListBucketResult>",
        HEAD + f"{entry(key='')}</ListBucketResult>",
        HEAD + f"{entry(moment='2026-13-02T03:04:05Z')}</ListBucketResult>",
        HEAD + f"<!-- {entry(moment='2026-13-02T03:04:05Z')} --></ListBucketResult>",
        HEAD + f"{entry(moment='2026-01-02T03:04:05')}</ListBucketResult>",
        HEAD + f"{entry('<Size>7</Size>')}</ListBucketResult>",
        HEAD + f"{entry('<ETag>0f</ETag><Size>7</Size>')}</ListBucketResult>",
        HEAD.replace("UTF-8", "ISO-8859-1") + entry(key="caf\u00e9") + "</ListBucketResult>",
        HEAD.replace("<?xml", f'<!DOCTYPE x [<!ENTITY e "{entry(key="e")}">]><?xml'),
        f'<!DOCTYPE x [<!ENTITY e "{entry(key="e")}">]><ListBucketResult>{END}&e;&e;</ListBucketResult>',
        f"<ListBucketResult {SPACE} xmlns:o='urn:x'>{END}<o:Contents/>{RUN}</ListBucketResult>",
        f"<s:ListBucketResult xmlns:s='urn:x'><s:IsTruncated>false</s:IsTruncated>{RUN}</s:ListBucketResult>",
        f"<html>{RUN}</html>",
        f"<Error>{RUN}</Error>",
        RUN,
    ],
)
def test_both_ways_say_the_same(body):
    """Whatever stands in, around or between the objects, the pattern changes nothing of what is read."""
    assert listing.listing_of(body.encode()) == by_parser(body.encode())


PIECES = (
    "<Contents>",
    "</Contents>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<Key>",
    "</Key>",
    "<Size>",
    "</Size>",
    "&amp;",
)


@given(
    pieces=st.lists(st.sampled_from([entry(), RUN, *PIECES, "<x>", "</x>", "<x/>", "7", " ", '"', "\n"]), max_size=7),
    at=st.sampled_from([match.start() for match in re.finditer("<|$", HEAD + RUN + "</ListBucketResult>")]),
    cut=st.sampled_from([0, 0, 1, 10, 60]),
)
def test_no_document_is_read_in_two_ways(pieces, at, cut):
    """Pieces of a listing anywhere in it, and a part of it missing."""
    whole = HEAD + RUN + "</ListBucketResult>"
    body = (whole[:at] + "".join(pieces) + whole[at + cut :]).encode()

    assert listing.listing_of(body) == by_parser(body)


def test_order_of_keys_is_that_of_their_bytes():
    """Text compares as its bytes do, but for bytes that are no UTF-8: those stand where S3 puts them."""
    texts = sorted(
        ["a", "a/b", "\u00e9", "\uffff", "\U0001f600", "\udcff", "\udc80x"],
        key=lambda text: text.encode("utf-8", "surrogateescape"),
    )
    entries = [(text, 1, "e", 0) for text in texts]
    answer = {"IsTruncated": False, "Entries": entries}

    page = page_of(answer, prefix="", after="")

    assert [one.key for one in page.objects] == texts
    for first in range(len(texts) - 1):
        answer["Entries"] = [(text, 1, "e", 0) for text in (texts[first + 1], texts[first])]
        with pytest.raises(AnswerUnusable):
            page_of(answer, prefix="", after="")
        with pytest.raises(AnswerUnusable):
            page_of({**answer, "Entries": [entries[first]]}, prefix="", after=texts[first + 1])


def test_object_without_an_etag_is_an_error():
    """Without an ETag nothing proves that an S3 store answered."""
    with pytest.raises(AnswerUnusable, match="ETag"):
        page_of({"IsTruncated": False, "Entries": [("a", 1, "", 0)]}, prefix="", after="")
