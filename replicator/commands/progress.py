"""A bar for long work, where somebody looks at a terminal; nothing elsewhere. The work only counts, in a `Tally`."""

import contextlib
import sys
from collections.abc import Iterator

from replicator.config.settings import Loaded
from replicator.observe import logs
from replicator.observe.tally import Tally


@contextlib.contextmanager
def progress(what: str, loaded: Loaded, *, is_wanted: bool = True) -> Iterator[Tally]:
    """Show on standard error how far the work within has come, by the tally in which it counts.

    A line a file would push the bar up: while it stands the log says warnings only, unless a level was asked for.
    """
    tally = Tally()
    if not is_wanted or not sys.stderr.isatty():
        yield tally
        return
    from replicator.commands.bar import drawn

    settings, is_asked_for = loaded.settings, loaded.origins["log_level"] != "default"
    with drawn(what, tally) as is_drawn:
        if is_drawn:  # standard error is another by now: what is written there stands above the bar
            level = settings.log_level if is_asked_for else "warning"
            logs.configure(level=level, format=settings.log_format)
        try:
            yield tally
        finally:
            logs.configure(level=settings.log_level, format=settings.log_format, stream=sys.__stderr__)
