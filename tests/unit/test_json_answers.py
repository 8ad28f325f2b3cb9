"""docs/json.md is what is printed: every command with --json, every field, its type and a word about it."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator import cli
from replicator.commands.answers import PlannedStep, plain
from tests.answers import ANSWERS, MEND, WORDS, fields_of, meaning, misfits, page, parts_of

PAGE = Path(__file__).parents[2] / "docs/json.md"
PARTS = list(dict.fromkeys(part for of, _ in ANSWERS.values() for part in parts_of(of)))


def test_page_is_that_of_the_classes():
    """A field that is new, gone or another type shows in the document, or this fails."""
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it anew: {MEND}"


def test_every_command_with_json_is_on_the_page():
    """And no other."""
    commands = {one.name: one.callback for one in cli.app.registered_commands if one.callback}
    with_json = {name for name, command in commands.items() if "as_json" in inspect.signature(command).parameters}

    assert {name.split()[0] for name in ANSWERS} == with_json


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_explained(part):
    """By its docstring or by a word of the page."""
    assert [name for name in fields_of(part) if not meaning(part, name)] == []


def test_no_word_is_about_a_field_that_is_gone():
    """What the page says beside docstrings is about fields that there are."""
    fields = {f"{part.__name__}.{name}" for part in PARTS for name in fields_of(part)}

    assert sorted(WORDS.keys() - fields) == []


def test_names_in_answers_are_escaped():
    """Text and keys of mappings alike; numbers stay what they are."""
    answer = {"a\nb": PlannedStep(target="t", action="copy", relpath="\udcff\x1b[2J\\", size=3)}

    assert plain(answer) == {
        r"a\x0ab": {"target": "t", "action": "copy", "relpath": r"\xff\x1b[2J" + "\\\\", "size": 3}
    }


@dataclass
class Part:
    count: int
    names: tuple[str, ...]
    inner: "Part | None" = None


@pytest.mark.parametrize(
    "value",
    [
        {"count": 1, "names": []},
        {"count": 1, "names": [], "inner": None, "more": 1},
        {"count": "1", "names": [], "inner": None},
        {"count": 1, "names": [2], "inner": None},
        {"count": 1, "names": [], "inner": {"count": 1}},
        [],
    ],
)
def test_an_answer_that_is_not_as_documented_is_found(value):
    """Fields that are missing, too many, or of another type, at any depth."""
    assert list(misfits(value, Part))


def test_an_answer_as_documented_passes():
    """Nested, with null and with empty lists."""
    inner = {"count": 1, "names": ["a"], "inner": None}

    assert list(misfits({"count": 1, "names": [], "inner": inner}, Part)) == []
