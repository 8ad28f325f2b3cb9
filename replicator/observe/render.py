"""The terminal's text of a status: the verdict, a table of targets, then every reason a person may act on.

Plain ASCII lines of our own, so that it reads the same in a pipe, a log and a terminal; names are escaped, and also
their letters where the output's encoding is not UTF. Never: markup from names, looking anything up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from replicator.observe import words
from replicator.observe.paces import Paces, left_bytes
from replicator.observe.status import ConfigView, LinkView, MovingFile, Snapshot, State, TargetView, totals, verdict

_STYLES = {
    State.STARTING: "yellow",
    State.IN_STEP: "green",
    State.BEHIND: "yellow",
    State.BLOCKED: "bold red",
    State.FAILING: "red",
}
_HEADINGS = ("target", "state", "lag", "pending", "failing", "last success")

_WORTH_A_LINE_BYTES = 8 * 2**20
"""Smaller files are gone before anybody has read their line."""
_MOVING_LINES = 6
"""For the largest of a target; reasons are worth more lines."""
_BAR_CHARS = 20

_Say = Callable[[str], str]
"""Escapes a text for the output at hand."""


def render_status(snapshot: Snapshot, paces: Paces | None = None) -> RenderableType:
    """What `replicator status` prints. With `paces`, what moves has a bar, a rate and a time left."""
    return _StatusText(snapshot, paces)


@dataclass(frozen=True, slots=True)
class _StatusText:
    snapshot: Snapshot
    paces: Paces | None

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        def say(text: str) -> str:
            return words.escape(text, ascii_only=options.ascii_only)

        snapshot = self.snapshot
        # The verdict is escaped already: its backslashes must not be doubled.
        yield Text(verdict(snapshot) if not options.ascii_only else say(words.unescape(verdict(snapshot))), "bold")
        if snapshot.targets:
            yield Text("")
            yield _table(snapshot, say)
        for view in snapshot.targets:
            yield from _details(view, snapshot.now_ts, self.paces, say)
        yield Text("")
        yield from _process(snapshot, say)


def _table(snapshot: Snapshot, say: _Say) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("target", "last success"))
    for view in snapshot.targets:
        pending = f"{view.pending_files} ({words.size(view.pending_bytes)})" if view.pending_files else "0"
        table.add_row(
            Text(say(view.id)),
            Text(view.state.value, style=_STYLES[view.state]),
            Text(words.age(view.oldest_pending_s) if view.pending_files else "-"),
            Text(pending),
            Text(str(sum(view.failing_by_reason.values()))),
            Text(_ago(view.last_success_ts, snapshot.now_ts)),
        )
    return table


def _ago(then_ts: float | None, now_ts: float) -> str:
    return "never" if then_ts is None else f"{words.age(now_ts - then_ts)} ago"


def _details(view: TargetView, now_ts: float, paces: Paces | None, say: _Say) -> Iterator[Text]:
    """What keeps one target from being in step, and the generation that its readers see; nothing without either."""
    lines = [*_moving(view, paces, say), *_reasons(view, say)]
    if view.generation is not None and view.generation.since_ts is not None:
        since = words.age(now_ts - view.generation.since_ts)
        lines.append(Text(f"  readers see generation {say(view.generation.id)}, published {since} ago"))
    if lines:
        yield Text("")
        yield Text(say(view.id), "bold")
        yield from lines


def _moving(view: TargetView, paces: Paces | None, say: _Say) -> Iterator[Text]:
    if paces and (per_s := paces.of_target(view)) and (left := left_bytes(view)):
        yield Text(f"  {words.size(left)} to go, {_pace(left, per_s)}")
    large = [file for file in view.in_flight if file.size >= _WORTH_A_LINE_BYTES]
    for file in sorted(large, key=lambda file: -file.size)[:_MOVING_LINES]:
        done = f"{words.size(file.moved_bytes)} of {words.size(file.size)}"
        bar = f"{_bar(file)} " if paces else ""
        per_s = paces.of_file(view, file) if paces else 0.0
        pace = f", {_pace(file.size - file.moved_bytes, per_s)}" if per_s else ""
        yield Text(f"  moving: {bar}{say(file.relpath)}: {done}{pace}")


def _bar(file: MovingFile) -> str:
    share = min(1.0, file.moved_bytes / file.size)
    full = int(share * _BAR_CHARS)
    return f"[{'#' * full}{'.' * (_BAR_CHARS - full)}] {int(share * 100):3} %"


def _pace(left: int, per_s: float) -> str:
    return f"{words.size(per_s)}/s, {words.age(max(0, left) / per_s)} left"


def _reasons(view: TargetView, say: _Say) -> Iterator[Text]:
    if view.reason:
        yield Text(f"  {view.state}: {say(view.reason)}")
    if view.fix:
        yield Text(f"  next step: {say(view.fix)}")
    for file in view.failing:
        yield Text(f"  failing: {say(file.relpath)}: {say(file.reason)}: {say(file.message)}")
        when = f"next in {words.age(file.next_attempt_s)}" if file.next_attempt_s > 0 else "next now"
        yield Text(f"    {words.count(file.attempts, 'attempt')}, {when}, pending for {words.age(file.age_s)}")
    if (hidden := sum(view.failing_by_reason.values()) - len(view.failing)) > 0:
        yield Text(f"  {hidden} more failing; in all {say(totals(view.failing_by_reason))}")
    if view.skipped_by_reason:
        examples = ", ".join(say(file.relpath) for file in view.skipped[:3])
        such_as = f", such as {examples}" if examples else ""
        yield Text(f"  left out by rule: {say(totals(view.skipped_by_reason))}{such_as}")
    if view.blocked_bytes:
        free = "" if view.free_bytes is None else f", {words.size(view.free_bytes)} free"
        quota = f", quota {words.size(view.quota_bytes)}" if view.quota_bytes else ""
        yield Text(f"  does not fit on the device: {words.size(view.blocked_bytes)}{free}{quota}")
    if view.watcher is not None and view.watcher.degraded:
        yield Text(f"  events ({say(view.watcher.source)}) are incomplete, sweeps go on: {say(view.watcher.degraded)}")


def _process(snapshot: Snapshot, say: _Say) -> Iterator[Text]:
    yield Text(_configuration(snapshot.config, snapshot.now_ts, say))
    if snapshot.config.error:
        yield Text(f"  refused: {say(snapshot.config.error)}", "red")
    for origin in dict.fromkeys(view.origin for view in snapshot.targets if view.origin):
        yield Text(f"  from {say(origin)}")
    if link := _link(snapshot.link, snapshot.now_ts):
        yield Text(f"link: {link}")
    if not snapshot.is_ready:
        yield Text(f"not ready: {say('; '.join(snapshot.not_ready))}", "yellow")
    moving = f"{snapshot.transfers_in_flight} of {snapshot.transfers_limit} transfers, {snapshot.queue_jobs} queued"
    yield Text(f"replicator {say(snapshot.version)}, up {words.age(snapshot.now_ts - snapshot.started_ts)}, {moving}")


def _link(link: LinkView, now_ts: float) -> str:
    """Caps in force and the data budget; '' without either."""
    parts = [
        f"{way} at most {words.size(limit)}/s"
        for way, limit in (("up", link.up_limit), ("down", link.down_limit))
        if limit is not None
    ]
    if link.budget_bytes:
        parts.append(f"{words.size(link.budget_used_bytes)} of {words.size(link.budget_bytes)} data budget used")
    if link.budget_relief_ts is not None:
        parts.append(f"nothing moves for {words.age(max(0.0, link.budget_relief_ts - now_ts))}")
    return ", ".join(parts)


def _configuration(config: ConfigView, now_ts: float, say: _Say) -> str:
    applied = "not applied" if config.applied_ts is None else f"applied {_ago(config.applied_ts, now_ts)}"
    return f"configuration: {say(config.source)}, generation {config.generation}, {applied}"
