"""What the end of a command says to scripts; README.md has the same table."""

import enum


class Exit(enum.IntEnum):
    """Exit codes."""

    DONE = 0
    """For `sync`, `verify` and `status`: in step."""
    FAILED = 1
    CONFIG = 2
    """The configuration, or the command line."""
    DIFFERENT = 3
    SOME_FAILING = 4
    """The rest is in step, or on its way."""
    INTERRUPTED = 130
    """128 + SIGINT, as shells say it."""
