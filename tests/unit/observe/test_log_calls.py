"""Every log call of the package keeps to the rules: a fixed lower-case phrase, fields from the list."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import replicator.observe.logs as logs_module
from replicator.observe.logs import FIELDS

PACKAGE = Path(logs_module.__file__).parents[1]
LEVELS = {"debug", "info", "warning", "error"}


def faults(source: str) -> Iterator[str]:
    """What is wrong with the log calls of one module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            receiver = node.func.value
            name = getattr(receiver, "id", getattr(receiver, "attr", ""))
            if name.strip("_").lower() in {"log", "logger"}:
                yield from (f"line {node.lineno}: {fault}" for fault in faults_of_call(node))


def phrases_of(argument: ast.expr) -> list:
    """The constant, or both of `"object stored" if ... else "file stored"`; None where it is not fixed."""
    if isinstance(argument, ast.IfExp):
        return [*phrases_of(argument.body), *phrases_of(argument.orelse)]
    return [argument.value if isinstance(argument, ast.Constant) else None]


def faults_of_call(call: ast.Call) -> Iterator[str]:
    phrases = [phrase for argument in call.args for phrase in phrases_of(argument)]
    if len(call.args) != 1 or not all(isinstance(phrase, str) for phrase in phrases):
        yield "the phrase is not one fixed string"
    elif any(not text or text[0].isupper() or not text.isascii() or set(text) & set("%{}.\n") for text in phrases):
        yield f"not a lower-case phrase: {phrases}"
    for keyword in call.keywords:
        if keyword.arg is None:
            yield "fields are written out, not passed with **"
        elif keyword.arg not in FIELDS:
            yield f"unknown field {keyword.arg}: add it to FIELDS or use one that is there"


def test_log_calls_keep_to_the_rules():
    """A dashboard or an alert that reads a field finds it under one name in all rooms."""
    modules = sorted(PACKAGE.rglob("*.py"))

    assert {str(path): found for path in modules if (found := list(faults(path.read_text("utf-8"))))} == {}


@pytest.mark.parametrize(
    "call",
    [
        "log.info('object stored', colour=1)",
        "_log.info(f'object {key} stored')",
        "self._log.warning('Object stored')",
        "log.error('stored %s', key)",
        "log.debug('stored', **fields)",
        "log.debug(phrase)",
        "LOG.info('object stored.')",
        "log.info('')",
        "log.info()",
        "log.info('stored' if x else phrase)",
        "log.info('stored' if x else 'Fetched')",
    ],
)
def test_rules_see_a_fault(call):
    """The check itself can fail, for each rule."""
    assert len(list(faults(call))) == 1


@pytest.mark.parametrize(
    "call", ["log.info('object stored', key=1)", "log.info('stored' if x else 'fetched')", "console.error('Any', x=1)"]
)
def test_rules_pass_what_is_right(call):
    """A good call, and a call of something that is no log."""
    assert list(faults(call)) == []
