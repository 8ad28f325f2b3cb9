"""Structured logs over the standard library: a fixed phrase, and fields with names from one list.

Text for people on a terminal, JSON lines for machines; one record is one line in both, whatever a file is called.
Never here: what is worth a line (the rooms know), file rotation, a second way to log. A `SecretStr` masks
itself; its value is masked too (`hide`), because other libraries' messages pass through here.
"""

import functools
import json
import logging
import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from pydantic import SecretStr

from replicator.observe import words

FIELDS: Mapping[str, str] = {
    "address": "host:port that is listened on",
    "attempts": "how often it was tried",
    "bucket": "the bucket",
    "bytes": "how many bytes were moved",
    "cause": "closed-set word: what set it off",
    "code": "HTTP status code of the store",
    "device": "namespace/name of an EdgeDevice",
    "directory": "absolute local directory",
    "endpoint": "scheme://host:port of the store",
    "error": "the exception, or what went wrong",
    "etag": "version of the object, unquoted",
    "field": "which setting or field of a manifest",
    "files": "how many files",
    "fix": "the safe next step for a person",
    "found": "changes that no event had announced",
    "generation": "number of the configuration",
    "key": "the full object key",
    "kind": "kind of objects at the Kubernetes API server, in the plural",
    "limit": "the bound in force",
    "name": "name of the object",
    "namespace": "its namespace; empty: all",
    "next_attempt_s": "seconds until it is tried again",
    "operation": "the S3 operation",
    "origin": "where the target's words came from",
    "parts": "how many parts of a multipart upload",
    "path": "absolute local path",
    "pending_bytes": "bytes not in step",
    "pending_files": "files not in step",
    "pid": "process id",
    "published": "id of a generation, as its directory is called",
    "reason": "closed-set word: why",
    "relpath": "path inside the target",
    "rows": "rows of the journal",
    "seconds": "how long it took",
    "signal": "name of the signal",
    "source": "where the configuration or the events come from",
    "state": "state of the target",
    "target": "id of the target: workload/direction/prefix",
    "targets": "how many targets",
    "task": "name of the task",
    "url": "where in the bucket, without credentials",
    "version": "version of replicator",
    "waiting": "settings that take effect at the next start",
    "watches": "directories under watch",
    "workload": "name of the workload",
}
"""Every field name and what it means. A name that is missing here fails the tests, not the line."""

_OURS = "replicator"
_MASK = "**********"
_SHORTEST_SECRET = 8
"""Shorter values would be masked in the middle of ordinary words, and so be told by the gaps."""
_CAPPED = ("aiobotocore", "aiohttp", "asyncio", "botocore", "fsspec", "s3fs", "urllib3", "watchfiles")

_hidden: Counter[str] = Counter()
"""Secrets in use, and by how many."""


def hide(secret: SecretStr) -> None:
    """Mask this value in every later line, whoever writes it."""
    if len(secret.get_secret_value()) >= _SHORTEST_SECRET:
        _hidden[secret.get_secret_value()] += 1


def reveal(secret: SecretStr) -> None:
    """Take one `hide` back: nothing that could write this value is left. Keys that rotate must not add up for ever."""
    text = secret.get_secret_value()
    if text in _hidden:
        _hidden[text] -= 1
        if not _hidden[text]:
            del _hidden[text]


def masked(text: str) -> str:
    """`text` without hidden values: for foreign words that reach people by another way than a log line."""
    for secret in tuple(_hidden):
        text = text.replace(secret, _MASK)
    return text


def silence(library: str, beginning: str) -> None:
    """Drop what this logger of a library says with these first words: a warning about what is meant to be so."""
    logging.getLogger(library).addFilter(_Silence(beginning))


def get(room: str) -> "Log":
    """The log of one room: `_log = logs.get("transfer")`, then `_log.info("object stored", key=key)`."""
    return Log(logging.getLogger(f"{_OURS}.{room}"))


