"""What the doctor says of an endpoint: its clock, certificate, answers, and what the credentials allow."""

import time
from email.utils import formatdate

import pytest

from replicator.doctor import endpoint
from replicator.doctor.findings import Verdict, carry_out
from replicator.engine import limits_of
from replicator.errors import AccessDenied, ObjectMissing, Unavailable
from replicator.model import RemoteObject
from replicator.stores.s3 import reach


class FakeStore:
    """Answers as it is told, and remembers what it was asked; `errors` by the name of the call."""

    def __init__(self, *, keys=(), streams=True, is_checking=True, **errors):
        self.asked = []
        self.streams = streams
        self._keys = keys
        self._is_checking = is_checking
        self._errors = errors

    def _note(self, *call):
        self.asked.append(call)
        if error := self._errors.get(call[0]):
            raise error

    def head(self, key):
        self._note("head", key)
        raise ObjectMissing("no")

    def list(self, prefix):
        self._note("list", prefix)
        if self._keys:
            yield [RemoteObject(key, 1, "e", 0) for key in self._keys]

    def create_upload(self, key, *, metadata):
        self._note("create", key)
        return "id"

    def abort_upload(self, key, upload_id):
        self._note("abort", key, upload_id)

    def is_checking_uploads(self, key):
        self._note("proof", key)
        return self._is_checking


def opening(store):
    """What the checks open their store with."""
    return lambda: store


@pytest.mark.fault("H2")
@pytest.mark.parametrize(
    ("ahead_s", "verdict", "words"),
    [
        (0.4, Verdict.OK, "agrees"),
        (-30, Verdict.OK, "30 s behind"),
        (61, Verdict.WARNING, "1 min ahead"),
        (-901, Verdict.FAILED, "15 min behind: the store refuses"),
        (None, Verdict.WARNING, "does not tell"),
    ],
)
def test_clock_is_judged_by_what_signatures_bear(monkeypatch, stub_s3, new_settings, ahead_s, verdict, words):
    """A minute is worth a warning; beyond 15 the store refuses every request."""
    monkeypatch.setattr(reach, "clock_ahead_s", lambda *_: ahead_s)

    answer = endpoint.clock(stub_s3.storage(), limits_of(new_settings()))

    assert answer.verdict is verdict
    assert words in answer.found


@pytest.mark.parametrize(
    ("left_s", "verdict", "words"),
    [
        (None, Verdict.OK, "without TLS"),
        (15 * 86400.0, Verdict.OK, "ends in 15 d"),
        (13 * 86400.0, Verdict.WARNING, "ends in 13 d"),
    ],
)
def test_certificate_that_ends_soon_is_a_warning(monkeypatch, stub_s3, new_settings, left_s, verdict, words):
    """Two weeks are left to renew it."""
    monkeypatch.setattr(reach, "connect", lambda *_: reach.Contact(0.01, left_s))

    answer = endpoint.connection(stub_s3.storage(), limits_of(new_settings()))

    assert answer.verdict is verdict
    assert words in answer.found


@pytest.mark.parametrize(
    ("streams", "why", "words"),
    [(True, "", "through obstore"), (False, "it is so", "s3fs (it is so)"), (False, "", "s3fs (obstore cannot")],
)
def test_answers_are_timed_and_the_library_named(streams, why, words):
    """Three requests, whatever their answers; which library carries them, and why not the faster one."""
    store = FakeStore(streams=streams, head=AccessDenied("no"))

    answer = endpoint.latency(opening(store), "p/", lambda: why)

    assert answer.verdict is Verdict.OK
    assert words in answer.found
    assert len(store.asked) == 3


def test_endpoint_that_does_not_answer_is_no_latency():
    """A failure is not timed but told."""
    with pytest.raises(Unavailable):
        endpoint.latency(opening(FakeStore(head=Unavailable("no"))), "p/", str)


def test_ingress_reads_an_object_where_there_is_one(new_target):
    """Listing does not prove reading: the first object is looked at, where ingress would fetch it."""
    full, empty, sent = FakeStore(keys=["p/x"]), FakeStore(), FakeStore(keys=["p/x"])

    with pytest.raises(ObjectMissing):  # the fake has no object, so it is the HEAD that raises
        endpoint.bucket(opening(full), new_target("ingress"))
    assert "nothing is there yet" in endpoint.bucket(opening(empty), new_target("ingress")).found
    assert endpoint.bucket(opening(sent), new_target()).verdict is Verdict.OK
    assert full.asked[-1] == ("head", "p/x")
    assert sent.asked == [("list", "p/")]


