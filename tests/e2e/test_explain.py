"""`replicator explain`: a person asks why one file is, or is not, on the other side."""

import pytest

from tests.answers import documented


@pytest.fixture
async def service(replicator, witness, until):
    """A service whose files stand in every way at once, on both sides of its targets."""
    out, inbox = replicator.home / "export/out", replicator.home / "export/in"
    inbox.mkdir()
    (out / "directory").mkdir(parents=True)
    (inbox / "taken").write_bytes(b"no directory")
    (out / "sent").write_bytes(b"hello")
    (out / "scratch.tmp").write_bytes(b"x")
    await witness.put("incoming/taken/f", b"needs a directory")
    async with replicator.running(REPLICATOR_EXCLUDE="*.tmp") as running:
        with (out / "open").open("wb") as writer:
            writer.write(b"half")
            writer.flush()
            await until(lambda: witness.keys("sent/sent"))
            await until(lambda: is_known(running))
            yield running


async def is_known(running) -> bool:
    """Whether the object that can be no file and the open file were noticed."""
    views = [await running.target("egress"), await running.target("ingress")]
    return all(views) and views[0]["pending_files"] == 1 and bool(views[1]["skipped"])


STANDINGS = [
    ("out/sent", 0, ["in step", "verified", "nobody has it open"]),
    ("{home}/export/out/sent", 0, ["{home}/export/out/sent -> s3://"]),
    ("export/out/sent", 0, ["{home}/export/out/sent -> s3://"]),
    ("out/scratch.tmp", 0, ["left out by rule: exclude *.tmp"]),
    ("out/open", 4, ["waits for its writer", "says the kernel", "attempt"]),
    ("incoming/taken/f", 4, ["a file is where 'taken/f' needs a directory", "no file that can be used"]),
    ("out/nothing", 1, ["{home}/export/out/nothing -> s3://", "there is no such file, and none was ever sent"]),
    ("out/directory", 1, ["a directory, and only files are replicated"]),
    ("/etc/passwd", 1, ["no target takes", "replicator targets"]),
]


@pytest.mark.slow
async def test_each_standing_is_told_with_its_exit_code(replicator, service):
    """In step, left out, open for writing, failing and unknown, in the words of people; as JSON the same verdict."""
    here = {"REPLICATOR_HTTP_LISTEN": f"127.0.0.1:{service.port}"}
    for asked, code, words in STANDINGS:
        text = await replicator("explain", asked.format(home=replicator.home), **here)

        assert text.code == code, text.err
        assert all(word.format(home=replicator.home) in text.out for word in words), text.out

    plain = await replicator("explain", "incoming/taken/f", "--json", **here)

    (place,) = documented("explain", plain.out)["places"]
    assert (plain.code, place["verdict"], place["target"]) == (4, "failing", "workload/ingress/incoming")
    assert "needs a directory" in place["obstacle"]


async def test_without_a_running_replicator_says_so(replicator):
    """One line, and exit code 1."""
    result = await replicator("explain", "out/a", REPLICATOR_HTTP_LISTEN="127.0.0.1:9")

    assert result.code == 1
    assert len(result.err.splitlines()) == 1


async def test_nothing_asked_is_a_wrong_command_line(replicator):
    """Exit code 2 names the argument."""
    result = await replicator("explain", "")

    assert result.code == 2
    assert "PATH" in result.err
