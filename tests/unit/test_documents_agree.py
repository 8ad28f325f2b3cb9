"""The documents say what the code does: every name in them exists, and every promise has its tests.

Parses documents as text and tests as syntax trees; runs nothing of either.
"""

import ast
import functools
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator import cli
from replicator.commands.exits import Exit
from replicator.config.settings import FLAGS
from replicator.config.storage import BUCKET_WORDS
from replicator.controlplane.settings import EdgeApiSettings, OperatorSettings
from replicator.observe import edge_metrics, operator_metrics
from replicator.observe.metrics import TABLE, Kind
from replicator.observe.status import State

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "replicator"
TESTS = ROOT / "tests"
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
PROMISES = [*(f"E{number}" for number in range(1, 7)), *(f"I{number}" for number in range(1, 7))]
PROMISES += [f"B{number}" for number in range(1, 10)]

COMMANDS = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}

SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)\)")
COMMAND = re.compile(r"(?<![\w./-])replicator ([a-z][a-z-]*)\b")
CALLED = re.compile(r"^replicator ([a-z][a-z-]*)", re.MULTILINE)
SETTING = re.compile(r"\bREPLICATOR_[A-Z0-9_]*[A-Z0-9]\b")
BUCKET_WORD = re.compile(r"\b(?:OBC|EXTERNAL)_([A-Za-z][A-Za-z0-9_.]*[A-Za-z0-9])")
METRIC = re.compile(r"\b(?<!#)replicator_[a-z0-9_]+\b")  # behind a # it is the heading of a setting
CITED_TEST = re.compile(r"^- `([\w/]+\.py)::([\w:]+)`$", re.MULTILINE)
MODULE = re.compile(r"[a-z_]+(\.[A-Za-z_]+)*")
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def in_documents(faults: Callable[[str], set[str]]) -> dict[str, set[str]]:
    """What is wrong with the text of each document, by its name."""
    texts = ((named(path), path.read_text(encoding="utf-8")) for path in DOCUMENTS)
    return {name: found for name, text in texts if (found := faults(text))}


def code_of(text: str) -> Iterator[str]:
    """What a document shows as code: its blocks, and the spans outside them."""
    yield from FENCE.findall(text)
    yield from SPAN.findall(FENCE.sub("", text))


def rows_of(text: str) -> list[list[str]]:
    """The cells of every table row."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# Promises


def promises() -> dict[str, str]:
    """The text of each promise of SEMANTICS.md by its id."""
    parts = re.split(r"^### ([EIB]\d+)\b", text_of("SEMANTICS.md"), flags=re.MULTILINE)
    texts = (re.split(r"^## ", part, flags=re.MULTILINE)[0] for part in parts[2::2])
    return dict(zip(parts[1::2], texts, strict=True))


@functools.cache
def claims_in(path: Path) -> dict[str, str]:
    """The tests of a file, as pytest names them, with their docstrings."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name.startswith("test_"):
                found[prefix + member.name] = ast.get_docstring(member) or ""
    return found


def missing_tests(text: str) -> list[str]:
    """The tests that a text cites and that are not there."""
    return [
        f"{file}::{name}"
        for file, name in CITED_TEST.findall(text)
        if not (TESTS / file).is_file() or name not in claims_in(TESTS / file)
    ]


def test_every_promise_is_there_in_order():
    """SEMANTICS.md has each of the promises, once, and no other."""
    headings = re.findall(r"^### ([A-Z]\d+)\b", text_of("SEMANTICS.md"), flags=re.MULTILINE)

    assert headings == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_promise_has_a_test(promise):
    """A promise that no test holds is a wish; one of its tests at least states it in its own docstring."""
    cited = CITED_TEST.findall(promises()[promise])

    assert any(claims_in(TESTS / file).get(name, "").startswith(f"{promise}:") for file, name in cited)


def test_every_test_of_a_promise_exists():
    """Each test that SEMANTICS.md names is there."""
    assert missing_tests(text_of("SEMANTICS.md")) == []


def test_every_boundary_of_security_has_its_tests():
    """SECURITY.md names for each boundary the tests that hold it, and each of them is there."""
    boundaries = text_of("SECURITY.md").partition("## Who can do what")[2].partition("\n## ")[0].split("\n### ")[1:]

    assert len(boundaries) > 6
    assert [text.partition("\n")[0] for text in boundaries if not CITED_TEST.search(text)] == []
    assert missing_tests(text_of("SECURITY.md")) == []


def test_policy_for_credentials_allows_what_is_asked_for_and_no_deleting():
    """The policy in SECURITY.md is JSON, stays beneath its prefix, and lets nobody delete an object."""
    policy = json.loads(re.findall(r"^```json\n(.*?)^```", text_of("SECURITY.md"), re.MULTILINE | re.DOTALL)[0])
    listing, objects = policy["Statement"]

    assert listing["Action"] == ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["PREFIX/*"]}}
    assert objects["Action"] == ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    assert objects["Resource"].endswith("/PREFIX/*")


