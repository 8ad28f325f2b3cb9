"""The answer in a word, and the page before any script runs."""

import base64
import hashlib
import re

import pytest

from replicator.model import Direction
from replicator.observe.overview import FILES, answer_to, file_at, page
from replicator.observe.status import FailingFile, State, verdict

PAGE_BYTES = 60 * 1024


def blocked(view, direction=Direction.EGRESS):
    return view(direction=direction, state=State.BLOCKED, reason="no bucket", fix="Create it", pending_files=1)


def behind(view, direction=Direction.EGRESS, oldest_s=10.0, **changes):
    return view(direction=direction, state=State.BEHIND, pending_files=1, oldest_pending_s=oldest_s, **changes)


def failing(view):
    file = FailingFile("a", "refused", "no", 1, 1, 1)
    return view(state=State.FAILING, pending_files=1, failing=(file,), failing_by_reason={"refused": 1})


ANSWERS = {
    "no target": (lambda view: [], "none", "Nothing is configured"),
    "all in step": (lambda view: [view(), view("in", Direction.INGRESS)], "good", "Yes"),
    "left out": (lambda view: [view(skipped_by_reason={"a": 1, "b": 2})], "good", "Yes, but for 3 files left out"),
    "one left out": (lambda view: [view(skipped_by_reason={"a": 1})], "good", "Yes, but for 1 file left out"),
    "behind": (lambda view: [behind(view), view("b")], "wait", "Not yet"),
    "just written": (lambda view: [behind(view, oldest_s=9.9), view("b")], "lately", "Yes, but for the last seconds"),
    "just written both ways": (
        lambda view: [behind(view, oldest_s=1), behind(view, Direction.INGRESS, 1)],
        "lately",
        "Yes, but for the last seconds",
    ),
    "just written, with a reason": (lambda view: [behind(view, oldest_s=1, reason="it waits")], "wait", "Not yet"),
    "just written, device late": (
        lambda view: [behind(view, oldest_s=1), behind(view, Direction.INGRESS, 60)],
        "wait",
        "Not yet",
    ),
    "behind, device blocked": (lambda view: [behind(view), blocked(view, Direction.INGRESS)], "bad", "Not yet"),
    "blocked": (lambda view: [blocked(view), view("b")], "bad", "No"),
    "failing": (lambda view: [failing(view)], "bad", "No"),
    "starting": (lambda view: [view(state=State.STARTING), view("b")], "wait", "Not known yet"),
    "starting beside blocked": (lambda view: [view(state=State.STARTING), blocked(view)], "bad", "No"),
    "device behind": (lambda view: [view(), behind(view, Direction.INGRESS)], "wait", "Yes, but the device is behind"),
    "device blocked": (lambda view: [blocked(view, Direction.INGRESS)], "bad", "Yes, but the device is behind"),
}


@pytest.mark.parametrize(("targets", "mood", "text"), ANSWERS.values(), ids=ANSWERS)
def test_answer_is_the_verdict_in_a_word(snapshot, view, targets, mood, text):
    """Yes only where the verdict says in step, or the device alone waits, or all that waits was written just now."""
    now = snapshot(*targets(view))

    answer = answer_to(now)

    assert (answer.mood, answer.text) == (mood, text)
    assert text.startswith("Yes") == (verdict(now).startswith(("in step", "behind")) or mood == "lately")


def test_page_says_it_without_a_script(snapshot, view):
    """Answer, verdict and each target with reason and fix stand in the HTML; the worst comes first."""
    now = snapshot(view("fine"), blocked(view))

    body = page(now).body.decode()

    assert "<strong>No</strong>" in body
    assert verdict(now) in body
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>.*?</tr>', body)
    assert rows == ["os-stats/egress/stats", "os-stats/egress/fine"]
    assert "no bucket. Create it" in body
    assert '<meta http-equiv="refresh" content="10">' in re.findall(r"<noscript>(.*?)</noscript>", body)[0]


def test_names_are_text_in_the_page(snapshot, view, hostile_names):
    """No name of a file, a target or a version becomes markup, a template's field or a control character."""
    targets = [view(name, state=State.BLOCKED, reason=name, fix=name) for name in hostile_names]

    body = page(snapshot(*targets, version="{rows}<b>")).body.decode()

    assert "<script>" not in body
    assert "{rows}&lt;b&gt;" in body
    assert all(char.isprintable() or char == "\n" for char in body)


def test_page_allows_nothing_but_its_own_files(snapshot, view):
    """Scripts come from this server's files only, styles are the page's own, and text never becomes markup."""
    answer = page(snapshot(view()))
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    (styles,) = re.findall(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
    assert policy["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(styles).digest()).decode()}'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert b"style=" not in answer.body
    assert not re.search(rb"\son\w+=", answer.body)


def test_page_needs_no_network(snapshot, view):
    """No address of another host in any of its files, but for the names of XML's vocabularies."""
    texts = [page(snapshot()).body, *(file_at(path).body for path in FILES)]
    addresses = {address for text in texts for address in re.findall(rb"(?:https?:)?//[\w.-]+\.\w[^\"' ]*", text)}

    assert addresses == {b"http://www.w3.org/2000/svg"}
    assert not any(b"@import" in text or b"url(" in text for text in texts)


def test_page_is_small(snapshot, view):
    """All that is loaded to see the page is below 60 KiB, uncompressed."""
    assert len(page(snapshot(view())).body) + sum(len(file_at(path).body) for path in FILES) < PAGE_BYTES


def test_files_are_read_once(monkeypatch):
    """A request costs no look at the disk."""
    first = file_at("/page.js")
    monkeypatch.setattr("pkgutil.get_data", None)

    assert file_at("/page.js") == first
