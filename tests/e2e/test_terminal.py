"""What stands on a terminal, and what in a pipe: pictures and bars for people, plain lines and JSON for programs."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import time

import pytest

from replicator.model import Direction
from replicator.observe.http import Server, serve
from replicator.observe.metrics import Metrics
from replicator.observe.status import ConfigView, Snapshot, State, TargetView
from tests.answers import documented
from tests.terminal import CTRL_C, on_terminal

TARGET = TargetView(
    id="w/egress/stats",
    workload="w",
    direction=Direction.EGRESS,
    prefix="stats/",
    path="/export/stats",
    url="s3://b/stats/",
    endpoint="https://s3.example",
    origin="REPLICATOR_EGRESS",
    state=State.IN_STEP,
    journal_rows=40,
)
BLOCKED = TargetView(
    **{name: getattr(TARGET, name) for name in ("id", "workload", "direction", "prefix", "path", "url", "endpoint")},
    origin=TARGET.origin,
    state=State.BLOCKED,
    reason="bucket \x1b[2Jb is missing",
    pending_files=2,
)


class Told:
    """A replicator that says what the test wants, and that may go away and come back at its address."""

    def __init__(self) -> None:
        self.targets = (TARGET,)
        self.address = "127.0.0.1:0"
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = await serve(self.address, snapshot=self._snapshot, metrics=Metrics(), complaints=list)
        self.address = self._server.address

    async def stop(self) -> None:
        if self._server:
            await self._server.close()
        self._server = None

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            version="1.2.3",
            now_ts=time.time(),
            started_ts=time.time() - 60,
            is_draining=False,
            is_ready=True,
            not_ready=(),
            config=ConfigView(source="env", generation=1, valid=True, applied_ts=time.time() - 60),
            transfers_in_flight=0,
            transfers_limit=16,
            queue_jobs=0,
            watch_limit=None,
            targets=self.targets,
        )


@pytest.fixture
async def told():
    one = Told()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def on_tty(bare, told):
    """Runs `replicator` on a terminal, where it asks `told`."""

    def start(*arguments: str, size=(100, 30), **more: str):
        env = bare.environment(REPLICATOR_HTTP_LISTEN=told.address, **{"NO_COLOR": ""} | more)
        return on_terminal([*bare.program, *arguments], env=env, cwd=bare.home, size=size)

    return start


async def shows(terminal, text: str) -> None:
    """Wait until the picture has a text."""
    await asyncio.to_thread(terminal.until, lambda one: text in one.picture)


@pytest.mark.slow
async def test_watch_follows_over_a_restart_and_gives_the_terminal_back(told, on_tty):
    """Fresh, told to be old while nobody answers, fresh again, and as small as the window becomes; Ctrl-C ends it."""
    with on_tty("status", "--watch") as terminal:
        await shows(terminal, "in step: 1 target, 40 files")
        await told.stop()
        await shows(terminal, "DOES NOT ANSWER; what stands below is of ")
        assert "in step: 1 target, 40 files" in terminal.picture
        told.targets = (BLOCKED,)
        await told.start()
        await shows(terminal, r"blocked: bucket \x1b[2Jb is missing")
        assert "DOES NOT ANSWER" not in terminal.picture
        terminal.resize(50, 8)
        await shows(terminal, "more lines; `replicator status`")
        small = terminal.picture.splitlines()
        terminal.press(CTRL_C)
        code = await asyncio.to_thread(terminal.end)

    assert len(small) <= 8
    assert max(map(len, small)) <= 50
    assert code == 4
    assert "Traceback" not in terminal.text
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h"), "the other screen is left"
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is back"
    assert "last seen: not safe: " in terminal.text
    assert r"bucket \x1b[2Jb is missing" in terminal.text.rpartition("last seen: ")[2].replace("\r\n", "")


@pytest.mark.slow
async def test_watch_in_a_pipe_is_a_line_for_each_change(told, bare):
    """No picture, no code: the standing, its change, the silence on standard error; SIGTERM ends it."""
    process = await bare.start("status", "--watch", REPLICATOR_HTTP_LISTEN=told.address)
    first = await process.stdout.readline()
    told.targets = (BLOCKED,)
    second = await process.stdout.readline()
    await told.stop()
    silence = await process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    rest = await process.communicate()

    assert first.split(b" ", 1)[1] == b"w/egress/stats is in-step\n"
    assert (
        second.split(b" ", 1)[1]
        == rb"w/egress/stats is blocked, 2 files (0 B) pending, bucket \x1b[2Jb is missing" + b"\n"
    )
    assert b"nobody listens there" in silence
    assert rest == (b"", b"")
    assert process.returncode == 4


@pytest.mark.slow
async def test_watch_as_json_is_a_status_a_line(told, bare):
    """Each line is what `status --json` prints."""
    process = await bare.start("status", "--watch", "--json", REPLICATOR_HTTP_LISTEN=told.address)
    lines = [documented("status", (await process.stdout.readline()).decode()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    await process.communicate()

    assert [line["targets"][0]["state"] for line in lines] == ["in-step", "in-step"]
    assert lines[0]["now_ts"] < lines[1]["now_ts"]
    assert process.returncode == 0


async def test_watch_waits_for_a_replicator_that_is_not_there_yet(told, on_tty):
    """It says whom it asks and why there is nothing; without any status the end is a failure."""
    await told.stop()
    with on_tty("status", "--watch") as terminal:
        await shows(terminal, "nobody listens there")
        terminal.press(CTRL_C)
        code = await asyncio.to_thread(terminal.end)

    assert code == 1


@pytest.mark.parametrize(("no_color", "has_colours"), [("", True), ("1", False)])
async def test_colours_are_for_those_who_want_them(told, on_tty, no_color, has_colours):
    """NO_COLOR is obeyed."""
    with on_tty("status", NO_COLOR=no_color) as terminal:
        code = await asyncio.to_thread(terminal.end)

    assert code == 0
    assert ("\x1b[32m" in terminal.raw) == has_colours
    assert "in-step" in terminal.text


async def test_watch_on_a_dumb_terminal_is_lines(told, on_tty):
    """A terminal that cannot move its cursor gets what a pipe gets."""
    with on_tty("status", "--watch", TERM="dumb") as terminal:
        await asyncio.to_thread(terminal.until, lambda one: "w/egress/stats is in-step" in one.raw)
        terminal.press(CTRL_C)
        await asyncio.to_thread(terminal.end)

    assert "\x1b" not in terminal.raw


@pytest.mark.slow
async def test_pipe_has_no_width_but_that_of_columns(told, bare):
    """Names are not folded where they are searched; COLUMNS is obeyed where somebody sets it."""
    told.targets = (TargetView(**{**_fields(TARGET), "id": f"w/egress/{'long/' * 30}"}),)

    def status(**env: str):
        return bare("status", REPLICATOR_HTTP_LISTEN=told.address, **env)

    wide, narrow = await asyncio.gather(status(COLUMNS=""), status(COLUMNS="60"))

    assert f"w/egress/{'long/' * 30}  in-step" in wide.out
    assert max(map(len, narrow.out.splitlines())) <= 60


def _fields(view: TargetView) -> dict:
    return {name: getattr(view, name) for name in TargetView.__dataclass_fields__}


@pytest.fixture
def busy(replicator):
    """The command with files to move."""
    (replicator.home / "export/out").mkdir()
    for number in range(20):
        (replicator.home / f"export/out/{number}").write_bytes(os.urandom(100_000))
    return replicator


@pytest.mark.slow
async def test_long_work_has_a_bar_on_a_terminal_only(busy):
    """It is on standard error, so that what the command answers stays clean; with --json there is none."""

    def run(*arguments: str):
        command, env = [*busy.program, *arguments], busy.environment()
        with on_terminal(command, env=env, cwd=busy.home, stdout=subprocess.PIPE) as one:
            answer = one.process.stdout.read().decode()
            assert one.end() == 0, one.text
            return one, answer

    synced, answer = await asyncio.to_thread(run, "sync")
    assert " files, " in synced.text
    assert "\x1b[?25h" in synced.raw, "the cursor is back"
    assert "object stored" not in synced.text, "lines about single files would push the bar away"
    assert answer.startswith("in step: ")
    assert "\x1b" not in answer

    as_json, answer = await asyncio.to_thread(run, "verify", "--deep", "--json")
    assert "\x1b" not in as_json.raw
    assert len(json.loads(answer)) == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_reader_that_has_enough_is_no_fault(bare, unbuffered):
    """`| head -1` ends in silence, whether that shows while printing or at the end."""
    command = f"{shlex.join(bare.program)} settings --export-dir {'/x' * 100} | head -1"

    done = await shell(command, bare.environment(PYTHONUNBUFFERED=unbuffered))

    assert done.stdout.startswith("config ")
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_full_disk_behind_the_output_is_told(bare, unbuffered):
    """One line and exit code 1, whether it shows while printing or at the end."""
    done = await shell(f"{shlex.join(bare.program)} version > /dev/full", bare.environment(PYTHONUNBUFFERED=unbuffered))

    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device. Make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def shell(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, ["sh", "-c", command], env=env, capture_output=True, text=True)
