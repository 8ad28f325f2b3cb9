"""The kernel refuses one call: that file waits and says why, the others go on, and afterwards all is as if never."""

import errno

import pytest

from tests.faults.crash.tracer import Plan

pytestmark = pytest.mark.slow

ALWAYS = 10_000


def converges(stage, sent: dict[str, bytes], fetched: dict[str, bytes]) -> None:
    """Without the fault one pass brings both sides together."""
    assert stage.run().code == 0
    assert stage.objects() == sent
    assert stage.files() == fetched
    assert stage.temps() == []
    stage.assert_rows_are_true()


@pytest.mark.fault("A12")
def test_file_that_cannot_be_read_fails_alone(stage):
    """A broken sector costs its file and no other; the file is named."""
    files = {name: name.encode() for name in ("bad", "good", "other")}
    for name, body in files.items():
        stage.write(f"out/{name}", body)

    ended = stage.run(Plan(failing="pread64", where="export/out/bad", errno=errno.EIO, times=ALWAYS))

    assert ended.code == 4, ended.log
    assert "'bad' cannot be read" in ended.log
    assert stage.objects() == {name: body for name, body in files.items() if name != "bad"}
    converges(stage, files, {})


@pytest.mark.fault("A13")
def test_file_whose_sync_failed_is_fetched_into_another(stage):
    """The kernel reports a lost page once: what was written so far is thrown away and never synced again."""
    stage.put("incoming/x", b"old")
    assert stage.run().code == 0
    stage.put("incoming/x", b"new and longer")

    ended = stage.run(Plan(failing="fsync", where="*/tmp/*", errno=errno.EIO))

    assert ended.code == 0, ended.log
    assert "transfer put off" in ended.log
    first, second = dict.fromkeys(call.path for call in ended.calls if call.name == "fsync" and "/tmp/" in call.path)
    assert [call.name for call in ended.changes if call.path == first][-2:] == ["fsync", "unlinkat"]
    assert [call.second_path for call in ended.calls if call.path == second][-1] == "export/in/x"
    converges(stage, {}, {"x": b"new and longer"})


@pytest.mark.fault("A13")
def test_directory_whose_sync_failed_gets_no_row(stage):
    """The new name may not outlive a power cut: no attempt tells the journal before the directory is synced."""
    stage.put("incoming/x", b"content")

    ended = stage.run(Plan(failing="fsync", where="export/in", errno=errno.EIO, times=ALWAYS))

    assert ended.code == 4, ended.log
    assert "'x' cannot be written" in ended.log
    assert sum(call.name == "fsync" and call.path == "export/in" for call in ended.calls) > 1, "it asked only once"
    assert stage.rows("ingress") == {}
    converges(stage, {}, {"x": b"content"})


@pytest.mark.fault("A14")
@pytest.mark.parametrize("error", [errno.EXDEV, errno.EACCES, errno.EIO])
def test_rename_that_fails_leaves_the_old_file(stage, error):
    """There is no second way into place: no copy, no removal first. The file waits and is named, others arrive."""
    stage.put("incoming/x", b"old")
    assert stage.run().code == 0
    stage.put("incoming/x", b"new and longer")
    stage.put("incoming/d/y", b"beside")

    ended = stage.run(Plan(failing="renameat", where="export/in/x", errno=error, times=ALWAYS))

    assert ended.code == 4, ended.log
    assert "'x'" in ended.log
    assert stage.files() == {"x": b"old", "d/y": b"beside"}
    changes = [call.name for call in ended.changes if "export/in/x" in (call.path, call.second_path)]
    assert set(changes) == {"renameat"}
    assert stage.temps() == []
    converges(stage, {}, {"x": b"new and longer", "d/y": b"beside"})


@pytest.mark.fault("A14")
def test_conflict_copy_that_cannot_be_made_keeps_the_edit(stage):
    """Without a second name for the workload's edit, nothing takes its place."""
    stage.put("incoming/x", b"old")
    assert stage.run().code == 0
    stage.write("in/x", b"edited")
    stage.put("incoming/x", b"new and longer")

    ended = stage.run(Plan(failing="linkat", where="export/in/x", errno=errno.EIO, times=ALWAYS))

    assert ended.code == 4, ended.log
    assert stage.files() == {"x": b"edited"}
    assert stage.run().code == 0
    assert sorted(stage.files().values()) == [b"edited", b"new and longer"]


@pytest.mark.fault("A11")
def test_file_larger_than_the_limit_waits_and_says_so(stage):
    """EFBIG of a quota or of RLIMIT_FSIZE is neither swallowed nor taken for a finished file."""
    stage.put("incoming/large", bytes(3 << 20))
    stage.put("incoming/small", b"content")

    ended = stage.run(limits={"RLIMIT_FSIZE": 2 << 20})

    assert ended.code == 4, ended.log
    assert "File too large" in ended.log
    assert stage.files() == {"small": b"content"}
    assert stage.temps() == []
    converges(stage, {}, {"large": bytes(3 << 20), "small": b"content"})


@pytest.mark.fault("C9")
@pytest.mark.parametrize("mib", [8, 96, 320])
def test_process_without_memory_ends_like_a_killed_one(stage, zygote, mib):
    """Whatever allocation fails, and however the process ends then: a restart converges, and nothing was torn."""
    files = {f"f{number}": bytes([number]) * 40_000 for number in range(8)}
    for name, body in files.items():
        stage.write(f"out/{name}", body)
        stage.put(f"incoming/{name}", body[::-1])

    stage.run(limits={"RLIMIT_AS": zygote.memory_bytes + (mib << 20)})

    assert stage.objects().items() <= files.items()
    assert stage.files().items() <= files.items()
    stage.assert_rows_are_true()
    converges(stage, files, files)
