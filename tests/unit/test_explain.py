"""One path of a real export, journal and queue, without a store: nothing that is asked here makes a request."""

import dataclasses
import os
import time

import pytest
from pydantic import SecretStr

from replicator.config.settings import load
from replicator.detect.sweep import Report
from replicator.engine import Engine
from replicator.errors import AccessDenied, DiskFull
from replicator.explain import explain
from replicator.model import Direction, Hint, Prefix, Row, Storage, Target, TargetOptions
from replicator.observe.explanation import Verdict, to_json
from replicator.observe.metrics import Metrics
from replicator.stores.files.export import ignore_lease_signals

pytestmark = pytest.mark.slow

SECRET = "canary-secret-value"


@pytest.fixture
def export(tmp_path):
    for name in ("out", "in"):
        (tmp_path / "export" / name).mkdir(parents=True)
    return tmp_path / "export"


@pytest.fixture
async def engine(tmp_path):
    ignore_lease_signals()
    words = {"state_dir": str(tmp_path / "state"), "http_listen": "", "free_space_floor_bytes": "0"}
    async with Engine(load(words, {}).settings, Metrics()) as one:
        yield one


@pytest.fixture
def open_target(engine, export):
    """Opens a target whose endpoint nobody serves; nothing watches, sweeps or works."""
    storage = Storage("http://127.0.0.1:9", "bucket", "r", SecretStr("AKID"), SecretStr(SECRET))

    async def open_one(direction=Direction.EGRESS, subdir="out", prefix="sent/", **options):
        target = Target("w", direction, str(export), subdir, Prefix(prefix), storage, TargetOptions(**options))
        return (await engine.open(target)).lane

    return open_one


@pytest.fixture
def ask(engine):
    """The one place that is meant."""

    def place(asked):
        (found,) = explain(engine, str(asked))().places
        return found

    return place


def record(lane, relpath: str, **changes) -> None:
    """As if both sides held what is on the device."""
    row = Row(relpath, lane.export.stat(relpath).fingerprint, "etag", "", is_verified=True)
    lane.journal.settle(lane.number, dataclasses.replace(row, **changes))


def job_of(engine, lane):
    engine.queue.put(lane, Hint("a"))
    (job,) = engine.queue.jobs(lane)
    return job


async def test_file_whose_lost_request_may_come_in_late_is_in_step_and_says_when_it_is_looked_at(
    open_target, ask, export
):
    """Only where the late content would be another one."""
    (export / "out/a").write_bytes(b"hello")
    lane = await open_target()
    record(lane, "a", checksum="md5:2")
    lane.journal.expect_late(lane.number, "a", "md5:1", now_s=time.time())

    place = ask("out/a")
    assert place.verdict is Verdict.IN_STEP
    assert place.summary.startswith("in step; looked at again in ")

    record(lane, "a", checksum="md5:1")
    assert ask("out/a").summary == "in step"


@pytest.mark.parametrize("asked", ["{export}/out/a", "out/a", "sent/a", "s3://bucket/sent/a", "a"])
async def test_file_in_step_is_found_by_any_of_its_names(open_target, ask, export, asked):
    """Path, path beneath the export, key, URL and relpath: mapping, device and row are told."""
    (export / "out/a").write_bytes(b"hello")
    record(await open_target(), "a")

    place = ask(asked.format(export=export))

    assert (place.verdict, place.path, place.url) == (Verdict.IN_STEP, f"{export}/out/a", "s3://bucket/sent/a")
    assert (place.file.size, place.row.etag, place.row.is_current) == (5, "etag", True)


async def test_file_without_row_waits_to_be_noticed(open_target, ask, export):
    """New on the device, no job yet."""
    (export / "out/a").write_bytes(b"hello")
    await open_target()

    place = ask("out/a")

    assert place.verdict is Verdict.WAITING
    assert place.row is None
    assert "noticed" in place.summary


async def test_open_file_waits_for_its_writer(open_target, ask, export):
    """The kernel's lease tells a writer, and that it is gone."""
    await open_target()
    with (export / "out/a").open("wb"):
        while_open = ask("out/a")
    closed = ask("out/a")

    assert while_open.close_gate.has_writer is True
    assert "waits for its writer" in while_open.summary
    assert closed.close_gate.has_writer is False


async def test_without_leases_quiet_time_decides(open_target, engine, ask, export, monkeypatch):
    """Where the kernel does not tell, the rest of the quiet time is told, counted from the file's last change."""
    monkeypatch.setattr("replicator.stores.files.openfile.has_writer", lambda _: None)
    engine.means = dataclasses.replace(engine.means, quiet_s=3600)
    await open_target()
    (export / "out/a").write_bytes(b"hello")

    place = ask("out/a")

    assert place.close_gate.has_writer is None
    assert 3500 < place.close_gate.quiet_left_s <= 3600
    assert "quiet for 3" in place.summary


async def test_ceiling_of_a_snapshot_counts_from_the_change(open_target, engine, ask, export):
    """A file that never closes is sent in so long."""
    lane = await open_target(open_files="snapshot")
    with (export / "out/a").open("wb"):
        job_of(engine, lane).changed_s = time.monotonic() - 20
        place = ask("out/a")

    assert place.close_gate.ceiling_left_s == pytest.approx(40, abs=2)


