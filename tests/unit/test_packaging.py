"""What ships besides the package: locks, Makefile, CI, image recipe, licence, changelog.

Nothing here needs Docker, a network or a second environment: recipes are read, and the commands in them that can run
on any machine are run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.recipe import Stage, stages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("runtime", "demo", "dev")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def normal(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Locks


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def pins(lock: str) -> list[Pin]:
    """The requirements of a lock; a line of any other form is an error."""
    found = []
    for line in text_of(f"config/locks/{lock}.txt").replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"([\w.-]+)==(\S+)( ; .*?)?((?:\s+--hash=sha256:[0-9a-f]{64})*)\s*", line)
        assert match, f"{lock}.txt: not a pinned requirement: {line[:80]!r}"
        name, version, marker, hashes = match.groups(default="")
        found.append(Pin(normal(name), version, marker, tuple(hashes.split())))
    return found


@pytest.mark.fault("F16")
@pytest.mark.parametrize("lock", [*LOCKS, "audit", "bench"])
def test_lock_pins_every_requirement_by_hash(lock):
    """Every line of a lock is one version with its hashes, and names no index."""
    assert [pin.name for pin in pins(lock) if not pin.hashes] == []


def test_locks_agree_on_every_version():
    """The dev lock holds the runtime lock and the demo lock, version for version."""
    runtime, demo, dev = ({(pin.name, pin.version, pin.hashes) for pin in pins(lock)} for lock in LOCKS)

    assert runtime - dev == set()
    assert demo - dev == set()


@pytest.mark.fault("F16")
def test_runtime_lock_covers_the_dependencies():
    """What the package declares is locked, and nothing is declared that the lock does not hold."""
    declared = {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in PROJECT["dependencies"]}

    assert declared - {pin.name for pin in pins("runtime")} == set()


# Makefile, CI, pre-commit


@pytest.fixture(scope="module")
def make():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")

    def run(*arguments: str) -> str:
        # Without the variables of a make that runs these tests: they would print its directory too.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout

    return run


def test_make_alone_lists_what_can_be_made(make):
    """`make` without a target prints a line for each thing a person would ask for, and does nothing."""
    listed = re.findall(r"^  make (\S+)", make(), flags=re.MULTILINE)

    assert {"demo", "test", "check", "format", "lock", "clean"} <= set(listed)


def test_make_check_is_every_check_there_is(make):
    """`make check` runs formatter, linter, types, contracts and unit tests."""
    recipe = make("--dry-run", "--always-make", "PYTHON=python3", "check")

    for command in ("ruff format --check", "ruff check", "bin/mypy", "lint-imports", "pytest tests/unit"):
        assert command in recipe


@pytest.mark.fault("F16")
def test_environments_are_made_from_hash_locks_only(make):
    """Every installation of a third party's code is checked against hashes, and the project's own asks no index."""
    recipe = make("--dry-run", "--always-make", "PYTHON=python3", ".venv/.dev").replace("\\\n", " ")
    installs = re.findall(r"pip install (.*)", recipe)

    assert len(installs) >= 3
    for install in installs:
        assert {"--require-hashes", "--only-binary"} <= set(install.split()) or "--no-index --editable ." in install


def test_ci_begins_with_what_a_commit_must_pass():
    """CI and pre-commit run `make check`, the same command as a person."""
    steps = re.findall(r"^step \S.*? (make .*)$", text_of(".ci/run"), flags=re.MULTILINE)

    assert steps[-2:] == ["make check", "make test"]
    assert "entry: make check" in text_of(".pre-commit-config.yaml")


def test_ci_script_is_executable_and_stops_at_the_first_fault():
    """.ci/run can be started as it is, parses, and has the shell's strict mode on."""
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "set -euo pipefail" in text_of(".ci/run")
    if bash := shutil.which("bash"):
        assert subprocess.run([bash, "-n", str(ROOT / ".ci/run")], check=False).returncode == 0


# The image


def copied_sources(stage: Stage) -> Iterator[str]:
    """What a stage copies out of the checkout."""
    for rest in stage.all("COPY"):
        words = shlex.split(rest)
        if not words[0].startswith("--from="):
            yield from words[:-1]


