"""The bar itself: drawn a few times a second by a thread of its own, so that the work waits for nothing."""

import contextlib
import time
from collections.abc import Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from replicator.observe import words
from replicator.observe.slope import Slope
from replicator.observe.tally import Tally

_FRAMES_A_SECOND = 4
_FILE_BYTES = 16 * 2**10
"""What a file costs beside its bytes, in bytes: about what moves in the time of its request. For the time left."""


class _Bar(Progress):
    """Looks at the tally whenever it is drawn."""

    def __init__(self, what: str, tally: Tally, console: Console) -> None:
        self._tally = tally
        self._slope = Slope()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(compact=True),
        )
        super().__init__(
            *columns,
            console=console,
            transient=True,
            refresh_per_second=_FRAMES_A_SECOND,
            redirect_stdout=False,  # answers are not for standard error
        )
        self.add_task(what, total=None, told="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """The line, as things stand now."""
        tally = self._tally
        self._slope.add(tally.size_bytes, at_s=time.monotonic())
        total = None if tally.all_files is None else _weight(tally.all_files, tally.all_bytes or 0)
        completed, told = _weight(tally.files, tally.size_bytes), ", ".join(_told(tally, self._slope.per_s))
        for task in self.task_ids:  # none while it is made
            self.update(task, total=total, completed=completed, told=told)
        return super().get_renderables()


def _weight(files: int, size_bytes: int) -> int:
    return size_bytes + files * _FILE_BYTES


def _told(tally: Tally, per_s: float | None) -> Iterator[str]:
    if tally.all_files is None:
        yield words.count(tally.files, "file")
        yield words.size(tally.size_bytes)
    else:
        yield f"{tally.files} of {words.count(tally.all_files, 'file')}"
        yield f"{words.size(tally.size_bytes)} of {words.size(tally.all_bytes or 0)}"
    if per_s:
        yield f"{words.size(per_s)}/s"


@contextlib.contextmanager
def drawn(what: str, tally: Tally) -> Iterator[bool]:
    """Draw within, and remove it then. False, and nothing drawn, where the terminal cannot move its cursor."""
    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal:
        yield False
        return
    with _Bar(what, tally, console):
        yield True
