"""`replicator operator` as it is run: two processes, one Lease, probes and metrics over HTTP, an end by SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.server import ApiServer
from tests.waiting import wait_until

DEVICE = {
    "apiVersion": "management.project-flotta.io/v1alpha1",
    "kind": "EdgeDevice",
    "spec": {"storage": {"s3": {"createOBC": True}}},
}


def page(port: int, path: str) -> str:
    """The body of a 200, else ''."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as one:
        yield one


@pytest.fixture
def operators(server, tmp_path) -> Iterator[list[tuple[subprocess.Popen, int]]]:
    """Two processes, and the port of each."""
    config = server.kubeconfig(tmp_path / "kubeconfig", token="operators-own-token", namespace="replicator")
    made = []
    for number in range(2):
        port = free_port()
        variables = {
            "KUBECONFIG": str(config),
            "REPLICATOR_CONTROL_HTTP_LISTEN": f"127.0.0.1:{port}",
            "REPLICATOR_CONTROL_LOG_LEVEL": "debug",
            "REPLICATOR_CONTROL_LOG_FORMAT": "json",
        }
        log = (tmp_path / f"log-{number}").open("w")
        command = [sys.executable, "-m", "replicator", "operator"]
        made.append((subprocess.Popen(command, env=os.environ | variables, stderr=log, stdout=log), port))
        log.close()
    yield made
    for one, _ in made:
        one.kill()
        one.wait()


def put(server: ApiServer, name: str) -> None:
    server.put(DEVICE | {"metadata": {"name": name, "namespace": "fleet"}})


@pytest.mark.slow
@pytest.mark.fault("E6")
def test_second_operator_takes_over_from_one_that_ends(server, operators, tmp_path: Path):
    """Both are alive and ready, one acts. Told to end, it gives the Lease back and exits with 0; the other goes on."""
    put(server, "early")
    wait_until(lambda: server.get("objectbucketclaims", "fleet", "early"))
    wait_until(lambda: all(page(port, "/readyz") and page(port, "/healthz") for _, port in operators))
    exposed = [page(port, "/metrics") for _, port in operators]
    acting = ["replicator_operator_leader 1.0" in text for text in exposed]
    assert sorted(acting) == [False, True]
    assert 'replicator_operator_looks_total{outcome="done"}' in exposed[acting.index(True)]

    active, _ = operators[acting.index(True)]
    active.send_signal(signal.SIGTERM)
    assert active.wait(30) == 0
    put(server, "late")
    wait_until(lambda: server.get("objectbucketclaims", "fleet", "late"))
    assert operators[acting.index(False)][0].poll() is None

    logs = "".join((tmp_path / f"log-{number}").read_text() for number in range(2))
    assert "storage of a device changed" in logs
    assert "operators-own-token" not in logs


@pytest.mark.slow
def test_setting_that_does_not_exist_ends_it_before_it_starts(tmp_path: Path):
    """One line with the nearest name, and the exit code of configuration."""
    environ = os.environ | {"REPLICATOR_CONTROL_AUTOCREATE": "true", "HOME": str(tmp_path)}

    ended = subprocess.run(
        [sys.executable, "-m", "replicator", "operator"], env=environ, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert "did you mean REPLICATOR_CONTROL_AUTO_CREATE?" in ended.stderr