def test_image_that_cannot_be_built_here_says_what_is_missing(tmp_path):
    """Without a builder `make image` names each that it looked for, and ends with a code that CI takes for no fault."""
    for tool in ("dirname", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not installed"))
    bash = shutil.which("bash") or pytest.skip("bash is not installed")
    done = subprocess.run(
        [bash, ROOT / ".ci/image"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 3
    assert [line for line in done.stderr.splitlines() if "is not installed" in line] == [
        f"{builder} is not installed" for builder in ("podman", "docker", "buildah")
    ]
    assert "No image was built" in done.stderr


def test_image_is_built_in_one_stage_and_run_in_another():
    """The tools that build stay behind: the last stage installs nothing and copies from the builder only."""
    builder, final = stages()

    assert builder.name == "builder"
    assert list(copied_sources(final)) == []
    assert [rest for rest in final.all("RUN") if "pip" in rest or "apt" in rest] == []


@pytest.mark.fault("F16")
def test_image_base_is_pinned_in_one_place():
    """Both stages stand on one base, whose tag names a Python version."""
    assert {stage.base for stage in stages()} == {"${PYTHON_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim", text_of("Dockerfile"), flags=re.MULTILINE)


@pytest.mark.fault("F16")
def test_image_installs_from_hash_locks_only():
    """Every package in the image is checked against the lock, or is the wheel built from this tree."""
    steps = [step for rest in stages()[0].all("RUN") for step in rest.split("&&")]
    commands = [step for step in steps if re.search(r"pip.* install", step)]

    assert any("config/locks/runtime.txt" in command for command in commands)
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes --only-binary :all:" in command or "--no-index dist/*.whl" in command


@pytest.mark.fault("F16")
def test_image_runs_without_root():
    """The last word on the user is a number that is not 0, which Kubernetes can check (runAsNonRoot)."""
    assert stages()[-1].all("USER")[-1] == "65532:65532"


@pytest.mark.fault("F16")
def test_image_writes_to_its_volume_only():
    """On a read-only root file system nothing tries to write but the journal: no bytecode, HOME in /tmp."""
    environment = " ".join(stages()[-1].all("ENV"))

    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "HOME=/tmp" in environment
    assert stages()[-1].all("VOLUME") == ['["/var/lib/replicator"]']


def test_image_takes_commands_as_arguments():
    """The image is the `replicator` command; without arguments it runs."""
    final = stages()[-1]

    assert [json.loads(final.all(word)[-1]) for word in ("ENTRYPOINT", "CMD")] == [["replicator"], ["run"]]


def test_image_sources_exist_and_reach_the_builder():
    """What the recipe copies is in the tree, and .dockerignore lets it through."""
    allowed = [line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")]
    sources = [source for stage in stages() for source in copied_sources(stage)]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not any(fnmatch(source, pattern) for pattern in allowed)] == []


@pytest.mark.fault("F16")
def test_builder_sees_nothing_that_is_not_named():
    """.dockerignore leaves everything out first, so no local state or secret slips into a layer."""
    rules = [line for line in text_of(".dockerignore").splitlines() if line and not line.startswith("#")]

    assert rules[0] == "*"


class HealthServer(HTTPServer):
    """Somebody who is asked for his health."""

    status = 200


class Health(BaseHTTPRequestHandler):
    """Answers /healthz with the server's `status`, and anything else with 404."""

    server: HealthServer

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def health_server():
    server = HealthServer(("127.0.0.1", 0), Health)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def probe(listen: str) -> int:
    """The exit code of the image's own health check, behind a proxy that leads nowhere."""
    check = stages()[-1].all("HEALTHCHECK")[-1]
    python, *arguments = json.loads(check[check.index("CMD") + 3 :])
    assert python == "python"
    environ = {"REPLICATOR_HTTP_LISTEN": listen, "http_proxy": "http://127.0.0.1:9", "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_image_health_check_tells_alive_from_dead(health_server, status, code):
    """The health check passes on 200 and fails on 503, whatever proxy the environment names."""
    health_server.status = status

    assert probe(f"0.0.0.0:{health_server.server_port}") == code


def test_image_health_check_passes_when_http_is_off():
    """With HTTP switched off there is nothing to ask, and the container is not called unhealthy for it."""
    assert probe("") == 0


def test_image_health_check_fails_when_nobody_answers(health_server):
    """A process that does not listen is unhealthy."""
    port = health_server.server_port
    health_server.shutdown()
    health_server.server_close()

    assert probe(f"127.0.0.1:{port}") == 1


# Papers


def test_licence_is_the_one_that_is_declared():
    """LICENSE is the whole Apache text, as pyproject.toml and the image's label say."""
    assert "Apache License" in text_of("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in text_of("LICENSE")
    assert PROJECT["license"] == "Apache-2.0"
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in text_of("Dockerfile")


def test_changelog_has_a_place_for_what_is_new():
    """CHANGELOG.md begins with an Unreleased section, and below it versions only."""
    first, *versions = re.findall(r"^## (.*)$", text_of("CHANGELOG.md"), flags=re.MULTILINE)

    assert first == "[Unreleased]"
    assert [line for line in versions if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line)] == []