@pytest.mark.parametrize(
    ("name", "make", "rule"),
    [
        ("a.tmp", lambda path: path.write_bytes(b""), "exclude *.tmp"),
        ("link", lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
        ("pipe", os.mkfifo, "not a regular file"),
        ("n\udcff", lambda path: path.write_bytes(b""), "not UTF-8"),
        ("k" * 250, lambda path: path.write_bytes(b""), "1024"),
    ],
)
async def test_what_a_rule_leaves_out_names_the_rule(open_target, ask, export, name, make, rule):
    """Filter, link, special file, name without a key."""
    deep = "/".join(["d" * 250] * 4) if rule == "1024" else ""
    (export / "out" / deep).mkdir(parents=True, exist_ok=True)
    make(export / "out" / deep / name)
    await open_target(exclude=("*.tmp",))

    place = ask(export / "out" / deep / name)

    assert place.verdict is Verdict.LEFT_OUT
    assert rule in place.summary


async def test_hard_link_and_own_directory_are_left_out(open_target, ask, export):
    """Also what include does not take."""
    (export / "a").write_bytes(b"x")
    os.link(export / "a", export / "b")
    await open_target(subdir="", include=("a", "canary"))

    assert "hard link" in ask("a").summary
    assert "own directory" in ask(".replicator/canary").summary
    assert "no match in include a, canary" in ask("c").summary


async def test_file_from_ingress_is_left_out_of_egress(open_target, ask, export):
    """An echo is told as one, and ingress knows the same file as in step."""
    (export / "in/a").write_bytes(b"x")
    record(await open_target(Direction.INGRESS, "in", "incoming/"), "a")
    await open_target(Direction.EGRESS, "in", "back/")

    assert "echo" in ask("back/a").summary
    assert ask("incoming/a").verdict is Verdict.IN_STEP


async def test_barrier_names_what_it_waits_for(open_target, ask, export):
    """A file that is sent last says for which other."""
    (export / "out/_SUCCESS").write_bytes(b"")
    (export / "out/part").write_bytes(b"x")
    lane = await open_target(egress_barrier="_SUCCESS")

    waiting = ask("out/_SUCCESS")
    record(lane, "part")
    free = ask("out/_SUCCESS")

    assert "'part'" in waiting.summary
    assert (waiting.verdict, free.barrier) == (Verdict.WAITING, "")


async def test_failing_job_names_attempt_reason_and_next_try(open_target, engine, ask, export):
    """What the queue knows of the path, as of now."""
    (export / "out/a").write_bytes(b"x")
    job = job_of(engine, await open_target())
    job.attempts, job.error, job.due_s = 3, DiskFull("no room"), time.monotonic() + 30.5

    place = ask("out/a")

    assert place.verdict is Verdict.FAILING
    assert place.summary == "failing: disk-full: no room; attempt 4 in 30 s"
    assert place.fix == ""


async def test_closed_endpoint_blocks_what_waits_and_not_what_is_in_step(open_target, engine, ask, export):
    """Its fault and the fix are told with the next question to it; no secret is."""
    lane = await open_target()
    for name in ("new", "old"):
        (export / "out" / name).write_bytes(b"x")
    record(lane, "old")
    for key in "abc":
        engine.gate(lane.target).failed(key, AccessDenied("the key is refused"), time.monotonic())

    place = ask("out/new")

    assert place.verdict is Verdict.FAILING
    assert "http://127.0.0.1:9" in place.summary
    assert "the key is refused; asked again" in place.summary
    assert "access key" in place.fix
    assert ask("out/old").verdict is Verdict.IN_STEP
    assert SECRET not in str(to_json(explain(engine, "out/new")()))


async def test_directory_is_no_file_unless_an_object_needs_its_name(open_target, engine, ask, export):
    """A directory is nothing to tell of; in the place of an object that a sweep met it is what leaves that out."""
    (export / "in/a").mkdir()
    lane = await open_target(Direction.INGRESS, "in", "incoming/")

    alone = ask("in/a")
    engine.patrols[lane.target.id].report = Report(skipped={"a": "directory"})
    in_the_way = ask("in/a")

    assert (alone.verdict, in_the_way.verdict) == (Verdict.UNKNOWN, Verdict.LEFT_OUT)
    assert "a directory" in alone.summary
    assert "Remove or rename it" in in_the_way.summary


@pytest.mark.parametrize("key", ["incoming/../x", "incoming/a//b", "incoming/" + "n" * 256])
async def test_key_that_can_be_no_file_is_left_out(open_target, ask, key):
    """Why such an object never becomes a file."""
    await open_target(Direction.INGRESS, "in", "incoming/")

    assert ask(key).verdict is Verdict.LEFT_OUT


async def test_unknown_path_is_told_where_it_is_mapped_only(open_target, engine, ask, export):
    """An absent file of a target is unknown there; a text that means no target is nowhere."""
    await open_target()
    await open_target(Direction.INGRESS, "in", "incoming/")

    assert ask(export / "out/nothing").verdict is Verdict.UNKNOWN
    assert explain(engine, "nothing")().places == ()
    assert explain(engine, "/etc/passwd")().places == ()
    assert explain(engine, "../../etc/passwd")().places == ()


async def test_file_that_is_gone_leaves_its_object(open_target, ask, export):
    """A removed file is in step for egress."""
    (export / "out/a").write_bytes(b"x")
    record(await open_target(), "a")
    (export / "out/a").unlink()

    place = ask("sent/a")

    assert (place.verdict, place.file) == (Verdict.IN_STEP, None)
    assert "stays in the bucket" in place.summary


async def test_looking_changes_nothing_and_asks_nobody(open_target, engine, ask, export):
    """No job, no row, no request comes of a question."""
    (export / "out/a").write_bytes(b"x")
    lane = await open_target()

    ask("out/a")

    assert engine.queue.jobs() == []
    assert lane.row("a") is None
    assert not [sample for metric in engine.metrics.s3_requests.collect() for sample in metric.samples]
