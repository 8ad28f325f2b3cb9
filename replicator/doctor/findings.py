"""Checks and what they find: carried out one after the other, each with a deadline; none stops the rest.

A check is a small function that answers, or raises an error of ours, which is an answer too. Never here: what is
looked at.
"""

import enum
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from replicator.errors import ConfigError, ReplicatorError
from replicator.observe import words


class Verdict(enum.StrEnum):
    """How a check ended. A warning works, but not as well as it could."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, what to do about it ('' where nothing is to be done), and what replicator makes of it."""

    verdict: Verdict
    found: str
    fix: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One look. `about` names the directory, endpoint or target for people."""

    name: str
    about: str
    look: Callable[[], Answer]
    within_s: float = 10.0
    is_gate: bool = False
    """Once it fails, checks that need what it is about are left out: they would only fail for the same cause."""
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that was carried out. Its fields are those of the JSON."""

    check: str
    about: str
    verdict: Verdict
    found: str
    fix: str
    effect: str = ""

    def as_json(self) -> dict[str, str]:
        """Names are escaped."""
        return {name: words.escape(text) for name, text in asdict(self).items()}

    def as_line(self) -> str:
        """One line for people; whoever prints it escapes its names."""
        about = f" {self.about}" if self.about else ""
        effect = f" -> {self.effect}" if self.effect else ""
        fix = f". {self.fix[0].upper()}{self.fix[1:]}" if self.fix else ""
        return f"{self.verdict:8} {self.check}{about}: {self.found}{effect}{fix}"


def ok(found: str, *, effect: str = "") -> Answer:
    return Answer(Verdict.OK, found, effect=effect)


def warning(found: str, fix: str, *, effect: str = "") -> Answer:
    return Answer(Verdict.WARNING, found, fix, effect)


def failed(found: str, fix: str, *, effect: str = "") -> Answer:
    return Answer(Verdict.FAILED, found, fix, effect)


def carry_out(checks: Iterable[Check]) -> Iterator[Finding]:
    """What each check finds, as soon as it is known."""
    lost: set[str] = set()
    for check in checks:
        if check.needs in lost:
            if check.is_gate:
                lost.add(check.about)
            continue
        answer = _within_time(check)
        if check.is_gate and answer.verdict is Verdict.FAILED:
            lost.add(check.about)
        yield Finding(check.name, check.about, answer.verdict, answer.found, answer.fix, answer.effect)


def of_error(error: ReplicatorError) -> Answer:
    """An error of ours as an answer."""
    if isinstance(error, ConfigError):
        return failed(f"{error.where}: {error.problem}", error.fix)
    text = str(error)
    # The two forms of our messages: `what (word); the next step`, `What. The next step`.
    what, end, step = text.partition("); ")
    if not step:
        what, end, step = text.rpartition(". ")
    return failed(f"{what}{end.rstrip('; .')}", step) if step and what else failed(text, "")


def _within_time(check: Check) -> Answer:
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    # A thread that nobody waits for: a dead mount or resolver keeps it for minutes.
    threading.Thread(target=lambda: answers.put(_looked(check)), name=f"check {check.name}", daemon=True).start()
    try:
        return answers.get(timeout=check.within_s)
    except queue.Empty:
        return failed(
            f"no answer within {words.age(check.within_s)}", "see what it hangs on: a mount, DNS, the network"
        )


def _looked(check: Check) -> Answer:
    try:
        return check.look()
    except ReplicatorError as error:
        return of_error(error)
    except Exception as error:  # noqa: BLE001 - one bad check must not stop the others
        return failed(f"the check itself failed ({type(error).__name__})", "please report it")
