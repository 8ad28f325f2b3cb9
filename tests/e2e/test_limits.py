"""The command where the process may have little: it becomes slower, says so, and never ends or loses anything."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STRANGER = 20_000 + os.getpid() % 40_000
"""A user of whom no other process is, nor of a test run beside this one: limits of processes count all of one user."""


async def fill(command, witness) -> None:
    """200 small files and a large one to be sent, 50 objects to be fetched."""
    for number in range(200):
        path = command.home / f"export/out/{number % 20}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(20_000))
    (command.home / "export/out/large").write_bytes(bytes(20 * 2**20))
    await asyncio.gather(*(witness.put(f"incoming/{number}", bytes(20_000)) for number in range(50)))


async def converges(command, witness, until) -> list[str]:
    """The log of a run that brings everything to both sides, answers, and ends as it should."""
    async with command.running() as service:
        await until(service.is_in_step, within_s=40)
        assert (await service.get("/metrics"))[0] == 200
    assert service.process.returncode == 0
    assert len(await witness.keys("sent/")) == 201
    assert len(list((command.home / "export/in").iterdir())) == 50
    assert not [line for line in service.log if "Traceback" in line]
    return service.log


@pytest.mark.fault("G3")
@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit(1) of util-linux")
async def test_few_descriptors(replicator, witness, until):
    """With 64 descriptors both ways converge, people get answers, and it ends as ever."""
    await fill(replicator, witness)
    replicator.before = ("prlimit", "--nofile=64")

    await converges(replicator, witness, until)


@pytest.mark.fault("G3")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="becomes another user, which needs root")
@pytest.mark.parametrize("threads", [20])
async def test_few_threads(replicator, witness, until, threads):
    """Where fewer threads may be started than there are transfers, fewer files move at a time, and the log says why."""
    with tempfile.TemporaryDirectory() as name:
        replicator.home = Path(name)
        replicator.env |= {"REPLICATOR_EXPORT_DIR": f"{name}/export", "REPLICATOR_STATE_DIR": f"{name}/state"}
        await fill(replicator, witness)
        for path in (replicator.home, *replicator.home.rglob("*")):
            os.chown(path, STRANGER, STRANGER)
        limits = ("prlimit", f"--nproc={threads}")
        replicator.before = ("setpriv", f"--reuid={STRANGER}", "--clear-groups", *limits)

        log = await converges(replicator, witness, until)

    assert [line for line in log if "few threads may be started" in line and "Raise the limit" in line]
