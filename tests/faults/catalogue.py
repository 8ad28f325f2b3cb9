"""The catalogue of faults, and which tests claim which of its rows.

Rows are read from catalogue.toml, claims from the syntax trees of the tests: marks named `fault` on a function, on its
class, on its module, or on one of its parameters, be they listed in a constant. Nothing is imported, nothing runs.
"""

import ast
import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """One fault, and what replicator does about it."""

    id: str
    fault: str
    answer: str
    not_here: str = ""
    """Why no test can bring it about on one machine; empty where one can."""


@dataclass(frozen=True)
class Group:
    letter: str
    title: str
    rows: tuple[Row, ...]


def groups() -> tuple[Group, ...]:
    """Every row, in the order of the catalogue."""
    words: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    titles = words.pop("groups")
    rows = [Row(id, **row) for id, row in words.items()]  # noqa: A001 - it is what the document calls it
    return tuple(
        Group(letter, title, tuple(row for row in rows if row.id.startswith(letter)))
        for letter, title in titles.items()
    )


def rows() -> dict[str, Row]:
    return {row.id: row for group in groups() for row in group.rows}


@functools.cache
def claims(top: Path = TESTS) -> dict[str, list[str]]:
    """Row id -> tests that carry it, as `unit/test_x.py::test_y`, in the order of files and lines."""
    found: dict[str, list[str]] = {}
    for path in sorted(top.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text if "mark.fault" in text else "")
        for name, ids in _claims_of(tree, (), _constants(tree)):
            for one in ids:
                found.setdefault(one, []).append(f"{path.relative_to(top).as_posix()}::{name}")
    return found


def unseen(text: str) -> int:
    """How many marks in a module are where `claims` does not look, or name their rows by other means than a literal."""
    if "mark.fault" not in text:
        return 0
    tree = ast.parse(text)
    places = _with_constants(_places(tree), _constants(tree))
    placed = {id(mark) for place in places for mark in _marks(place)}
    named = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _literals(node)}
    return sum(id(mark) not in placed or id(mark) not in named for mark in _marks(tree))


def _claims_of(
    scope: Any, inherited: tuple[str, ...], constants: Mapping[str, ast.expr]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Tests of a module or class with the rows they carry, their scope's included."""
    inherited += tuple(_rows_in(_pytestmarks(scope)))
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            more = inherited + tuple(_rows_in(_with_constants(node.decorator_list, constants)))
            yield from ((f"{node.name}::{name}", ids) for name, ids in _claims_of(node, more, constants))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = _rows_in(_with_constants(node.decorator_list, constants))
            yield node.name, tuple(dict.fromkeys((*inherited, *own)))


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What a module names once and for all, lists of parameters say."""
    return {
        to.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for to in node.targets
        if isinstance(to, ast.Name)
    }


def _with_constants(places: Iterable[ast.expr], constants: Mapping[str, ast.expr]) -> list[ast.expr]:
    """The expressions, and those behind the names in them."""
    found, waiting = list[ast.expr](), list(places)
    while waiting:
        place = waiting.pop(0)
        found.append(place)
        named = [constants[node.id] for node in ast.walk(place) if isinstance(node, ast.Name) and node.id in constants]
        waiting += [one for one in named if not any(one is other for other in (*found, *waiting))]
    return found


def _pytestmarks(scope: Any) -> list[ast.expr]:
    return [
        node.value
        for node in scope.body
        if isinstance(node, ast.Assign) and any(getattr(to, "id", "") == "pytestmark" for to in node.targets)
    ]


def _places(scope: Any) -> Iterator[ast.expr]:
    """The expressions in which marks are looked for."""
    yield from _pytestmarks(scope)
    for node in scope.body:
        if isinstance(node, ast.ClassDef):
            yield from node.decorator_list
            yield from _places(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from node.decorator_list


def _marks(place: ast.AST) -> Iterator[ast.Attribute]:
    """Every `pytest.mark.fault` beneath a node."""
    for node in ast.walk(place):
        if isinstance(node, ast.Attribute) and node.attr == "fault" and ast.unparse(node.value) == "pytest.mark":
            yield node


def _rows_in(places: Iterable[ast.expr]) -> Iterator[str]:
    for place in places:
        for node in ast.walk(place):
            if isinstance(node, ast.Call) and any(node.func is mark for mark in _marks(place)):
                yield from _literals(node)


def _literals(call: ast.Call) -> list[str]:
    """A call's arguments, when all of them are words."""
    words = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return words if len(words) == len(call.args) and not call.keywords else []
