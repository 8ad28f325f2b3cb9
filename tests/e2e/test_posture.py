"""The image as a container runs it: no root, no capability, nothing to write on but its volumes."""

import errno
import os
import re
import signal
from pathlib import Path

import pytest

from tests.e2e import image
from tests.recipe import exec_form

pytestmark = [pytest.mark.slow, pytest.mark.fault("F16")]

USER = 65532
STATE = "var/lib/replicator"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> image.Image:
    """The image, made by its recipe."""
    try:
        return image.build(tmp_path_factory.mktemp("image"))
    except image.Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture
def contained(replicator, built):
    """The image's command with its user, its places and its environment, and no more."""
    export = replicator.home / "export"
    (export / "out").mkdir()
    for path in (export, export / "out"):
        os.chown(path, USER, USER)
    replicator.program = (*built.contained(export), *exec_form(built.said["ENTRYPOINT"]))
    for name in ("REPLICATOR_EXPORT_DIR", "REPLICATOR_STATE_DIR"):
        del replicator.env[name]
    replicator.env |= built.environment
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


async def test_both_directions_work_without_any_right_and_on_a_readonly_root(contained, built, witness, until):
    """As uid 65532 without capabilities, with export and state alone to write on, files move both ways and drain."""
    export = contained.home / "export"
    put(export / "out/own", b"of the same user", USER)
    put(export / "out/foreign", b"of another user", 4711)
    await witness.put("incoming/b", b"from the bucket")
    async with contained.running() as service:
        await until(lambda: service.process.returncode is not None or (export / "in/b").exists())
        code = service.process.returncode
        assert code is None, "".join(service.log)
        await until(service.is_in_step)
        pid = service.process.pid
        standing = standing_of(pid)
        mounts = writable_mounts(pid)
        refusals = {
            name: refusal_to_write(Path(f"/proc/{pid}/root", name)) for name in ("x", "tmp/x", "etc/x", "opt/x")
        }
        put(export / "out/last", b"written before the end", USER)

    assert service.process.returncode == 0, "".join(service.log)
    assert built.said["STOPSIGNAL"] == signal.SIGTERM.name
    assert standing["Uid"].split() == standing["Gid"].split() == [str(USER)] * 4
    assert {
        name: int(standing[name], 16) for name in standing if re.fullmatch("Cap[A-Z][a-z]+", name)
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (standing["Groups"], standing["NoNewPrivs"]) == ("", "1")
    assert mounts == {"/export", f"/{STATE}"}
    assert refusals == dict.fromkeys(refusals, errno.EROFS)
    assert sorted(await witness.keys("sent/")) == ["sent/foreign", "sent/last", "sent/own"]
    assert (export / "in/b").read_bytes() == b"from the bucket"
    assert {path.stat().st_uid for path in (export / "in/b", built.root / STATE / "journal.db")} == {USER}


async def test_image_says_itself_whether_it_is_well(contained, built, until):
    """The recipe's own health check passes inside the running container, and fails once nobody is there."""
    check = built.said["HEALTHCHECK"]
    words = exec_form(check[check.index("CMD") :])
    async with contained.running() as service:
        await until(service.is_in_step)
        contained.env["REPLICATOR_HTTP_LISTEN"] = f"127.0.0.1:{service.port}"
        contained.program = (*built.contained(contained.home / "export"), *words)
        well = await contained()
    gone = await contained()

    assert (well.code, well.err) == (0, "")
    assert gone.code == 1


def test_image_holds_what_is_locked_and_no_tool(built):
    """What the builder needed stays behind: no pip, no hatchling, and nothing of the checkout but the package."""
    (packages,) = (built.root / "opt/replicator").glob("lib/python3.*/site-packages")

    assert (packages / "replicator/stores/journal/schema.sql").is_file()
    assert [name for name in ("pip", "hatchling", "localbucket", "pytest", "tests") if (packages / name).exists()] == []
    assert [path.name for path in (built.root / "tools").iterdir()] == []
    assert [path.name for path in (built.root / "build").iterdir()] == []
    assert f":{USER}:{USER}:" in (built.root / "etc/passwd").read_text()