def test_there_is_one_policy():
    """What operators copy from docs/operations/credentials.md is the policy of SECURITY.md."""
    policies = [
        re.findall(r"^```json\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
        for page in ("SECURITY.md", "docs/operations/credentials.md")
    ]

    assert policies[0] == policies[1]


def test_every_test_of_the_semantics_is_cited_by_its_promise():
    """A test of tests/semantics whose docstring begins with a promise's id stands under that promise."""
    texts = promises()
    uncited = [
        f"{claim}: {named(path)}::{name}"
        for path in sorted((TESTS / "semantics").glob("test_*.py"))
        for name, docstring in claims_in(path).items()
        if (claim := re.match(r"[EIB]\d+(?=:)", docstring))
        if f"`{path.relative_to(TESTS).as_posix()}::{name}`" not in texts.get(claim.group(), "")
    ]

    assert uncited == []


# Commands, settings, metrics


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_page_names_every_command_and_no_other(page):
    """`replicator <command>` on the front page and on that of the commands is one of the program; none is left out."""
    shown = {name for code in code_of(text_of(page)) for name in COMMAND.findall(code)}

    assert shown == COMMANDS


def test_commands_in_documents_exist():
    """What a document calls, at the beginning of a line or of a span, is a command of the program."""
    assert in_documents(lambda text: {name for code in code_of(text) for name in CALLED.findall(code)} - COMMANDS) == {}


def test_every_exit_code_is_told():
    """The table of exit codes is that of the command line."""
    shown = {int(row[0]) for row in rows_of(text_of("docs/commands.md")) if row[0].isdecimal()}

    assert shown == set(Exit)


def test_every_state_is_told():
    """The table of states has each of them, no other, and begins with the first."""
    heading = "| State | Meaning |"
    table = text_of("docs/safe.md").partition(heading)[2].partition("\n\n")[0]
    shown = [SPAN.findall(row[0])[0] for row in rows_of(table) if row[0].startswith("`")]

    assert shown[0] == State.STARTING
    assert set(shown) == {state.value for state in State}


def test_every_path_that_is_answered_is_told():
    """The table of paths has each that the HTTP door answers, but for the page's own files, and no other."""
    answered = set(re.findall(r'"(/[a-z]*)"', text_of("replicator/observe/pages.py")))
    shown = {row[0].strip("`").partition("?")[0] for row in rows_of(text_of("docs/safe.md")) if row[0].startswith("`/")}

    assert shown == answered


def unknown_settings(text: str) -> set[str]:
    variables = {flag.variable for flag in FLAGS}
    known = variables | {f"{variable}_FILE" for variable in variables}
    known |= set(EdgeApiSettings.variables()) | set(OperatorSettings.variables())
    known |= set(SETTING.findall(text_of("tests/conftest.py")))  # what chooses the server of the tests
    return set(SETTING.findall(text)) - known


def test_settings_in_documents_exist():
    """Every REPLICATOR_ variable in a document is a setting."""
    assert in_documents(unknown_settings) == {}


def test_bucket_words_in_documents_exist():
    """What stands behind OBC_ and EXTERNAL_ is a word that is read."""
    known = {*BUCKET_WORDS, *(f"{word}_FILE" for word in BUCKET_WORDS)}

    assert in_documents(lambda text: set(BUCKET_WORD.findall(text)) - known) == {}


def test_defaults_in_the_readme_are_the_defaults():
    """The table of settings has every default as it is."""
    defaults = {flag.variable: flag.default for flag in FLAGS}
    shown = {
        variable: row[1].strip("`")
        for row in rows_of(text_of("README.md"))
        if row[0].startswith("`REPLICATOR_")
        for variable in SPAN.findall(row[0])
    }

    assert shown
    assert shown == {variable: defaults[variable] for variable in shown}


def test_page_of_the_edge_api_has_every_setting_and_metric():
    """Each variable with its default, each metric, and no other."""
    page = text_of("docs/EDGE-API.md")
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows_of(page) if row[0].startswith("`REPLICATOR_")}
    fields = EdgeApiSettings.model_fields
    defaults = {name: str(fields[field].default) for name, field in EdgeApiSettings.variables().items()}

    assert shown == {name: default.removesuffix(".0") or "empty" for name, default in defaults.items()}
    assert set(METRIC.findall(page)) == {metric.name for metric in edge_metrics.TABLE.values()}


