"""What the doctor finds out about a store, one deviation at a time, and that nothing stays whichever it is."""

from collections.abc import Generator

import pytest

from replicator.doctor import examination
from replicator.doctor.findings import Verdict, carry_out
from replicator.doctor.profile import trials
from replicator.doctor.profile.objects import BODY
from replicator.engine import limits_of
from replicator.errors import Unavailable
from replicator.stores.s3.direct import Direct
from replicator.stores.s3.sandbox import PLACE, Sandbox
from replicator.stores.s3.table import ignore
from tests.faults.small_store import SmallStore, Stored

pytestmark = pytest.mark.slow

OK, WARNING, FAILED = Verdict.OK, Verdict.WARNING, Verdict.FAILED

CASES = [
    # lie, check, verdict, words of what was found, words of what replicator makes of it
    ("hides-missing", "missing object", FAILED, "AccessDenied to GET", "compared"),
    ("opaque", "ETag", OK, "no MD5", "store's checksum only"),
    ("weakens-etags", "ETag", FAILED, "differs", "nothing comes in step"),
    ("no-empty-objects", "empty object", WARNING, "MissingRequestBodyError", "listed as failing"),
    ("loses-metadata", "metadata", WARNING, "mtime, md5chksum, replicator-part-size", "when they were stored"),
    ("ignores-conditions", "conditional get", OK, "ignored (200)", "ETag of each answer is compared"),
    ("ignores-conditions", "conditional put", OK, "If-None-Match is no protection", "not used"),
    ("ignores-ranges", "ranges", WARNING, "whole object", "each 8 MiB"),
    ("wrong-content-range", "ranges", FAILED, "bytes 2-6/34", "cannot be fetched"),
    ("checks-nothing", "checksums", OK, "SHA-256 is not checked, Content-MD5 is not checked", "ETag alone"),
    ("no-new-checksums", "trailing checksum", OK, "refused (NotImplemented)", "sends none"),
    ("no-pages", "parts", OK, "not listed in pages", "go on"),
    ("no-abort", "parts", WARNING, "AccessDenied", "stay and cost"),
    ("fails-unknown-uploads", "parts", WARNING, "failure of the store", "may never go on"),
    ("opaque", "complete upload", OK, "of the store's own", "checksums only"),
    ("takes-any-completion", "upload errors", OK, "another part's ETag is taken", "by its ETag alone"),
    ("small-parts", "upload errors", OK, "small parts are taken", "damaged upload is refused"),
    ("one-case", "names", FAILED, "changed: ", "overwrite each other"),
    ("no-control-characters", "names", WARNING, "a line feed (InvalidObjectName)", "the others go on"),
    ("no-pages", "listing", OK, "size of a page", "every object"),
    ("no-start", "listing", OK, "start-after is ignored", "every object"),
    ("utf-16-order", "listing", FAILED, "out of order", "nothing is fetched"),
    ("forgets-one", "listing", FAILED, "of 6 objects 5", "not fetched"),
    ("never-says-more", "listing", FAILED, "of 6 objects 2", "not fetched"),
    ("plain-keys", "listing", WARNING, "not encoded", "stands still"),
    ("no-delete", "delete", WARNING, "not allowed", "deletes no object"),
    ("no-delete", "left behind", WARNING, PLACE, ""),
]


@pytest.fixture
def examine(stub_s3, reply, new_settings, new_target):
    """The findings of all trials by their names, at a store that deviates in these ways."""

    def examine(*lies, is_writing=True, direction="egress"):
        store = SmallStore(reply, *lies)
        stub_s3.default = store
        limits = limits_of(new_settings())
        target = new_target(direction, storage=stub_s3.storage())
        checks = trials.checks(target, limits, within_s=30, is_writing=is_writing)
        return {one.check: one for one in carry_out(checks)}, store

    return examine


def is_clean(store: SmallStore) -> bool:
    return not store.objects and not store.uploads


@pytest.mark.fault("B21")
def test_store_as_it_should_be(examine, stub_s3):
    """Every trial is ok and says what replicator makes of it; every key was beneath one place of the prefix."""
    found, store = examine()

    assert {one.verdict for one in found.values()} == {OK}, [one.as_line() for one in found.values()]
    assert len(found) == 18
    assert "kinds are carried" in found["names"].found
    assert all(
        one.effect for one in found.values() if one.check not in ("object", "empty object", "left behind", "delete")
    )
    assert is_clean(store)
    made = {request.target.partition("?")[0] for request in stub_s3.requests if request.method in ("PUT", "POST")}
    assert all(path.startswith(f"/b/p/{PLACE}/") for path in made)


