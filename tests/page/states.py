"""A device in the states that people meet: snapshots for tests, and for the pictures of the documentation."""

import dataclasses
import math

from replicator.model import Direction
from replicator.observe.status import (
    ConfigView,
    FailingFile,
    GenerationView,
    LinkView,
    MovingFile,
    SkippedFile,
    Snapshot,
    State,
    TargetView,
    ThroughputView,
    WatcherView,
)

NOW_TS = 1_800_000_000.0
KIB, MIB, GIB = 2**10, 2**20, 2**30


def stats(**changes) -> TargetView:
    """Figures that a workload writes all the time."""
    plain = TargetView(
        id="os-stats/egress/statistics",
        workload="os-stats",
        direction=Direction.EGRESS,
        prefix="statistics/",
        path="/export/stats",
        url="s3://device-7/statistics/",
        endpoint="https://s3.example.net",
        origin="REPLICATOR_EGRESS",
        state=State.IN_STEP,
        last_success_ts=NOW_TS - 4,
        last_sweep_ts=NOW_TS - 9,
        last_sweep_s=0.1,
        sweep_interval_s=15,
        journal_rows=1284,
        journal_bytes=96 * MIB,
        watcher=WatcherView(source="inotify", watches=12, needed=12, is_proven=True),
        free_bytes=21 * GIB,
    )
    return dataclasses.replace(plain, **changes)


def models(**changes) -> TargetView:
    """Sets of files that the device is sent."""
    plain = stats(
        id="detector/ingress/models",
        workload="detector",
        direction=Direction.INGRESS,
        prefix="models/",
        path="/export/models/current",
        url="s3://device-7/models/",
        origin="REPLICATOR_INGRESS",
        last_success_ts=NOW_TS - 7260,
        last_sweep_ts=NOW_TS - 3,
        journal_rows=14,
        journal_bytes=412 * MIB,
        watcher=None,
        generation=GenerationView("2027-01-14", NOW_TS - 7260),
        quota_bytes=GIB,
    )
    return dataclasses.replace(plain, **changes)


def device(*targets: TargetView, **changes) -> Snapshot:
    plain = Snapshot(
        version="0.1.0",
        now_ts=NOW_TS,
        started_ts=NOW_TS - 3 * 86400 - 14400,
        is_draining=False,
        is_ready=True,
        not_ready=(),
        config=ConfigView(source="env", generation=1, valid=True, applied_ts=NOW_TS - 3 * 86400 - 14400),
        transfers_in_flight=sum(len(view.in_flight) for view in targets),
        transfers_limit=16,
        queue_jobs=sum(view.pending_files for view in targets),
        watch_limit=65536,
        free_space_floor_bytes=512 * MIB,
        targets=targets,
        throughput=moved(lambda place: 40 * KIB if place % 3 == 0 else 0, lambda _: 0),
    )
    return dataclasses.replace(plain, **changes)


def moved(up, down, *, last_s: float = 6.0) -> ThroughputView:
    """Ten minutes of so many bytes, span by span."""
    return ThroughputView(
        last_s=last_s, up=tuple(map(int, map(up, range(60)))), down=tuple(map(int, map(down, range(60))))
    )


def wave(place: int, *, height: float, since: int) -> float:
    """Some bytes from a span on, up and down."""
    return height * (1.2 + math.sin(place / 3)) if place >= since else 0


IN_STEP = device(stats(), models())

BUSY = device(
    stats(
        state=State.BEHIND,
        pending_files=6,
        pending_bytes=88 * MIB,
        oldest_pending_s=38.2,
        last_success_ts=NOW_TS - 1,
        in_flight=(
            MovingFile("2027-01-15/camera-2.mp4", 64 * MIB, 41 * MIB),
            MovingFile("2027-01-15/camera-3.mp4", 21 * MIB, 8 * MIB),
            MovingFile("cpu.csv", 12 * KIB),
        ),
    ),
    models(
        state=State.BEHIND,
        pending_files=1,
        pending_bytes=208 * MIB,
        oldest_pending_s=21,
        in_flight=(MovingFile("2027-01-15/weights.bin", 208 * MIB, 88 * MIB),),
        generation=GenerationView("2027-01-14", NOW_TS - 7260),
    ),
    throughput=moved(
        lambda place: wave(place, height=9 * MIB, since=22), lambda place: wave(place + 5, height=20 * MIB, since=53)
    ),
    link=LinkView(up_limit=2 * MIB, up_achieved=1.9 * MIB, down_achieved=4.4 * MIB),
)

