"""Checks one after the other: none stops the rest, each ends in time, and what they say is safe to print."""

import threading
from functools import partial

import pytest

from replicator.doctor.findings import Answer, Check, Finding, Verdict, carry_out, ok
from replicator.errors import AccessDenied, ConfigError, Refused
from replicator.observe import words


def raising(error: Exception):
    def look() -> Answer:
        raise error

    return look


def test_a_check_that_fails_does_not_stop_the_rest():
    """An error of ours, and any other, is a failed check; the next one is carried out."""
    checks = [
        Check("a", "", raising(Refused("'x' may not be read. Give this user the permission"))),
        Check("b", "", raising(KeyError("secret"))),
        Check("c", "", lambda: ok("fine")),
    ]

    found = list(carry_out(checks))

    assert [one.verdict for one in found] == [Verdict.FAILED, Verdict.FAILED, Verdict.OK]
    assert (found[0].found, found[0].fix) == ("'x' may not be read", "Give this user the permission")
    assert "KeyError" in found[1].found
    assert "secret" not in found[1].as_line()


@pytest.mark.parametrize(
    ("error", "found", "fix"),
    [
        (AccessDenied("put b/k: refused (403); check; all"), "put b/k: refused (403)", "check; all"),
        (ConfigError(where="file x: y", problem="is wrong", fix="Mend it"), "file x: y: is wrong", "Mend it"),
        (Refused("no step"), "no step", ""),
    ],
)
def test_an_error_is_told_as_what_happened_and_what_to_do(error, found, fix):
    """Both forms of our messages come apart where the next step begins."""
    (one,) = carry_out([Check("a", "", raising(error))])

    assert (one.found, one.fix) == (found, fix)


def test_a_check_without_an_answer_ends_in_time():
    """A look that hangs is a failed check after its deadline, and those after it are carried out."""
    over = threading.Event()

    def hang() -> Answer:
        over.wait(30)
        return ok("late")

    found = list(carry_out([Check("a", "", hang, within_s=0.05), Check("b", "", lambda: ok("fine"))]))
    over.set()

    assert [one.verdict for one in found] == [Verdict.FAILED, Verdict.OK]
    assert "no answer" in found[0].found


@pytest.mark.parametrize(
    ("is_gate", "names"), [(True, ["door", "elsewhere"]), (False, ["door", "inside", "elsewhere"])]
)
def test_what_needs_a_failed_gate_is_left_out(is_gate, names):
    """One cause is told once; checks of anything else go on."""
    checks = [
        Check("door", "here", raising(Refused("shut")), is_gate=is_gate),
        Check("inside", "x", lambda: ok("fine"), needs="here"),
        Check("elsewhere", "there", lambda: ok("fine"), needs="there"),
    ]

    assert [one.check for one in carry_out(checks)] == names


def test_each_finding_is_told_as_soon_as_it_is_known():
    """Nobody waits for the last check to read of the first."""
    reached = []

    def look(name: str) -> Answer:
        reached.append(name)
        return ok("fine")

    checks = [Check(name, "", partial(look, name)) for name in "ab"]

    next(carry_out(checks))

    assert reached == ["a"]


def test_names_are_escaped_in_lines_and_json():
    """A name with a line break or an escape sequence neither forges a line nor drives the terminal."""
    finding = Finding("directory", "/a\nb", Verdict.WARNING, "odd \x1b[31m", "rename it", "it\nstays")

    assert words.escape(finding.as_line()) == "warning  directory /a\\x0ab: odd \\x1b[31m -> it\\x0astays. Rename it"
    assert finding.as_json() == {
        "check": "directory",
        "about": "/a\\x0ab",
        "verdict": "warning",
        "found": "odd \\x1b[31m",
        "fix": "rename it",
        "effect": "it\\x0astays",
    }
