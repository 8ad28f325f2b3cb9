"""What continuous integration makes of the answers of its steps: stand-ins give them, nothing is built or installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REAL = ("bash", "dirname", "env", "sh", "timeout")


def stand_in(path: Path, line: str, code: int = 0) -> None:
    """A program that writes `line` into the log and ends with `code`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{line}" >> "$LOG"\nexit {code}\n')
    path.chmod(0o755)


@pytest.fixture
def ci(tmp_path):
    """Runs .ci/run in a tree of stand-ins: its exit code, what it said, and what it ran."""
    for tool in REAL:
        if not (found := shutil.which(tool)):
            pytest.skip(f"{tool} is not installed")
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(found)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")

    def run(*, there: tuple[str, ...] = ("chromium", "prometheus"), **codes: int) -> tuple[int, str, list[str]]:
        bin_ = tmp_path / "bin"
        for name in ("make", "apt-get", *there):
            stand_in(bin_ / name, f"{name} $*", codes.get(name.replace("-", "_"), 0))
        stand_in(tmp_path / ".venv-audit/bin/python", "audit", codes.get("audit", 0))
        stand_in(tmp_path / ".ci/image", "image", codes.get("image", 0))
        (tmp_path / "log").touch()
        environ = {"PATH": str(bin_), "LOG": str(tmp_path / "log"), "HOME": os.environ.get("HOME", "/")}
        done = subprocess.run(
            [tmp_path / ".ci/run"], env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=30
        )
        return done.returncode, done.stdout + done.stderr, (tmp_path / "log").read_text().splitlines()

    return run


def test_every_step_runs_in_its_order(ci):
    """Where everything is there nothing is installed; audit and packages come before the checks, the image last."""
    code, said, ran = ci()

    assert code == 0
    assert ran == [
        "make .venv/.dev",
        "make .venv-audit/.made build/sbom.json",
        "audit",
        "make .venv-docs/.made",
        "make package",
        "make check",
        "make test",
        "image",
    ]
    assert said.count("exit 0 after") == len(ran)


def test_what_the_tests_would_like_is_installed(ci):
    """A browser or a Prometheus that is missing is asked of apt, once, and only what is missing."""
    code, _, ran = ci(there=("chromium",))

    assert code == 0
    assert [line for line in ran if "apt-get" in line] == [
        "apt-get update -q",
        "apt-get install -qy --no-install-recommends prometheus",
    ]


def test_what_cannot_be_installed_is_said_and_no_fault(ci):
    """Without rights or a network apt fails; the log says which tests are skipped, and everything else runs."""
    code, said, ran = ci(there=(), apt_get=100)

    assert code == 0
    assert "not installed: chromium prometheus; the tests that need them are skipped" in said
    assert ran[-2:] == ["make test", "image"]


@pytest.mark.parametrize("step", ["audit", "image"])
def test_step_that_has_nobody_to_ask_is_no_fault(ci, step):
    """Exit code 3 says that the advisories, or a builder of images, are out of reach; the others go on."""
    code, said, ran = ci(**{step: 3})

    assert code == 0
    assert f"== {step}: exit 3" in said
    assert "make test" in ran


@pytest.mark.parametrize(("step", "last"), [("audit", "audit"), ("image", "image"), ("make", "make .venv/.dev")])
def test_fault_of_a_step_ends_the_run(ci, step, last):
    """Any other exit code is CI's own, and nothing runs after it."""
    code, _, ran = ci(**{step: 1})

    assert (code, ran[-1]) == (1, last)
