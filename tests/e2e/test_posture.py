"""The process with as little as a container gives it: no root, no capability, nothing to write on but its volumes."""

import errno
import os
import re
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.fault("F16")]

USER = 65532
ROOT = Path(__file__).parents[2]
STATE = "var/lib/replicator"
CANNOT = 77


@pytest.fixture
def jailed(replicator):
    """The command as the image has it: its user, its places, its environment, and no more."""
    if os.geteuid() != 0:
        pytest.skip("it takes root to give up what a container lacks: mounts, other users, capabilities")
    home = replicator.home
    for name in ("root", "state"):
        (home / name).mkdir()
    (home / "export/out").mkdir()
    for name in ("export", "export/out", "state"):
        os.chown(home / name, USER, USER)
    seen = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]), str(ROOT)}
    shown = ":".join(sorted(path for path in seen if not path.startswith(("/usr", "/bin"))))
    volumes = (f"{home}/export:/export", f"{home}/state:/{STATE}")
    jail = (sys.executable, str(ROOT / "tests/e2e/jail.py"), str(USER), f"{home}/root", shown, *volumes, "--")
    replicator.program = (*jail, *replicator.program)
    for name in ("REPLICATOR_EXPORT_DIR", "REPLICATOR_STATE_DIR"):
        del replicator.env[name]
    replicator.env |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    return replicator


def put(path: Path, body: bytes, owner: int) -> None:
    path.write_bytes(body)
    os.chown(path, owner, owner)


def standing_of(pid: int) -> dict[str, str]:
    """Users, groups, capabilities and promises of a process, as the kernel has them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def writable_mounts(pid: int) -> set[str]:
    found = (line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    return {words[4] for words in found if "rw" in words[5].split(",")}


def refusal_to_write(path: Path) -> int:
    """The errno with which even root is kept from making a file."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        return error.errno or 0
    return 0


async def test_both_directions_work_without_any_right_and_on_a_readonly_root(jailed, witness, until):
    """As uid 65532 without capabilities, with export and state alone to write on, files move both ways and drain."""
    export = jailed.home / "export"
    put(export / "out/own", b"of the same user", USER)
    put(export / "out/foreign", b"of another user", 4711)
    await witness.put("incoming/b", b"from the bucket")
    async with jailed.running() as service:
        await until(lambda: service.process.returncode is not None or (export / "in/b").exists())
        code = service.process.returncode
        if code == CANNOT:
            pytest.skip("".join(service.log))
        assert code is None, "".join(service.log)
        await until(service.is_in_step)
        pid = service.process.pid
        standing = standing_of(pid)
        mounts = writable_mounts(pid)
        refusals = {name: refusal_to_write(Path(f"/proc/{pid}/root", name)) for name in ("x", "tmp/x", "etc/x")}
        put(export / "out/last", b"written before the end", USER)

    assert service.process.returncode == 0, "".join(service.log)
    assert standing["Uid"].split() == standing["Gid"].split() == [str(USER)] * 4
    assert {
        name: int(standing[name], 16) for name in standing if re.fullmatch("Cap[A-Z][a-z]+", name)
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (standing["Groups"], standing["NoNewPrivs"]) == ("", "1")
    assert mounts == {"/export", f"/{STATE}"}
    assert refusals == dict.fromkeys(refusals, errno.EROFS)
    assert sorted(await witness.keys("sent/")) == ["sent/foreign", "sent/last", "sent/own"]
    assert (export / "in/b").read_bytes() == b"from the bucket"
    assert {(export / "in/b").stat().st_uid, (jailed.home / "state/journal.db").stat().st_uid} == {USER}