class Log:
    """A fixed lower-case phrase and fields. `error=` takes an exception: one line, its traceback at debug only."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, phrase: str, **fields: object) -> None:
        """For whoever looks for a fault in replicator itself."""
        self._log(logging.DEBUG, phrase, fields)

    def info(self, phrase: str, **fields: object) -> None:
        """One object moved, one target started or stopped."""
        self._log(logging.INFO, phrase, fields)

    def warning(self, phrase: str, **fields: object) -> None:
        """It will be tried again."""
        self._log(logging.WARNING, phrase, fields)

    def error(self, phrase: str, **fields: object) -> None:
        """A person must act."""
        self._log(logging.ERROR, phrase, fields)

    def _log(self, level: int, phrase: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            exc = fields.get("error")
            exc_info = (type(exc), exc, exc.__traceback__) if isinstance(exc, BaseException) else None
            # Made by hand: `Logger.log` would walk the stack for a line number that nobody is shown.
            record = logging.LogRecord(self._logger.name, level, "", 0, phrase, None, exc_info)
            record.fields = fields
            self._logger.handle(record)


def configure(*, level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002 -- the setting's word
    """Send every record to `stream` (standard error). `level`: debug|info|warning|error, `format`: auto|text|json.

    May be called again. Libraries speak from WARNING on, at every level: at DEBUG some print headers and bodies.
    """
    stream = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    is_text = format == "text" or (format == "auto" and stream.isatty())
    has_traceback = threshold <= logging.DEBUG
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _TextLines(has_traceback=has_traceback, ascii_only=not _is_unicode(stream))
        if is_text
        else _JsonLines(has_traceback=has_traceback)
    )
    handler.setLevel(threshold)
    handler.addFilter(_is_welcome)
    # What no line shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _CAPPED:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(threshold)


def _is_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "ascii").lower().startswith("utf")


def _is_welcome(record: logging.LogRecord) -> bool:
    """A library's child logger may have set a level of its own."""
    return record.levelno >= logging.WARNING or _room_of(record) != record.name


def _room_of(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{_OURS}.")


def _plain(value: object) -> str | int | float | bool | None:
    """A scalar that may be shown; text still unescaped."""
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, BaseException):
        return masked(f"{type(value).__name__}: {value}")
    if isinstance(value, bytes):
        return masked(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(str(_plain(item)) for item in value)
    return masked(str(value))


@functools.lru_cache(maxsize=1)
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class _Silence:
    """Equal for the same words, so that a logger has it once."""

    beginning: str

    def __call__(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginning)


class _Lines(logging.Formatter):
    """What both forms share: the fields of a record, whoever wrote it."""

    def __init__(self, *, has_traceback: bool) -> None:
        super().__init__()
        self._has_traceback = has_traceback

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        shown = {name: _plain(value) for name, value in getattr(record, "fields", {}).items()}
        if record.exc_info and record.exc_info[1] is not None:
            shown.setdefault("error", _plain(record.exc_info[1]))
        return shown

    def traceback(self, record: logging.LogRecord) -> str:
        """'' unless asked for; masked, not yet escaped."""
        if not self._has_traceback or not record.exc_info or record.exc_info[1] is None:
            return ""
        return masked("".join(traceback.format_exception(record.exc_info[1])))


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object: time, level, room, message, then the fields. ASCII only, strings escaped."""
        milliseconds = f"{int(record.msecs):03d}"
        line: dict[str, Any] = {
            "time": f"{_utc(int(record.created))}.{milliseconds}Z",
            "level": record.levelname.lower(),
            "room": _room_of(record),
            "message": masked(record.getMessage()),
            **self.fields(record),
        }
        if trace := self.traceback(record):
            line["traceback"] = trace
        safe = {name: words.escape(value) if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(safe)


class _TextLines(_Lines):
    def __init__(self, *, has_traceback: bool, ascii_only: bool) -> None:
        super().__init__(has_traceback=has_traceback)
        self._ascii_only = ascii_only

    def format(self, record: logging.LogRecord) -> str:
        """`12:03:04 INFO  object stored  target=... bytes=12`, local time; a traceback follows, indented."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = words.escape(masked(record.getMessage()), ascii_only=self._ascii_only)
        fields = [f"{name}={self._value(value)}" for name, value in self.fields(record).items()]
        line = f"{moment} {record.levelname:<7} {message}" + ("  " + " ".join(fields) if fields else "")
        trace = (words.escape(step, ascii_only=self._ascii_only) for step in self.traceback(record).splitlines())
        return "\n".join([line, *(f"    | {step}" for step in trace)])

    def _value(self, value: object) -> str:
        text = words.escape(str(value), ascii_only=self._ascii_only)
        if text and not set(text) & set(' "='):
            return text
        quoted = text.replace('"', '\\"')
        return f'"{quoted}"'
