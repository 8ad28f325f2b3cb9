"""Builders of views and snapshots: a target in step, and whatever a test changes in it."""

import dataclasses
from collections.abc import Callable

import pytest

from replicator.model import Direction
from replicator.observe.status import ConfigView, Snapshot, State, TargetView, WatcherView

NOW_TS = 1_800_000_000.0


@pytest.fixture
def view() -> Callable[..., TargetView]:
    def build(name: str = "stats", direction: Direction = Direction.EGRESS, **changes) -> TargetView:
        plain = TargetView(
            id=f"os-stats/{direction}/{name}",
            workload="os-stats",
            direction=direction,
            prefix=f"{name}/",
            path=f"/export/{name}",
            url=f"s3://bucket/{name}/",
            endpoint="https://s3.example",
            origin="REPLICATOR_EGRESS",
            state=State.IN_STEP,
            last_success_ts=NOW_TS - 12,
            last_sweep_ts=NOW_TS - 3,
            last_sweep_s=0.2,
            journal_rows=40,
            journal_bytes=4096,
            watcher=WatcherView(source="inotify", watches=7) if direction is Direction.EGRESS else None,
            free_bytes=1 << 30,
        )
        return dataclasses.replace(plain, **changes)

    return build


@pytest.fixture
def config() -> ConfigView:
    return ConfigView(source="env", generation=1, valid=True, applied_ts=NOW_TS - 300)


@pytest.fixture
def snapshot(config) -> Callable[..., Snapshot]:
    def build(*targets: TargetView, **changes) -> Snapshot:
        plain = Snapshot(
            version="1.2.3",
            now_ts=NOW_TS,
            started_ts=NOW_TS - 400,
            is_draining=False,
            is_ready=True,
            not_ready=(),
            config=config,
            transfers_in_flight=2,
            transfers_limit=16,
            queue_jobs=5,
            watch_limit=8192,
            targets=targets,
        )
        return dataclasses.replace(plain, **changes)

    return build


@pytest.fixture
def hostile_names() -> tuple[str, ...]:
    """File names that Linux allows and that have broken terminals, log readers and encoders."""
    return (
        "line\nbreak",
        "carriage\rreturn",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "not-utf8-\udcff\udc80",
        "lone-\ud800",
        "right-to-left-\u202eexe.txt",
        "next-line-\u0085 paragraph-\u2029",
        'quote" and back\\slash \\n \\x0a',
        "<script>alert(1)</script>",
        "[bold]markup[/bold] [/]",
        '{"json": true}',
        " ",
        "%s %d {x}",
        "unicode-\u00e9-\U0001f600",
    )
