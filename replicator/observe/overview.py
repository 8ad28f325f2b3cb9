"""The page for people: its answer in a word, its first HTML, and the files beside it.

The HTML says something before any script runs, and without one; the script of the page goes on from there with what
`feed` tells. Its styles are within it, allowed by their hash: they are what the first paint would wait for. Everything
that is not ours is escaped here. Never: a number that the status does not have, a script within the HTML, an address of
another host.
"""

import base64
import functools
import hashlib
import html
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.model import Direction
from replicator.observe import words
from replicator.observe.request import Answer
from replicator.observe.status import Snapshot, State, TargetView, verdict

FILES = {
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
"""What the page loads, by path, with its type."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'sha256-{style}'; img-src 'self'; connect-src 'self'; "
    "require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GRAVITY = (State.BLOCKED, State.FAILING, State.BEHIND, State.STARTING, State.IN_STEP)
_HINDERED = (State.BLOCKED, State.FAILING)
_LATELY_S = 10.0
"""A workload that writes all the time always has something on its way: that is not worth an alarm a second."""


@dataclass(frozen=True, slots=True)
class SafetyAnswer:
    """Whether the data is safe, in a word or two, and the mood that colours it: good, lately, wait, bad or none."""

    mood: str
    text: str


def answer_to(snapshot: Snapshot) -> SafetyAnswer:
    """Is my data safe? Agrees with the verdict, which says the rest."""
    hindered = [view for view in snapshot.targets if view.state in _HINDERED]
    mood = "bad" if hindered else "wait"
    kind = verdict(snapshot).partition(":")[0]
    if kind == "not safe":
        if any(view.direction is Direction.EGRESS for view in hindered):
            return SafetyAnswer(mood, "No")
        return _not_yet(snapshot.targets, mood)
    if kind == "not known yet":
        return SafetyAnswer(mood, "Not known yet")
    if kind == "behind":
        return SafetyAnswer(mood, "Yes, but the device is behind")
    if kind == "in step":
        left_out = sum(sum(view.skipped_by_reason.values()) for view in snapshot.targets)
        return SafetyAnswer("good", f"Yes, but for {words.count(left_out, 'file')} left out" if left_out else "Yes")
    return SafetyAnswer("none", "Nothing is configured")


def _not_yet(targets: Sequence[TargetView], mood: str) -> SafetyAnswer:
    """Nothing is in the way of what is on its way to the bucket: how long that has been so makes the difference."""
    late = [view for view in targets if view.state is not State.IN_STEP]
    is_quick = all(view.state is State.BEHIND and not view.reason for view in late)
    if is_quick and max(view.oldest_pending_s for view in late) < _LATELY_S:
        return SafetyAnswer("lately", "Yes, but for the last seconds")
    return SafetyAnswer(mood, "Not yet")


def page(snapshot: Snapshot) -> Answer:
    """The HTML of this moment."""
    answer = answer_to(snapshot)
    fields = {
        "title": f"{answer.text} - replicator",
        "mood": answer.mood,
        "answer": answer.text,
        "verdict": verdict(snapshot),
        "version": words.escape(snapshot.version),
    }
    rows = "".join(map(_row, sorted(snapshot.targets, key=lambda view: _GRAVITY.index(view.state))))
    escaped = {name: html.escape(text) for name, text in fields.items()}
    text = _file("page.html").decode().format(**escaped, rows=rows, style=_file("page.css").decode())
    return Answer(200, text.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": _policy()})


def file_at(path: str) -> Answer:
    """One of `FILES`."""
    return Answer(200, _file(path.removeprefix("/")), FILES[path])


def _row(view: TargetView) -> str:
    """A target without a script: where it stands, why, and what to do."""
    waits = words.age(view.oldest_pending_s) if view.pending_files else "-"
    pending = f"{words.count(view.pending_files, 'file')} ({words.size(view.pending_bytes)})"
    why = ". ".join(text for text in (view.reason, view.fix) if text)
    cells = {
        "Oldest waits for": waits,
        "Pending": pending if view.pending_files else "0",
        "Why, and what to do": words.escape(why) or "-",
    }
    state = f'<td><span class="state {view.state}">{view.state}</span></td>'
    rest = "".join(f'<td data-label="{name}">{html.escape(cell)}</td>' for name, cell in cells.items())
    return f'<tr><th scope="row">{html.escape(words.escape(view.id))}</th>{state}{rest}</tr>'


@functools.cache
def _policy() -> str:
    return _POLICY.format(style=base64.b64encode(hashlib.sha256(_file("page.css")).digest()).decode())


@functools.cache
def _file(name: str) -> bytes:
    found = pkgutil.get_data(__package__, f"page/{name}")
    assert found is not None  # noqa: S101 - the package is incomplete
    return found
