"""Checks of this device: the state directory, the exports, who writes in them, and the kernel's events.

Each look takes what is there as it is and writes nothing with a name. Never: the endpoint, or the state directory's
lock, which the running process holds.
"""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial

from replicator.config.settings import Settings
from replicator.detect.inotify import shortage
from replicator.doctor.findings import Answer, Check, failed, ok, warning
from replicator.errors import LeftOut, Refused, SourceChanged
from replicator.model import Direction, Target
from replicator.observe import words
from replicator.report import path_of
from replicator.stores import inotify, kernel
from replicator.stores.files.export import Export
from replicator.stores.files.temp import TEMP_DIR
from replicator.stores.files.tour import tour
from replicator.stores.journal.file import path_in
from replicator.stores.trial import Trial, is_writable_if_there, nearest, try_directory

_STATE_ROOM_BYTES = 64 * 2**20
"""The journal of some hundred thousand files."""

_COUNTING_S = 15.0
"""Directories are counted for so long; a larger tree is told as "more than"."""

_TRIED_FILES = 100
"""Of a directory, until one is found that is no link or such."""

_AS_USER = "run replicator as the user that owns the directory, or give this user the permission"


def checks(settings: Settings, targets: Sequence[Target]) -> Iterator[Check]:
    """Every check of the device, the exports' in the order of the targets."""
    yield Check("state directory", str(settings.state_dir), partial(state_directory, settings))
    for root in dict.fromkeys(target.root for target in targets):
        here = [target for target in targets if target.root == root]
        egress = [target for target in here if target.direction is Direction.EGRESS]
        look = partial(_tried, cache(partial(try_directory, root, TEMP_DIR)))
        yield Check("export", root, look(readable), is_gate=True)
        yield Check("writing", root, look(partial(writable, targets=here)), needs=root)
        if len(egress) < len(here):
            yield Check("free space", root, look(partial(free_space, settings=settings)), needs=root)
        if egress:
            yield Check("file system", root, look(partial(file_system, settings=settings)), needs=root)
        for target in egress:
            yield Check("directory", path_of(target), partial(mapped, target), needs=root)
            files = look(partial(writers, target=target, settings=settings))
            yield Check("writers", path_of(target), files, within_s=_COUNTING_S + 5, needs=root)
    egress = [target for target in targets if target.direction is Direction.EGRESS]
    if egress:
        yield Check("events", "", partial(events, settings, egress), within_s=_COUNTING_S + 5)


def state_directory(settings: Settings) -> Answer:
    """Whether the journal can be written here. The lock is not asked for."""
    path = str(settings.state_dir)
    trial = try_directory(nearest(path))
    if trial.unwritable or trial.unreadable:
        return failed(f"cannot be used: {trial.unwritable or trial.unreadable}", _AS_USER)
    if not is_writable_if_there(path_in(path)):
        return failed("its journal belongs to another user", _AS_USER)
    free = words.size(trial.free_bytes)
    if trial.free_bytes < _STATE_ROOM_BYTES:
        return warning(f"writable, but only {free} free", "free space: without a journal nothing moves")
    return ok(f"writable, {free} free")


def readable(trial: Trial) -> Answer:
    """Whether the export can be listed."""
    return failed(f"cannot be listed: {trial.unreadable}", _AS_USER) if trial.unreadable else ok("there and readable")


def writable(trial: Trial, targets: Sequence[Target]) -> Answer:
    """Whether the export can be written, which ingress needs and egress can do without."""
    if not trial.unwritable:
        return ok("writable")
    found = f"read-only ({trial.unwritable})"
    if any(target.direction is Direction.INGRESS for target in targets):
        return failed(f"{found}: ingress cannot work", f"mount it read-write, or {_AS_USER}")
    if any(target.options.delete_after_upload for target in targets):
        return failed(f"{found}: delete_after_upload cannot work", "mount it read-write, or switch that off")
    return warning(f"{found}: egress works, but nothing proves that events arrive", "mount it read-write for the proof")


def free_space(trial: Trial, settings: Settings) -> Answer:
    """The device's room against the floor that ingress keeps."""
    free, floor = words.size(trial.free_bytes), words.size(settings.free_space_floor_bytes)
    if trial.free_bytes <= settings.free_space_floor_bytes:
        return failed(
            f"{free} free, but ingress leaves {floor}", "free space, or lower REPLICATOR_FREE_SPACE_FLOOR_BYTES"
        )
    return ok(f"{free} free, of which ingress leaves {floor}")


