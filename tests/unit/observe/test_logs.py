"""One record, one line: text for people, JSON for machines, no secret in either."""

import io
import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
from pydantic import SecretStr

from replicator.errors import Unavailable
from replicator.model import Storage
from replicator.observe import logs, words

CANARY = "canary/Secret+Key=0123456789"


@pytest.fixture(autouse=True)
def _restored():
    """Logging is global: leave it as it was."""
    root = logging.getLogger()
    handlers, level, hidden = root.handlers[:], root.level, set(logs._hidden)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("replicator").setLevel(logging.NOTSET)
    logs._hidden.clear()
    logs._hidden.update(hidden)


def fail(error: Exception) -> NoReturn:
    raise error


class Stream(io.TextIOWrapper):
    """A stream that encodes strictly, and that may be a terminal."""

    def __init__(self, *, is_terminal=False, encoding="utf-8") -> None:
        self._raw = io.BytesIO()
        super().__init__(self._raw, encoding=encoding, errors="strict", newline="\n", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal

    def getvalue(self):
        return self._raw.getvalue().decode(self.encoding)


@pytest.fixture
def log_to():
    """Configure, and give the stream that the lines go to."""

    def begin(level="debug", layout="json", **stream):
        out = Stream(**stream)
        logs.configure(level=level, format=layout, stream=out)
        return out

    return begin


def only(out: Stream) -> dict:
    (line,) = out.getvalue().splitlines()
    fields: dict = json.loads(line)
    return fields


class TestText:
    """For people on a terminal."""

    def test_time_level_phrase_and_fields(self, log_to):
        """One line, columns in front, fields as name=value."""
        out = log_to(layout="text")

        logs.get("transfer").info("object stored", target="w/egress/t", key="t/a.txt", bytes=12)

        assert re.fullmatch(
            r"\d\d:\d\d:\d\d INFO    object stored  target=w/egress/t key=t/a\.txt bytes=12\n", out.getvalue()
        )

    def test_phrase_without_fields_has_no_trailing_blanks(self, log_to):
        """Lines end where the text ends."""
        out = log_to(layout="text")

        logs.get("supervisor").warning("stopping")

        assert out.getvalue().endswith("WARNING stopping\n")

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("a b", '"a b"'),
            ("", '""'),
            ('a"b', '"a\\"b"'),
            ("a=b", '"a=b"'),
            (None, "None"),
            (1.5, "1.5"),
            (True, "True"),
        ],
    )
    def test_ambiguous_values_are_quoted(self, log_to, value, shown):
        """Where a value ends is never a guess."""
        out = log_to(layout="text")

        logs.get("x").info("looked at", relpath=value)

        assert out.getvalue().endswith(f"  relpath={shown}\n")

    def test_letters_are_escaped_where_the_terminal_has_none(self, log_to):
        """An ASCII console does not stop the log."""
        out = log_to(layout="text", encoding="ascii")

        logs.get("x").info("looked at", relpath="caf\u00e9")

        assert out.getvalue().endswith("relpath=caf\\u00e9\n")


class TestJson:
    """For machines."""

    def test_fields_stand_beside_time_level_room_and_message(self, log_to):
        """Numbers stay numbers; the time is UTC with milliseconds."""
        out = log_to()

        logs.get("transfer").info("object stored", key="t/a.txt", bytes=12, seconds=0.5)

        line = only(out)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert line == {
            "level": "info",
            "room": "transfer",
            "message": "object stored",
            "key": "t/a.txt",
            "bytes": 12,
            "seconds": 0.5,
        }

    def test_time_is_utc_wherever_the_device_stands(self, log_to, monkeypatch):
        """Lines of two devices can be put in order."""
        out = log_to()
        monkeypatch.setenv("TZ", "XXX-09:00")
        time.tzset()
        try:
            before = datetime.now(UTC)
            logs.get("x").info("hello")
        finally:
            monkeypatch.delenv("TZ")
            time.tzset()

        assert abs(datetime.fromisoformat(only(out)["time"]) - before) < timedelta(minutes=1)

    def test_numbers_that_json_has_not_are_text(self, log_to):
        """A line that a strict parser refuses is a lost line."""
        out = log_to()

        logs.get("x").info("looked at", seconds=float("nan"))

        assert '"seconds": "nan"' in out.getvalue()

    def test_sequences_are_one_text(self, log_to):
        """A list of names is readable and flat."""
        out = log_to()

        logs.get("x").info("looked at", path=["/a", "/b"])

        assert only(out)["path"] == "/a, /b"


@pytest.mark.parametrize("layout", ["text", "json"])
@pytest.mark.fault("F10")
def test_hostile_names_stay_on_one_line(log_to, hostile_names, layout):
    """Whatever a file is called, it forges no line and drives no terminal; the name can be read back."""
    for name in hostile_names:
        out = log_to(level="info", layout=layout)

        logs.get("x").info("looked at", relpath=name, path=name.encode("utf-8", "surrogatepass"), error=OSError(name))

        (line,) = out.getvalue().split("\n")[:-1]
        assert line.isprintable()
        if layout == "json":
            assert words.unescape(json.loads(line)["relpath"]) == name


class TestAuto:
    """`auto` looks at the stream."""

    def test_terminal_gets_text(self, log_to):
        """People read text."""
        out = log_to(layout="auto", is_terminal=True)
        logs.get("x").info("hello")

        assert out.getvalue().endswith("INFO    hello\n")

    def test_pipe_gets_json(self, log_to):
        """Collectors read JSON."""
        out = log_to(layout="auto")
        logs.get("x").info("hello")

        assert only(out)["message"] == "hello"


