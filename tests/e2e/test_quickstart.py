"""The quick start, typed as it stands in docs/quickstart.md: what it says comes out."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
FOREIGN = ("REPLICATOR_", "OBC_", "EXTERNAL_", "BUCKET_", "AWS_")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def patient(block: str, listen: str) -> str:
    """What a person does by looking again: a file is read once it is there, and replicator asked once it answers."""
    there = re.sub(r"^cat (\S+)$", r"until [ -s \1 ]; do sleep 0.1; done; cat \1; echo", block, flags=re.MULTILINE)
    ready = f"\nuntil curl -sf http://{listen}/readyz > /dev/null; do sleep 0.1; done\n"
    there = re.sub(r"^replicator status$", "until replicator status; do sleep 0.2; done", there, flags=re.MULTILINE)
    return there + (ready if "replicator run" in block else "")


def script_of(page: str, *, s3_port: int, listen: str) -> str:
    """The commands of its second section, on ports that are free here."""
    section = page.partition("## A directory and a bucket of your own")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    typed = "\n".join(patient(block, listen) for block in blocks)
    return "set -emo pipefail\n" + typed.replace("9000", str(s3_port)) + "\nkill %1\nwait || true\n"


@pytest.mark.slow
def test_quick_start_does_what_it_says(tmp_path):
    """A file of each side is on the other, the state says so, and both sides compare equal at the end."""
    listen = f"127.0.0.1:{free_port()}"
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = f"{Path(sys.executable).parent}:{quiet['PATH']}"
    brisk = {"REPLICATOR_HTTP_LISTEN": listen, "REPLICATOR_SWEEP_INTERVAL_S": "1"}
    script = script_of(PAGE.read_text(encoding="utf-8"), s3_port=free_port(), listen=listen)

    typed = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**quiet, **brisk, "HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert typed.returncode == 0, typed.stderr
    assert "failed" not in typed.stdout
    assert ("hello\n" in typed.stdout, "from the bucket\n" in typed.stdout) == (True, True)
    assert "in step: 2 targets, 2 files" in typed.stdout
    assert "first/egress/statistics: 1 file equal, 0 differences" in typed.stdout
    assert "first/ingress/remote/data: 1 file equal, 0 differences" in typed.stdout
