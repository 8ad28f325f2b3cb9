"""The benchmarks' arithmetic, their turns and their page: what nobody would notice in a table of plausible figures."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "benchmarks"
MODULES = ("stand", "peers", "cases", "results")


@pytest.fixture
def bench(monkeypatch):
    """The benchmarks' modules by name, as their scripts see them, and gone again afterwards."""
    monkeypatch.syspath_prepend(str(HERE))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


def run_of(bench: dict[str, ModuleType], wall_s: float, *, problem: str = "") -> Any:
    usage = bench["stand"].Usage(wall_s, wall_s / 2, wall_s / 2, 10.0, 0, timed_out=False)
    return bench["cases"].Run(usage, {"requests": {}}, problem)


def table_of(bench: dict[str, ModuleType], **runs: list[Any]) -> Any:
    return bench["results"].Table("plain", "up-4k", "up", runs)


def test_ratio_is_ours_divided_by_theirs(bench):
    """Half their time is 0.5, and in our own row the ratio is to the best of the others."""
    table = table_of(
        bench,
        replicator=[run_of(bench, 1.0), run_of(bench, 2.0), run_of(bench, 9.0)],
        slow=[run_of(bench, 8.0)],
        fast=[run_of(bench, 4.0)],
    )

    assert (table.ratio("slow", "wall"), table.ratio("fast", "wall")) == (0.25, 0.5)
    assert table.ratio("replicator", "cpu") == 0.5


def test_wrong_result_is_nobodys_yardstick(bench):
    """A peer with one wrong result is not the best, and we are compared with nobody when ours is wrong."""
    right, wrong = run_of(bench, 4.0), run_of(bench, 1.0, problem="2 missing")
    theirs = table_of(bench, replicator=[right], fast=[right, wrong], slow=[right])
    ours = table_of(bench, replicator=[wrong], slow=[right])

    assert theirs.best("wall") == 4.0
    assert theirs.ratio("fast", "wall") is None
    assert (ours.ratio("slow", "wall"), ours.ratio("replicator", "wall")) == (None, None)


def test_peers_take_turns(bench):
    """A B C A B C, and the slow ones once."""
    peers = [peer for peer in bench["peers"].PEERS if peer.name in {"replicator", "s5cmd", "aws"}]

    names = [peer.name for peer in bench["cases"].rounds(peers, times=2)]

    assert names == ["replicator", "s5cmd", "aws", "replicator", "s5cmd"]


def test_page_names_every_peer_and_target(bench):
    """The page has each peer in its table, and every `make bench...` there is and no other."""
    page = (HERE / "README.md").read_text()
    made = (HERE.parent / "Makefile").read_text()
    peers = {peer.name for peer in bench["peers"].PEERS} - {"replicator"}

    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE)) == peers
    assert set(re.findall(r"make (bench[a-z-]*)", page)) == set(
        re.findall(r"^(bench[a-z-]*):", made, flags=re.MULTILINE)
    )


def test_tree_is_known_by_its_bytes(bench, tmp_path):
    """The tree that was made is the tree that is found, until one byte differs or one file is gone."""
    made = bench["cases"].make_tree(tmp_path, count=101, size=10)
    found = bench["cases"].tree_of(tmp_path)
    (tmp_path / "000" / "000001").write_bytes(b"another")

    assert found == made
    assert max(made) == "001/000100"
    assert bench["cases"].tree_of(tmp_path) != made
