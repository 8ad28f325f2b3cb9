"""The rules of the house that no linter can say: sizes, doors, docstrings, and words that do not belong here.

The layers, cycles and purity of rooms are import-linter's contracts in pyproject.toml; names of functions that touch
files are ruff's `banned-api` there.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "replicator"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

MODULE_LINES = 400
CLASS_LINES = 150
CLASS_METHODS = 12
FUNCTION_LINES = 60

# One door a library: whoever else needs it asks the room that owns it.
DOORS = {
    "aiobotocore": ("replicator.stores.s3.*",),
    "aiohttp": ("replicator.stores.s3.*", "replicator.cluster.connection", "replicator.controlplane.edge_api.*"),
    "botocore": ("replicator.stores.s3.*",),
    "fsspec": ("replicator.stores.s3.*",),
    "kopf": ("replicator.controlplane.operator.watching",),
    "localbucket": ("replicator.demo*",),
    "obstore": ("replicator.stores.s3.fast*",),
    "prometheus_client": ("replicator.observe.*",),
    "s3fs": ("replicator.stores.s3.*",),
    "sqlite3": ("replicator.stores.journal.*",),
    "tenacity": ("replicator.transfer.retry",),
    "watchfiles": ("replicator.detect.watchfiles",),
}

# Rooms that may touch files; only replicator.stores touches exports.
FILE_DOORS = (
    "replicator.stores.*",
    "replicator.config.*",
    "replicator.cluster.access",
    "replicator.demo*",
)

# Methods that only a Path has, and those that our own doors have as well, which count on an evident Path.
PATH_DEEDS = {
    *("chmod", "expanduser", "hardlink_to", "is_dir", "is_file", "is_fifo", "is_mount", "is_socket", "is_symlink"),
    *("iterdir", "lstat", "mkdir", "read_bytes", "read_text", "readlink", "rglob", "rmdir", "symlink_to", "touch"),
    *("unlink", "write_bytes", "write_text"),
}
SHARED_DEEDS = {"exists", "glob", "open", "rename", "resolve", "stat", "walk"}


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in `tree`, also by name from its package (`from aiohttp import web`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def foreign_imports(module: str, tree: ast.AST) -> list[str]:
    """Imports of a library through whose door this module does not go."""
    return [
        f"{module} imports {imported}"
        for imported in sorted(set(imports_of(tree)))
        for library, doors in DOORS.items()
        if imported == library or imported.startswith(f"{library}.")
        if not any(fnmatch(module, door) for door in doors)
    ]


def file_deeds(tree: ast.AST) -> list[str]:
    """Calls that touch a file by its name: the builtin open, and the methods of Path."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append(f"line {node.lineno}: open()")
        if isinstance(node, ast.Attribute) and (
            node.attr in PATH_DEEDS or (node.attr in SHARED_DEEDS and _is_path(node.value))
        ):
            found.append(f"line {node.lineno}: .{node.attr}")
    return found


def _is_path(node: ast.expr) -> bool:
    """Whether an expression is a Path by its looks: Path(...), or that with '/', a parent or a method behind it."""
    match node:
        case ast.Call(func=ast.Name(id="Path")):
            return True
        case ast.Call(func=ast.Attribute(value=inner)) | ast.Attribute(value=inner) | ast.BinOp(left=inner):
            return _is_path(inner)
        case _:
            return False


def oversized(tree: ast.AST) -> list[str]:
    """Classes and functions above the ceilings of the house."""
    found = []
    for node in ast.walk(tree):
        lines = (getattr(node, "end_lineno", None) or 0) - getattr(node, "lineno", 0) + 1
        if isinstance(node, ast.ClassDef):
            methods = [
                item.name
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                if not (item.name.startswith("__") and item.name.endswith("__"))
            ]
            if lines > CLASS_LINES:
                found.append(f"class {node.name} has {lines} lines, {CLASS_LINES} at most")
            if len(methods) > CLASS_METHODS:
                found.append(f"class {node.name} has {len(methods)} methods, {CLASS_METHODS} at most")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines > FUNCTION_LINES:
            found.append(f"{node.name}() has {lines} lines, {FUNCTION_LINES} at most")
    return found


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in (*MODULES, *TESTS)}