@pytest.mark.parametrize(("is_checking", "words"), [(True, "checks what it is sent"), (False, "ETags alone")])
def test_upload_is_begun_and_aborted(new_target, is_checking, words):
    """Writing is proven without an object, and it is told what proves an upload."""
    store = FakeStore(is_checking=is_checking)

    answer = endpoint.uploads(opening(store), new_target())

    assert answer.verdict is Verdict.OK
    assert words in answer.found
    assert [call[0] for call in store.asked] == ["create", "abort", "proof"]


def test_upload_that_cannot_be_aborted_is_a_warning_and_asked_once(new_target):
    """Nothing more is begun that would stay."""
    store = FakeStore(abort=AccessDenied("abort b/k: no (AccessDenied); check"))

    answer = endpoint.uploads(opening(store), new_target())

    assert answer.verdict is Verdict.WARNING
    assert "AbortMultipartUpload" in answer.fix
    assert [call[0] for call in store.asked] == ["create", "abort"]


def test_ingress_alone_asks_for_no_right_to_write(stub_s3, new_target, new_settings):
    """Read-only credentials are all that it needs."""
    checks = endpoint.checks(new_settings(), [new_target("ingress", storage=stub_s3.storage())])

    names = ["name", "connection", "clock", "requests", "bucket", "missing object", "old signature"]
    assert [check.name for check in checks] == names


def test_behind_a_proxy_name_and_connection_are_not_ours(monkeypatch, stub_s3, new_target, new_settings):
    """The device may not even resolve the endpoint's name; requests show whether the proxy lets us through."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    checks = endpoint.checks(new_settings(), [new_target(storage=stub_s3.storage())])

    assert [check.name for check in checks] == ["proxy", "requests", "bucket", "uploads"]


@pytest.mark.fault("F9")
def test_refused_secret_fails_without_being_shown(stub_s3, reply, new_target, new_settings):
    """Listing and uploading fail, with the store's reason and what to check; no line holds key or secret."""
    body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>SECRET</Message></Error>"
    date = formatdate(time.time(), usegmt=True)
    stub_s3.default = reply(403, headers={"Date": date}, body=body)

    found = list(carry_out(endpoint.checks(new_settings(), [new_target(storage=stub_s3.storage())])))

    assert [one.check for one in found if one.verdict is Verdict.FAILED] == ["bucket", "uploads"]
    bad = found[-1]
    assert "SignatureDoesNotMatch" in bad.found
    assert "access key" in bad.fix
    assert not any(word in one.as_line() for one in found for word in ("SECRET", "AKID"))


def test_dead_endpoint_is_told_once(new_target, new_settings):
    """What needs the connection is left out."""
    found = list(carry_out(endpoint.checks(new_settings(), [new_target()])))

    assert [(one.check, one.verdict) for one in found] == [("name", Verdict.OK), ("connection", Verdict.FAILED)]


def test_endpoint_that_cuts_every_request_is_told_once(stub_s3, reply, new_target, new_settings):
    """Its clock is not known, its requests fail; the bucket is not asked for."""
    stub_s3.default = reply(is_reset=True)

    found = list(carry_out(endpoint.checks(new_settings(), [new_target(storage=stub_s3.storage())])))

    assert [(one.check, one.verdict) for one in found[2:]] == [("clock", Verdict.WARNING), ("requests", Verdict.FAILED)]


def test_endpoints_are_examined_one_by_one(stub_s3, start_stub, new_target, new_settings):
    """Two targets of one storage share its checks; another storage has its own."""
    one, other = stub_s3.storage(), start_stub().storage()
    targets = [
        new_target("ingress", storage=one),
        new_target("ingress", "b", storage=one),
        new_target("ingress", "c", storage=other),
    ]

    checks = list(endpoint.checks(new_settings(), targets))

    assert [check.about for check in checks if check.name == "connection"] == [one.endpoint, other.endpoint]
    assert len([check for check in checks if check.name == "bucket"]) == 3
