"""What `replicator status --watch` shows: a picture that fits the terminal; or, in a pipe, a line for each change.

Never: asking, drawing, a clock (ages come in as seconds).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from replicator.observe import words
from replicator.observe.paces import Paces
from replicator.observe.render import render_status
from replicator.observe.status import Snapshot, TargetView, totals


@dataclass(frozen=True, slots=True)
class Picture:
    """The last status and how old it is; None while nobody has answered yet, and `trouble` says why."""

    address: str
    snapshot: Snapshot | None
    paces: Paces
    age_s: float = 0.0
    is_late: bool = False
    """There should have been a newer one by now."""
    trouble: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As much as there are lines for; the last of them says when there is more."""
        room, options = options.max_height, options.reset_height()
        heading = [self._heading(ascii_only=options.ascii_only), Text("")]
        pieces = [*heading, *([render_status(self.snapshot, self.paces)] if self.snapshot else [])]
        lines = [line for piece in pieces for line in console.render_lines(piece, options, pad=False)]
        if len(lines) > room:
            told = f"{words.count(len(lines) - room + 1, 'more line')}; `replicator status` prints them all"
            lines = [*lines[: room - 1], *console.render_lines(Text(told, "dim"), options, pad=False)]
        for line in lines:
            yield from line
            yield Segment.line()

    def _heading(self, *, ascii_only: bool) -> Text:
        where = f"replicator at {words.escape(self.address, ascii_only=ascii_only)}"
        if self.snapshot is None:
            return Text(f"{where}: {words.escape(self.trouble or 'is asked', ascii_only=ascii_only)}", "yellow")
        if self.is_late:
            return Text(f"{where} DOES NOT ANSWER; what stands below is of {words.age(self.age_s)} ago", "bold red")
        return Text(f"{where}, as of {words.age(self.age_s)} ago; Ctrl-C ends", "dim")


def changes(before: Snapshot | None, now: Snapshot) -> Iterator[str]:
    """A line for each target that stands otherwise than before. Names are not escaped yet."""
    time = datetime.fromtimestamp(now.now_ts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {view.id: _standing(view) for view in before.targets} if before else {}
    for view in now.targets:
        standing = _standing(view)
        if known.pop(view.id, "") != standing:
            yield f"{time} {view.id} {standing}"
    for gone in known:
        yield f"{time} {gone} is no longer mapped"
    if not now.targets and (before is None or before.targets):
        yield f"{time} no targets are configured"


def _standing(view: TargetView) -> str:
    parts = [f"is {view.state}"]
    if view.pending_files:
        parts.append(f"{words.count(view.pending_files, 'file')} ({words.size(view.pending_bytes)}) pending")
    if view.failing_by_reason:
        parts.append(f"failing: {totals(view.failing_by_reason)}")
    if view.reason:
        parts.append(view.reason)
    return ", ".join(parts)