def test_modules_keep_to_the_sizes_of_the_house(trees):
    """No module, class or function grows beyond what one head holds."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}

    assert {named(path): count for path, count in lines.items() if count > MODULE_LINES} == {}
    assert {named(path): found for path in MODULES if (found := oversized(trees[path]))} == {}


def test_modules_say_what_they_are(trees):
    """Every module of the package and of the tests begins with a docstring."""
    assert [named(path) for path in (*MODULES, *TESTS) if not ast.get_docstring(trees[path])] == []


def test_subpackages_hold_no_code(trees):
    """The `__init__.py` of a room is its sign on the door and nothing else."""
    rooms = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]

    assert [named(path) for path in rooms if len(trees[path].body) != 1] == []


def test_libraries_are_reached_through_one_door(trees):
    """A library is imported by the room that owns it and by no other."""
    assert [found for path in MODULES for found in foreign_imports(name_of(path), trees[path])] == []


def test_files_are_touched_by_the_rooms_that_may(trees):
    """Exports are reached through replicator.stores only: beneath the root, no links followed."""
    others = [path for path in MODULES if not any(fnmatch(name_of(path), door) for door in FILE_DOORS)]

    assert {named(path): found for path in others if (found := file_deeds(trees[path]))} == {}


def test_every_test_states_its_claim(trees):
    """Each test function has a docstring: the claim that it proves."""
    silent = [
        f"{named(path)}: {node.name}"
        for path in TESTS
        for node in ast.walk(trees[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


# The checks themselves can fail.


@pytest.mark.parametrize(
    "source",
    [
        "open('x')",
        "path.read_text()",
        "Path('x').open()",
        "(Path(root) / 'x').stat()",
        "Path(root).parent.resolve()",
        "for entry in path.iterdir(): pass",
    ],
)
def test_a_file_touched_by_name_is_found(source):
    """Each way past the doors is seen."""
    assert file_deeds(ast.parse(source))


def test_our_own_doors_are_not_taken_for_files():
    """An export's `open` and `stat` have names of Path methods and are no file access by name."""
    assert file_deeds(ast.parse("export.open(relpath)\nexport.stat(relpath)\nexport.walk()\nos.environ.get('x')")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.stat('x')",
        "from os import rename\nrename('a', 'b')",
        "import os\nos.path.exists('x')",
        "import shutil",
        "import tempfile",
    ],
)
@pytest.mark.parametrize(
    ("module", "findings"), [("replicator/transfer/push.py", True), ("replicator/stores/files.py", False)]
)
def test_the_linter_bans_functions_on_files_outside_the_doors(source, module, findings):
    """ruff's list of banned functions is in force in every room but those that may touch files."""
    command = [".venv/bin/ruff", "check", "--no-cache", "--quiet", "--select=TID251", f"--stdin-filename={module}", "-"]
    if not (ROOT / command[0]).exists():
        command[0] = "ruff"

    ruff = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=False)

    assert ruff.returncode == int(findings), ruff.stderr
    assert ("TID251" in ruff.stdout) == findings


@pytest.mark.parametrize(
    ("module", "source", "findings"),
    [
        ("replicator.transfer.push", "import s3fs", True),
        ("replicator.detect.egress_sweep", "from sqlite3 import connect", True),
        ("replicator.cli", "from aiohttp import web", True),
        ("replicator.stores.s3.session", "import aiobotocore.session", False),
        ("replicator.observe.http", "from aiohttp import web", True),
        ("replicator.stores.s3.base", "import aiohttp", False),
    ],
)
def test_a_library_behind_another_door_is_found(module, source, findings):
    """An import past the owner is seen, the owner's own is not."""
    assert bool(foreign_imports(module, ast.parse(source))) == findings


def test_what_is_too_large_is_found():
    """Long classes, crowded classes and long functions are seen."""
    crowded = "class Crowded:\n" + "".join(f"    def method_{n}(self): ...\n" for n in range(CLASS_METHODS + 1))
    long = "def long():\n" + "    pass\n" * FUNCTION_LINES
    large = "class Large:\n" + "    field = 0\n" * CLASS_LINES

    assert [len(oversized(ast.parse(source))) for source in (crowded, long, large)] == [1, 1, 1]


# Words that belong to a machine, not to the project. Written in pieces, so that this file does not hold them.
FORBIDDEN = re.compile(
    "|".join(
        [
            "(?<![a-z0-9_.])/" + "(work|root|opt/pypi|opt/wheels)/",
            "(pypi|pythonhosted)" + r"\.org",
            "npmjs" + r"\.(com|org)",
            "proxy" + r"\.golang\.org",
            "crates" + r"\.io",
        ]
    )
)
DOCUMENT = re.compile(r"(?<![\w/.-])[A-Z][A-Z0-9-]{3,}\.md\b")


def tracked() -> list[Path]:
    """Every file of the tree that is, or would be, under version control."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are the project's is not known")
    return [ROOT / name for name in listing if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_package_index():
    """The tree builds anywhere: no path of one machine, no host of one registry."""
    found = [
        f"{named(path)}: {match.group()}"
        for path in tracked()
        if (match := FORBIDDEN.search(path.read_text(encoding="utf-8", errors="replace")))
    ]

    assert found == []


_PAGES = {"mkdocs.yml": ROOT / "docs"}
"""Where a file's names of documents count from, if not from the root and not from beside it."""


def test_documents_that_are_mentioned_exist():
    """A document named anywhere in the tree is part of the tree."""
    missing = {
        f"{named(path)}: {document}"
        for path in tracked()
        for document in DOCUMENT.findall(path.read_text(encoding="utf-8", errors="replace"))
        if not any((place / document).exists() for place in (ROOT, path.parent, _PAGES.get(path.name, ROOT)))
    }

    assert sorted(missing) == []


@pytest.mark.parametrize("text", ["see /" + "work/x", "https://pypi" + ".org/simple", "RUN ls /" + "root/y"])
def test_a_forbidden_word_is_found(text):
    """The words are seen where they stand."""
    assert FORBIDDEN.search(text)
