"""Wheel and sdist are the tree and nothing else, and what is wrong with one is found before anybody installs it."""

import email
import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.recipe import stages
from tests.scripts import script

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INFO = f"replicator-{PROJECT['version']}.dist-info/"


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """The script that `make package` runs."""
    return script("package")


@pytest.fixture(scope="module")
def made(package, tmp_path_factory) -> tuple[Path, list[str]]:
    """Where both were built, and what was wrong with them."""
    into = tmp_path_factory.mktemp("dist")
    return into, list(package.flaws(ROOT, into))


@pytest.fixture(scope="module")
def wheel(package, made) -> dict[str, bytes]:
    (path,) = made[0].glob("*.whl")
    found: dict[str, bytes] = package.contents(path)
    return found


@pytest.fixture(scope="module")
def sdist(package, made) -> dict[str, bytes]:
    (path,) = made[0].glob("*.tar.gz")
    found: dict[str, bytes] = package.contents(path)
    return found


@pytest.mark.slow
def test_packages_are_the_tree_and_the_same_bytes_each_time(made):
    """Built twice the sdist is the same; the wheel is the same from tree and sdist; neither has more or less than it is
    to have, and an index would take their metadata."""
    assert made[1] == []


@pytest.mark.slow
def test_wheel_brings_the_files_that_are_no_code(wheel):
    """The journal's scripts and the mark of typed packages are inside."""
    assert {name for name in wheel if name.endswith((".sql", ".typed"))} >= {
        "replicator/py.typed",
        "replicator/stores/journal/schema.sql",
    }


@pytest.mark.slow
def test_wheel_works_in_an_environment_of_its_own(made, tmp_path):
    """Unpacked beside the libraries and away from the tree, all of its modules are imported and the command answers."""
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = (tmp_path / "venv/lib").glob("python3.*/site-packages")
    (wheel,) = made[0].glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    # The libraries; a .pth file beneath such a path is not read, so the checkout stays out of sight.
    (packages / "libraries.pth").write_text(str(importlib.metadata.distribution("pydantic").locate_file("")))
    python, script = tmp_path / "venv/bin/python", tmp_path / "venv/bin/replicator"
    script.write_text(f"#!{python}\nfrom replicator.cli import main\nmain()\n")
    script.chmod(0o755)
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}

    command = [python, "-P", ROOT / ".ci/installed.py"]
    tried = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert (tried.returncode, tried.stderr) == (0, "")
    assert tried.stdout == f"replicator {PROJECT['version']} is whole in {tmp_path}/venv\n"


@pytest.mark.slow
def test_image_can_be_made_of_the_sdist(sdist):
    """The recipe is inside, with whatever it copies and the rules for what reaches the builder."""
    copies = [shlex.split(rest)[:-1] for stage in stages() for rest in stage.all("COPY") if "--from=" not in rest]
    sources = {source for words in copies for source in words}

    assert {"Dockerfile", ".dockerignore"} <= sdist.keys()
    assert [name for name in sources if not any(file == name or file.startswith(f"{name}/") for file in sdist)] == []


# What is wrong is found.


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__delitem__(name)


def with_file(name: str, body: bytes = b"x") -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: body})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("replicator/stores/journal/schema.sql"), "schema.sql is missing"),
        (with_file("tests/test_x.py"), "does not belong there"),
        (with_file("replicator/__pycache__/cli.cpython-313.pyc"), "is a cache or a test"),
        (with_file("replicator/cli.py"), "replicator/cli.py is another than in the tree"),
        (with_file("replicator/cli.py"), "replicator/cli.py: RECORD says otherwise"),
        (without(f"{INFO}licenses/LICENSE"), "dist-info/ has"),
        (with_file(f"{INFO}entry_points.txt", b"[console_scripts]\nother = replicator.cli:main\n"), "another command"),
    ],
    ids=["no schema", "tests", "cache", "changed", "record", "no licence", "command"],
)
def test_what_is_wrong_with_a_wheel_is_found(package, wheel, change, says):
    """A file too few, too many or changed, and a record or a command that is another's."""
    files = dict(wheel)
    change(files)

    assert [flaw for flaw in package.flaws_of_wheel(files, package.tracked(ROOT), PROJECT["version"]) if says in flaw]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("config/locks/runtime.txt"), "runtime.txt is missing"),
        (with_file("replicator/notes.db"), "does not belong there"),
        (with_file("README.md", b"see [it](docs/NOWHERE.md)"), "leads to docs/NOWHERE.md, which is left out"),
    ],
    ids=["no lock", "journal", "link"],
)
def test_what_is_wrong_with_an_sdist_is_found(package, sdist, change, says):
    """A file too few or too many, and a page that leads to one which is left out."""
    files = dict(sdist)
    change(files)
    includes = ["/replicator", "/config", "/docs", "/README.md"]

    assert [flaw for flaw in package.flaws_of_sdist(files, package.tracked(ROOT), includes) if says in flaw]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"Version: {PROJECT['version']}", "Version: 9", "Version is"),
        ("License-Expression: Apache-2.0", "License-Expression: MIT", "License-Expression is"),
        ("Requires-Dist: typer", "X: typer", "Requires-Dist is not"),
        ("# replicator", "UNKNOWN", "the description is not README.md"),
    ],
)
def test_what_is_wrong_with_metadata_is_found(package, wheel, old, new, says):
    """A field that is not what pyproject.toml says."""
    text = wheel[f"{INFO}METADATA"].decode()
    assert old in text
    metadata = email.message_from_string(text.replace(old, new))

    assert [flaw for flaw in package.flaws_of_metadata(metadata, PROJECT) if says in flaw]


@pytest.mark.slow
def test_classifier_that_no_index_knows_is_found(package, wheel):
    """A slip in a classifier would have the index refuse the package on the day of its release."""
    metadata = email.message_from_string(wheel[f"{INFO}METADATA"].decode())
    project = PROJECT | {"classifiers": [*PROJECT["classifiers"], "Topic :: Nothing"]}

    assert "Classifier Topic :: Nothing is unknown" in list(package.flaws_of_metadata(metadata, project))
