"""What has to hold once faults have ceased, all is mounted and closed, and sweeps find nothing more to do."""

import sqlite3

from replicator.errors import KeyUnsafe
from replicator.model import Prefix
from replicator.reconcile.keys import is_marker, relpath_of
from tests.model.process import CANARY, CLOCK, COMING, ECHO, IN, OUT, SENT, Process
from tests.model.world import World, eligible, plain_files

_ROUNDS = 30


def calm(process: Process, world: World, *, has_lost_journal: bool) -> None:
    """Bring everything to rest, a restart included, and look at both sides."""
    process.injector.calm()
    world.let_go()
    world.mount()
    settle(process, world)
    process.stop()
    assert process.start()
    settle(process, world)
    _check_idle(process)
    world.check()
    _check_sent(process, world)
    _check_arrived(process, world)
    _check_conflicts(world)
    _check_rows(process, world)
    _check_rubbish(process, world, has_lost_journal=has_lost_journal)
    assert CANARY not in process.told(), "a secret got out"


def settle(process: Process, world: World) -> None:
    """Sweep and work until a whole round makes no request that moves anything, and nothing waits but what cannot go."""
    quiet = 0
    for _ in range(_ROUNDS):
        before = _activity(process)
        for _ in range(3):
            if process.engine is None:
                assert process.start()
            process.work()
            CLOCK.advance(600.0)
        for number in range(len(process.targets)):
            process.sweep(number)
        process.work()
        world.check()
        quiet = quiet + 1 if _activity(process) == before else 0
        if quiet == 2:
            return
        CLOCK.advance(600.0)
    raise AssertionError(
        f"it does not come to rest: {[(job.relpath, job.error) for job in process.engine.queue.jobs()]}"
    )


def _activity(process: Process) -> tuple[object, ...]:
    rows = [] if process.engine is None else [patrol.lane.rows() for patrol in process.engine.patrols.values()]
    bucket = process.store._bucket
    return process.store.gets, len(bucket.written), [sorted(map(repr, some)) for some in rows]


def _check_idle(process: Process) -> None:
    """One more look at everything moves nothing, and leaves no file touched."""
    before, files = _activity(process), _files(process)
    for number in range(len(process.targets)):
        process.sweep(number)
    process.work()

    assert _activity(process) == before, "an idle round moved something"
    assert _files(process) == files, "an idle round touched a file"


def _files(process: Process) -> list[tuple[str, int, int]]:
    found = plain_files(process.home / "export")
    return [(name, path.stat().st_ino, path.stat().st_mtime_ns) for name, path in found]


def _check_sent(process: Process, world: World) -> None:
    for key, body in eligible(world.export / OUT, SENT):
        _check_stored(process, world, key, body)
    for path, body in world.known.items():
        key = SENT + path.partition("/")[2]
        if world.frees and not (world.export / path).exists():
            assert body in world.objects[key], f"{path!r} was freed and is not stored"


def _check_stored(process: Process, world: World, key: str, body: bytes) -> None:
    """The object is the file, or somebody else overwrote or removed it after it had been."""
    found = world.bucket.objects.get(key)
    if found is not None and found.body == body:
        return
    is_others = found is None or not found.writer
    assert is_others, f"{key!r} is an older version of its file"
    assert body in world.objects[key], f"{key!r} never got its file; {_jobs(process)}"


def _check_arrived(process: Process, world: World) -> None:
    lane = process.engine.patrols[process.targets[1].id].lane
    excused = process.engine.patrols[process.targets[1].id].report.skipped
    failing = {job.relpath for job in process.engine.queue.jobs(lane) if job.is_failing}
    for key, version in world.bucket.objects.items():
        if not key.startswith(COMING) or is_marker(key):
            continue
        try:
            name = relpath_of(Prefix(COMING), key, subdir=IN)
        except KeyUnsafe:
            assert key in excused, f"{key!r} is not listed"
            continue
        path = world.export / IN / name
        if name in excused or name in failing:
            continue
        assert path.is_file(), f"{key!r} did not arrive; {_jobs(process)}"
        assert not path.is_symlink()
        body = path.read_bytes()
        if body == version.body:
            continue
        row = lane.row(name)
        stands = body in world.history[f"{IN}/{name}"] and row is not None and row.etag == version.etag
        assert stands or world.is_strange, f"{key!r} is not its file"


def _check_conflicts(world: World) -> None:
    """Whatever the workload left in the ingress directory is still there, in its place or beside it."""
    for path, body in world.edits.items():
        name = path.partition("/")[2]
        if body in world.objects[COMING + name]:
            continue
        place = world.export / path
        beside = [one.read_bytes() for one in place.parent.glob("*") if one.is_file() and not one.is_symlink()]
        assert body in beside, f"the edit of {name!r} is lost"


def _check_rows(process: Process, world: World) -> None:
    """Each row of egress was true at one moment."""
    for number, prefix in ((0, SENT), (2, ECHO)):
        lane = process.engine.patrols[process.targets[number].id].lane
        for row in lane.rows():
            stored = {len(body) for body in world.objects[prefix + row.relpath]}
            assert row.fingerprint.size in stored, f"the row of {row.relpath!r} tells of what was never stored"
    path = process.home / "state" / "journal.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def _check_rubbish(process: Process, world: World, *, has_lost_journal: bool) -> None:
    own = world.export / ".replicator" / "tmp"
    left = [path.name for path in own.iterdir() if not path.name.endswith(".part")] if own.is_dir() else []
    assert left == [], "temporary files are left"
    uploads = [key for key, _, _ in world.bucket.uploads.values()]
    assert uploads == [] or has_lost_journal, "uploads are left open"
    lane = process.engine.patrols[process.targets[1].id].lane
    assert process.engine.journal.intents(lane.number) == [], "an intent is left"


def _jobs(process: Process) -> list[object]:
    return [(job.relpath, job.error) for job in process.engine.queue.jobs()]