class TestLevels:
    """What is said at which level."""

    @pytest.mark.parametrize(("level", "said"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
    def test_level_is_a_threshold(self, log_to, level, said):
        """Each level includes the graver ones."""
        out = log_to(level=level, layout="text")
        log = logs.get("x")
        for say in (log.debug, log.info, log.warning, log.error):
            say("said")

        assert [line.split()[1][0].lower() for line in out.getvalue().splitlines()] == list(said)

    @pytest.mark.parametrize(
        "name", ["botocore.auth", "aiobotocore", "s3fs", "aiohttp.client", "watchfiles.main", "other"]
    )
    @pytest.mark.fault("F9")
    def test_libraries_speak_from_warning_on(self, log_to, name):
        """At debug, botocore prints signatures and headers: never through us, even when its own level was lowered."""
        out = log_to(level="debug")
        library = logging.getLogger(name)
        library.setLevel(logging.DEBUG)
        try:
            library.debug("headers: %s", CANARY)
            library.info("credentials found")
            library.warning("retrying\nsoon")
        finally:
            library.setLevel(logging.NOTSET)

        line = only(out)
        assert (line["room"], line["level"], line["message"]) == (name, "warning", "retrying\\x0asoon")

    def test_configuring_again_replaces(self, log_to):
        """A second call does not double the lines."""
        first, second = log_to(), log_to()

        logs.get("x").info("hello")

        assert first.getvalue() == ""
        assert only(second)["message"] == "hello"


class TestErrors:
    """Exceptions are one line; where they came from is told at debug only."""

    @pytest.fixture
    def failed(self):
        try:
            try:
                fail(OSError("socket\nclosed"))
            except OSError as exc:
                raise Unavailable("the endpoint did not answer") from exc
        except Unavailable as exc:
            return exc

    def test_type_and_message(self, log_to, failed):
        """No traceback at info."""
        out = log_to(level="info")

        logs.get("x").warning("upload put off", error=failed)

        line = only(out)
        assert line["error"] == "Unavailable: the endpoint did not answer"
        assert "traceback" not in line

    def test_traceback_at_debug_is_inside_the_json_line(self, log_to, failed):
        """With its cause, and still one line."""
        out = log_to(level="debug")

        logs.get("x").warning("upload put off", error=failed)

        trace = only(out)["traceback"]
        assert "test_logs.py" in trace
        assert "direct cause" in trace

    def test_traceback_in_text_is_indented(self, log_to, failed):
        """A message inside a traceback cannot pass for a record."""
        out = log_to(level="debug", layout="text")

        logs.get("x").warning("upload put off", error=failed)

        first, *rest = out.getvalue().splitlines()
        assert first.endswith('error="Unavailable: the endpoint did not answer"')
        assert rest
        assert all(line.startswith("    | ") for line in rest)

    def test_library_exception_is_one_line_too(self, log_to):
        """logging.exception of a library arrives as a field."""
        out = log_to(level="info")
        try:
            fail(ValueError("bad"))
        except ValueError:
            logging.getLogger("aiohttp.server").exception("Error handling request")

        assert only(out)["error"] == "ValueError: bad"


class TestSecrets:
    """A canary in the place of a secret reaches no line, at any level, in any form."""

    @pytest.mark.parametrize("layout", ["text", "json"])
    @pytest.mark.fault("F9")
    def test_secret_values_are_masked_by_type(self, log_to, layout):
        """Alone, in a list, or inside a value that holds them."""
        out = log_to(layout=layout)
        secret = SecretStr(CANARY)
        storage = Storage("https://s3", "b", "", access_key_id=secret, secret_access_key=secret)

        logs.get("x").error("refused", reason=secret, error=[secret], origin={"a": secret}, bucket=storage)

        assert out.getvalue()
        assert CANARY not in out.getvalue()

    @pytest.mark.parametrize("layout", ["text", "json"])
    @pytest.mark.fault("F9")
    def test_hidden_values_are_masked_wherever_they_appear(self, log_to, layout):
        """In messages and exceptions of others, and in their tracebacks."""
        out = log_to(level="debug", layout=layout)
        logs.hide(SecretStr(CANARY))

        logs.get("x").info("looked at", key=f"a{CANARY}b", path=CANARY.encode(), error=Unavailable(f"no {CANARY}"))
        try:
            fail(ValueError(f"bad {CANARY}"))
        except ValueError:
            logging.getLogger("botocore").exception("signing with %s", CANARY)

        assert out.getvalue().count(logs._MASK) >= 5
        assert CANARY not in out.getvalue()

    def test_value_is_hidden_while_anybody_uses_it(self, log_to):
        """Keys that rotate are forgotten once all who used them are gone, or the list would grow for ever."""
        secret = SecretStr("rotated-canary-value")
        out = log_to()
        logs.hide(secret)
        logs.hide(secret)

        logs.reveal(secret)
        logs.get("x").info("a phrase", key=secret.get_secret_value())
        logs.reveal(secret)
        logs.reveal(secret)

        assert only(out)["key"] == logs._MASK
        assert secret.get_secret_value() not in logs._hidden

    def test_short_values_are_not_hidden(self, log_to):
        """Masking every `a` would damage all lines and tell the secret by its gaps."""
        out = log_to()
        logs.hide(SecretStr("a"))
        logs.hide(SecretStr(""))

        logs.get("x").info("a phrase")

        assert only(out)["message"] == "a phrase"


def test_field_names_are_words_and_none_is_reserved():
    """A field never replaces time, level, room or message, and each has a meaning."""
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) and meaning for name, meaning in logs.FIELDS.items())
    assert not set(logs.FIELDS) & {"time", "level", "room", "message", "traceback", "phrase"}