@pytest.mark.fault("B21")
@pytest.mark.parametrize(("lie", "check", "verdict", "found", "effect"), CASES, ids=lambda text: str(text)[:24])
def test_deviation_is_named_with_its_consequence(examine, lie, check, verdict, found, effect):
    """Each is told by its own check, with the step to take where there is one; and the place is empty afterwards."""
    findings, store = examine(lie)

    one = findings[check]
    assert one.verdict is verdict, one.as_line()
    assert found in one.found + one.effect, one.as_line()
    assert effect in one.effect, one.as_line()
    assert bool(one.fix) == (verdict is not OK)
    assert is_clean(store) or lie in ("no-delete", "no-abort")


def test_without_leave_no_object_is_made(examine, stub_s3):
    """Only what makes no object is tried: a part of an upload that is aborted, and questions."""
    found, store = examine(is_writing=False)

    assert list(found) == ["missing object", "old signature", "parts", "left behind"]
    assert is_clean(store)
    assert not [one for one in stub_s3.requests if one.method == "PUT" and "uploadId" not in one.target]
    assert not [one for one in stub_s3.requests if one.method == "POST" and "uploadId" in one.target]


def test_ingress_prefix_is_never_written(examine, stub_s3):
    """It belongs to others, with leave or without."""
    found, _ = examine(direction="ingress")

    assert list(found) == ["missing object", "old signature"]
    assert {one.method for one in stub_s3.requests} <= {"HEAD", "GET"}


def test_refused_write_is_told_once(examine):
    """Credentials that may not write: one line says so, and no trial follows that would only fail for it."""
    found, _ = examine("no-write")

    assert list(found) == ["missing object", "old signature", "object"]
    assert found["object"].verdict is FAILED
    assert "s3:PutObject" in found["object"].fix


def test_objects_of_an_earlier_examination_are_told_and_left_alone(stub_s3, reply, new_settings, new_target):
    """What was not made by this examination may be anybody's."""
    store = SmallStore(reply)
    store.objects[f"p/{PLACE}/0123/object"] = Stored(b"x", "e")
    store.objects[f"p/{PLACE}.txt"] = Stored(b"y", "f")
    stub_s3.default = store
    target = new_target(storage=stub_s3.storage())

    found = list(carry_out(trials.checks(target, limits_of(new_settings()), within_s=30, is_writing=True)))

    assert found[-1].verdict is WARNING
    assert "1 object beneath" in found[-1].found
    assert set(store.objects) == {f"p/{PLACE}/0123/object", f"p/{PLACE}.txt"}


@pytest.mark.parametrize("ends", ["given up", "interrupted"])
def test_examination_that_ends_early_leaves_nothing(stub_s3, reply, new_settings, new_target, ends):
    """Ctrl-C in the middle, or somebody who reads no further: what was made is removed all the same."""
    store = SmallStore(reply)
    stub_s3.default = store
    target = new_target(storage=stub_s3.storage())
    findings = examination.examine(new_settings(), lambda: (target,), is_writing=True)
    assert isinstance(findings, Generator)
    assert any(one.check == "ETag" for one in findings)
    assert store.objects

    if ends == "interrupted":
        with pytest.raises(KeyboardInterrupt) as caught:
            findings.throw(KeyboardInterrupt)
        assert is_clean(store)  # while the error still holds everything that it went through
        assert caught.traceback
    else:
        findings.close()

    assert is_clean(store)


def test_nothing_is_made_after_the_end(stub_s3, reply, new_settings, new_target):
    """A trial that was given up for its time may still run: once the place is cleared, it makes no more requests."""
    store = SmallStore(reply)
    stub_s3.default = store
    target = new_target(storage=stub_s3.storage())
    box = Sandbox(Direct(target.storage, limits_of(new_settings()), ignore), target.prefix, "b")
    box.put("k", BODY)

    assert box.clear() == []
    count = len(stub_s3.requests)
    with pytest.raises(Unavailable):
        box.put("k", BODY)

    assert len(stub_s3.requests) == count
    assert box.clear() == []


@pytest.mark.parametrize("status", [301, 307, 429, 500, 503])
def test_answer_that_tells_only_of_a_failure_is_told_as_one(stub_s3, reply, new_settings, new_target, status):
    """A redirect, a request for less and an outage say nothing of what the store can do."""
    stub_s3.default = reply(status, {"Location": "http://127.0.0.1:9/"} if status < 400 else {})
    target = new_target(storage=stub_s3.storage())

    found = list(carry_out(trials.checks(target, limits_of(new_settings()), within_s=30, is_writing=True)))

    assert {one.check: one.verdict for one in found if one.check != "left behind"} == {
        "missing object": FAILED,
        "old signature": FAILED,
        "object": FAILED,
    }
    assert str(status) in found[0].found
    # Where the object may have been made all the same, it is removed, and it is told that this failed.
    assert (found[-1].check == "left behind") == (status >= 500)
    assert bool([one for one in stub_s3.requests if one.method == "DELETE"]) == (status >= 500)