LAGGING = device(
    stats(
        state=State.BEHIND,
        pending_files=1432,
        pending_bytes=3277 * MIB,
        oldest_pending_s=9200,
        last_success_ts=NOW_TS - 40,
        in_flight=(MovingFile("2027-01-15/camera-1.mp4", 512 * MIB, 37 * MIB),),
        watcher=WatcherView(
            source="inotify",
            watches=61440,
            needed=70112,
            is_proven=True,
            degraded="8672 of 70112 directories are not watched; set fs.inotify.max_user_watches to 131072",
        ),
    ),
    models(
        state=State.BEHIND,
        reason="1 of 15 files is missing",
        fix="Complete the set in the bucket, its manifest last.",
        generation=GenerationView("2027-01-14", NOW_TS - 7260, "1 of 15 files is missing"),
    ),
    throughput=moved(lambda place: wave(place, height=0.3 * MIB, since=0), lambda _: 0),
    link=LinkView(
        up_limit=64 * KIB,
        up_achieved=61 * KIB,
        budget_bytes=5 * GIB,
        budget_used_bytes=int(4.1 * GIB),
    ),
    is_ready=False,
    not_ready=("os-stats/egress/statistics: the oldest of 1432 pending files has waited for 2 h 33 min",),
)

FAILING = device(
    stats(
        state=State.FAILING,
        pending_files=3,
        pending_bytes=12 * MIB,
        oldest_pending_s=190,
        failing=(
            FailingFile(
                "reports/2027-01-15.pdf", "access-denied", "403 AccessDenied: PutObject is not allowed", 4, 41, 190
            ),
            FailingFile("reports/summary.pdf", "access-denied", "403 AccessDenied: PutObject is not allowed", 2, 9, 75),
        ),
        failing_by_reason={"access-denied": 2},
        skipped=(SkippedFile("cache/index.lock", "excluded"), SkippedFile("link-to-log", "symlink")),
        skipped_by_reason={"excluded": 1, "symlink": 1},
        late_writes=1,
    ),
    models(),
    config=ConfigView(
        source="files",
        generation=7,
        valid=False,
        error="workload.yaml: spec.data.egress[1].source: '../secrets' leaves the export directory",
        applied_ts=NOW_TS - 5400,
    ),
    is_ready=False,
    not_ready=("configuration invalid: workload.yaml: spec.data.egress[1].source: '../secrets' leaves the export",),
)

BLOCKED = device(
    stats(
        state=State.BLOCKED,
        reason="https://s3.example.net: connection refused",
        cause="unavailable",
        fix="Check endpoint, network and certificate; it is tried again by itself, nothing is lost.",
        pending_files=27,
        pending_bytes=4 * MIB,
        oldest_pending_s=512,
        last_success_ts=NOW_TS - 512,
    ),
    models(
        state=State.BLOCKED,
        reason="https://s3.example.net: connection refused",
        cause="unavailable",
        fix="Check endpoint, network and certificate; it is tried again by itself, nothing is lost.",
        last_sweep_ts=NOW_TS - 520,
    ),
    throughput=moved(lambda place: wave(place, height=0.2 * MIB, since=0) if place < 9 else 0, lambda _: 0),
    is_ready=False,
    not_ready=("os-stats/egress/statistics: blocked", "detector/ingress/models: blocked"),
)

STATES = {"in-step": IN_STEP, "busy": BUSY, "lagging": LAGGING, "failing": FAILING, "blocked": BLOCKED}