def unknown_metrics(text: str) -> set[str]:
    series = {
        metric.name + suffix
        for metric in (*TABLE.values(), *edge_metrics.TABLE.values(), *operator_metrics.TABLE.values())
        for suffix in ("", *(("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ()))
    }
    return set(METRIC.findall(text)) - series


def test_metrics_in_documents_exist():
    """Every replicator_ series in a document is exposed."""
    assert in_documents(unknown_metrics) == {}


# Modules, paths, links


def missing_name(span: str) -> bool:
    """Whether a code span is a module, a symbol in one or a path, and there is none.

    Modules are dotted and begin with a room (`transfer.gate.Gate`); paths count from the root or the package.
    """
    room = span.partition(".")[0]
    is_room = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
    if MODULE.fullmatch(span) and is_room and not re.search(r"\.(py|md)$", span):
        return not _is_importable(span)
    if PATH.fullmatch(span) and ("/" in span or re.search(r"\.(py|sql|md|toml|json|ya?ml|env)$", span)):
        return not any((top / span).exists() for top in (ROOT, PACKAGE))
    return False


def _is_importable(dotted: str) -> bool:
    parts = dotted.split(".")
    found: object
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["replicator", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name, None)
        return found is not None
    return False


def tree_of(text: str) -> list[str]:
    """The paths of the map in ARCHITECTURE.md: a name a line, indented beneath its directory."""
    block = next(block for block in FENCE.findall(text) if block.startswith("replicator/"))
    above: list[str] = []
    paths = []
    for line in block.splitlines():
        name = line.split()[0]
        del above[(len(line) - len(line.lstrip())) // 2 :]
        paths.append("/".join([*above, name.rstrip("/")]))
        above.append(name.rstrip("/"))
    return paths


# Names of what a run makes, which no tree has.
MADE = {".replicator/canary", ".replicator/tmp", ".venv/.demo"}


def test_names_in_the_architecture_exist():
    """Every module, symbol and path that ARCHITECTURE.md names is there."""
    spans = set(SPAN.findall(FENCE.sub("", text_of("ARCHITECTURE.md")))) - MADE
    paths = {span for span in spans if PATH.fullmatch(span) and "/" in span and not span.startswith("/")}

    assert len(paths) > 20
    assert sorted(span for span in spans if not span.startswith(("/", "md5")) and missing_name(span)) == []


def test_map_is_the_territory():
    """The tree in ARCHITECTURE.md has every module of the package, and nothing else."""
    territory = {named(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    territory |= {named(path) for path in PACKAGE.rglob("*.sql")}
    territory |= {named(path) for path in [PACKAGE / "observe/page", *(PACKAGE / "observe/page").iterdir()]}
    territory |= {named(path.parent) for path in PACKAGE.rglob("__init__.py")} | {"replicator/__init__.py"}
    drawn = tree_of(text_of("ARCHITECTURE.md"))

    assert sorted(drawn) == sorted(territory)


def test_layers_are_those_that_are_enforced():
    """The layers in ARCHITECTURE.md are those of the import contract, line by line."""
    contract = text_of("pyproject.toml").partition("\nlayers = [")[2].partition("]")[0]
    enforced = [re.sub(r"[()]", "", line) for line in re.findall(r'"(.+)"', contract)]
    block = next(block for block in FENCE.findall(text_of("ARCHITECTURE.md")) if block.startswith("cli\n"))

    assert block.splitlines() == enforced


def test_links_lead_somewhere():
    """A link to a file of this tree leads to one."""
    links = [(path, link) for path in DOCUMENTS for link in LINK.findall(path.read_text(encoding="utf-8"))]
    within = [(path, link) for path, link in links if "://" not in link]

    assert [(named(path), link) for path, link in within if not (path.parent / link).exists()] == []


# The checks themselves can fail.


@pytest.mark.parametrize(
    "span", ["transfer.nowhere", "transfer.retry.Nothing", "stores/nowhere.py", "pyproject.yaml", "tests/nowhere"]
)
def test_a_name_that_is_nowhere_is_found(span):
    """A module, a symbol and a path that are not there are seen."""
    assert missing_name(span)


@pytest.mark.parametrize(
    "span", ["transfer.retry", "transfer.gate.Gate", "stores.lane.Lane.is_echo", "report.py", "config/", "make check"]
)
def test_a_name_that_is_there_passes(span):
    """Modules, symbols, paths, and words that are none of these, are no fault."""
    assert not missing_name(span)


def test_a_slip_in_a_document_is_found():
    """A setting, a metric and a test that are not there are seen."""
    slip = "REPLICATOR_TRANSFER and replicator_files\n- `semantics/test_egress.py::test_x`\n- `no.py::test_x`\n"

    assert unknown_settings(slip) == {"REPLICATOR_TRANSFER"}
    assert unknown_metrics(slip) == {"replicator_files"}
    assert missing_tests(slip) == ["semantics/test_egress.py::test_x", "no.py::test_x"]
