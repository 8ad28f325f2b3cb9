"""What ships is listed and looked up: the lock holds all of it, and no answer is not taken for a good one.

Asks nobody: the advisories are those that a test makes up.
"""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.scripts import script

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "config/locks/runtime.txt"

pytestmark = pytest.mark.fault("F16")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The script that `make audit` runs."""
    return script("audit")


def package(**changes):
    return {"name": "one", "version": "1.0", "vulns": []} | changes


UNKNOWN = {"name": "two", "skip_reason": "not found"}
FLAW = {"id": "PYSEC-1", "fix_versions": ["1.1"]}


@pytest.mark.parametrize(
    ("packages", "complaint", "code", "says"),
    [
        ([package()], "", 0, "1 packages, no known flaw"),
        ([package(vulns=[FLAW]), UNKNOWN], "", 1, "one 1.0: PYSEC-1, mended in 1.1"),
        ([package(vulns=[FLAW | {"fix_versions": []}])], "", 1, "mended in none"),
        ([package(), UNKNOWN], "", 3, "knows nothing of 1 of 2 packages"),
        ([], "", 3, "Nothing is known"),
        ([], "no route to host", 3, "no route to host"),
    ],
)
def test_verdict_never_takes_silence_for_health(audit, packages, complaint, code, says):
    """A known flaw is exit code 1; a package that nobody could be asked about is 3, never 0."""
    found, lines = audit.judge(packages, complaint)

    assert found == code
    assert says in "\n".join(lines)


@pytest.mark.parametrize(
    ("prints", "packages", "complaint"),
    [
        ("print(json.dumps({'dependencies': [{'name': sys.argv[-1]}]}))", [{"name": "--more"}], ""),
        ("sys.exit('no such host')", [], "no such host"),
        ("print('<html>')", [], "no output"),
    ],
)
def test_tool_that_answers_nothing_useful_is_a_complaint(audit, tmp_path, monkeypatch, prints, packages, complaint):
    """Options reach pip-audit; where it dies, or prints no report, its last words are what is known."""
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!{sys.executable}\nimport json, sys\n{prints}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert audit.ask(["--more"]) == (packages, complaint)


def test_lock_that_is_audited_holds_everything_that_is_imported():
    """Whatever the package and its libraries declare, down to the last, is a line of the lock that is listed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", RUNTIME.read_text(), re.MULTILINE)}
    waiting = [*project["dependencies"], *project["optional-dependencies"]["fast"]]
    needed: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in needed or not any(_applies(requirement, extra) for extra in extras):
            continue
        needed.add(name)
        declared = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        waiting += [str(one) for one in declared if any(_applies(one, extra) for extra in extras)]

    assert len(needed) > 20
    assert needed - locked == set()


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_what_is_listed_is_what_the_image_installs():
    """The list of materials and the image are made from one lock, and the audit reads the same one."""
    recipes = subprocess.run(
        ["make", "--dry-run", "--always-make", "PYTHON=python3", "build/sbom.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert f"cyclonedx-py requirements {RUNTIME.relative_to(ROOT)}" in recipes
    assert "--require-hashes --only-binary :all: --no-compile --requirement config/locks/audit.txt" in recipes
    assert f"--only-binary :all: -r {RUNTIME.relative_to(ROOT)}" in (ROOT / "Dockerfile").read_text()


def test_list_that_was_made_holds_the_lock():
    """A build/sbom.json that is there names each locked package in its version, with its hashes."""
    made = ROOT / "build/sbom.json"
    if not made.exists() or made.stat().st_mtime < RUNTIME.stat().st_mtime:
        pytest.skip("build/sbom.json was not made since the lock changed; `make audit` makes it")
    listed = {
        (one["name"], one["version"]): sum(len(where.get("hashes", ())) for where in one["externalReferences"])
        for one in json.loads(made.read_text())["components"]
    }

    assert set(listed) == set(re.findall(r"^([\w.-]+)==(\S+)", RUNTIME.read_text(), re.MULTILINE))
    assert all(listed.values())
