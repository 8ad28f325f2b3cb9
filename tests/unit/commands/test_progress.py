"""How far long work has come: what is counted, and the bar that shows it."""

import io
import sys

import pytest
from rich.console import Console

from replicator.commands import bar, progress
from replicator.config.settings import load
from replicator.model import Fingerprint, LocalFile
from replicator.observe.tally import Tally
from replicator.verify import _Reading

MIB = 2**20


@pytest.fixture
def show():
    def render(tally: Tally) -> str:
        out = io.StringIO()
        console = Console(file=out, width=120, force_terminal=True, color_system=None)
        console.print(*bar._Bar("sync", tally, console).get_renderables())
        return out.getvalue()

    return render


def test_bar_says_how_much_of_how_much(show):
    """Files and bytes, done and in all, and the share of both."""
    tally = Tally()
    tally.expect(files=40, size_bytes=8 * MIB)
    tally.add(files=20, size_bytes=4 * MIB)

    text = show(tally)

    assert text.startswith("sync ")
    assert "20 of 40 files, 4 MiB of 8 MiB" in text
    assert text.count("━") == 15, "half of the bar"


def test_what_is_not_known_is_not_said(show):
    """While it is not known how much there is, there is no 'of'."""
    tally = Tally()
    tally.add(files=1, size_bytes=5)

    text = show(tally)

    assert "1 file, 5 B" in text
    assert " of " not in text


def test_without_a_terminal_nothing_is_drawn(capsys, monkeypatch):
    """The work counts all the same; standard error stays empty."""
    monkeypatch.setattr(bar, "drawn", lambda *_: pytest.fail("a bar in a pipe"))

    with progress.progress("sync", load({}, {})) as tally:
        tally.add(files=1)

    assert tally.files == 1
    assert capsys.readouterr().err == ""


def test_file_that_is_read_twice_counts_once():
    """An ETag of parts may need several readings; what no reading came to counts at the end, and nothing twice."""
    tally = Tally()
    reading = _Reading(LocalFile("f", Fingerprint(10, 1, 1, 1)), tally)

    assert list(reading.of([b"123456", b"78"])) == [b"123456", b"78"]
    assert tally.size_bytes == 8
    list(reading.of([b"123456", b"7890"]))
    assert tally.size_bytes == 10
    reading.end()

    assert (tally.files, tally.size_bytes) == (1, 10)


def test_answers_stay_on_standard_output(capsys, monkeypatch):
    """What is printed while a bar stands goes where it belongs, and not to the terminal of the bar."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    with bar.drawn("sync", Tally()) as is_drawn:
        print("an answer")

    out, err = capsys.readouterr()
    assert is_drawn
    assert out == "an answer\n"
    assert "an answer" not in err