def file_system(trial: Trial, settings: Settings) -> Answer:
    """Whether everybody's changes make events here."""
    kind = kernel.file_system(trial.device)
    if kernel.is_remote(kind):
        sweep = words.age(settings.sweep_interval_s)
        return warning(
            f"on {kind} no event tells of what other machines change; a sweep finds it, every {sweep}",
            "use a local file system where that is too late",
        )
    return ok(f"{kind}: every change makes an event" if kind else "the kernel does not tell its type")


def mapped(target: Target) -> Answer:
    """Whether the directory that is sent is there."""
    if Export(target.root, target.subdir).identity() is None:
        return warning("is not there, or behind a link: nothing is sent", "make or mount it, or correct the mapping")
    return ok("there")


def writers(trial: Trial, target: Target, settings: Settings) -> Answer:
    """Whether the kernel tells who writes: for a file that the workload left, else for one of our own."""
    relpath, is_told = _workload_file(target)
    if is_told or (not relpath and trial.tells_writers):
        return ok(
            "the kernel tells who writes a file: it is sent once it is closed" + ("" if relpath else " (none yet)")
        )
    if not relpath and trial.tells_writers is None:
        return ok("there is no file yet to try whether the kernel tells who writes it")
    quiet = f"a file counts as settled when it was quiet for {settings.debounce_quiet_s:g} s"
    if trial.tells_writers:
        fix = "run replicator as the user that owns the files, or with the capability CAP_LEASE"
        return warning(f"the kernel does not tell who writes {relpath!r}, another user's: {quiet}", fix)
    fix = "set REPLICATOR_DEBOUNCE_QUIET_S above the longest pause of a writer"
    return warning(f"the kernel does not tell who writes here: {quiet}", fix)


def events(settings: Settings, egress: Sequence[Target]) -> Answer:
    """Where events come from, and whether the kernel's limits suffice for every directory."""
    source: str = settings.watcher
    if source == "off":
        return ok(f"switched off: a sweep finds changes, every {words.age(settings.sweep_interval_s)}")
    if source == "auto":
        source = "inotify" if inotify.is_available() else "watchfiles"
    try:
        inotify.Inotify().close()
    except (OSError, AttributeError) as exc:
        if isinstance(exc, OSError) and exc.errno == errno.EMFILE:
            now = kernel.event_queues()
            fix = f"set fs.inotify.max_user_instances (now {now}) to {2 * now if now else 256} or more"
            return warning("the kernel has no further event queue for this user: sweeps find changes", fix)
        return warning(f"{source}: the kernel has no inotify: sweeps find changes", "see whether a sandbox forbids it")
    needed, is_all = _directories(egress)
    directories = ("" if is_all else "more than ") + ("1 directory" if needed == 1 else f"{needed} directories")
    name, limit = kernel.tightest_watch_limit()
    if limit is not None and needed > limit - limit // 16:  # one in sixteen is left to others
        found, _, fix = shortage(limit - limit // 16, needed).partition("; ")
        return warning(f"{source}: {found}", fix)
    return ok(f"{source}: {directories} to watch, {name} is {limit}, a queue holds {kernel.queued_events()} events")


def _workload_file(target: Target) -> tuple[str, bool]:
    """A file that is there, '' for none, and whether the kernel tells who writes it. Raises Refused: unreadable."""
    until = time.monotonic() + _COUNTING_S
    with suppress(OSError):
        for level in tour(target.root, target.subdir, "", arrive=_nothing):
            for relpath in level.files[:_TRIED_FILES]:
                with suppress(SourceChanged, LeftOut), Export(target.root, target.subdir).open(relpath) as file:
                    return relpath, file.has_writer() is not None
            if time.monotonic() > until:
                break
    return "", False


def _directories(targets: Sequence[Target]) -> tuple[int, bool]:
    """How many directories are beneath the mapped ones, and whether there was the time to count all."""
    until = time.monotonic() + _COUNTING_S
    count = 0
    for target in targets:
        try:
            for _ in tour(target.root, target.subdir, "", arrive=_nothing):
                count += 1
                if time.monotonic() > until:
                    return count, False
        except (OSError, Refused):
            continue
    return count, True


def _tried(trial: Callable[[], Trial], look: Callable[[Trial], Answer]) -> Callable[[], Answer]:
    """A look at what one trial, which checks share, has found."""
    return lambda: look(trial())


def _nothing(relpath: str, fd: int, mtime_s: float) -> None:
    """For those who only count."""
