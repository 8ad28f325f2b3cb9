"""The ingress sweep over a real export and a real journal; the bucket is a list of pages."""

import os
from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from pydantic import SecretStr

from replicator.detect.ingress_sweep import IngressSweep
from replicator.errors import ObjectMissing, Unavailable
from replicator.model import Direction, Hint, Prefix, RemoteObject, Row, Storage, Target, TargetOptions
from replicator.stores.files.export import Export
from replicator.stores.files.presence import Presence
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.stores.objects import ObjectStore


class Bucket:
    """Objects as listings tell them, `page_keys` a page."""

    def __init__(self) -> None:
        self.etags: dict[str, str] = {}
        self.page_keys = 2
        self.lists = 0
        self.heads = 0
        self.breaks_after: int | None = None

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        self.lists += 1
        keys = sorted(self.etags, key=lambda key: key.encode("utf-8", "surrogateescape"))
        keys = [key for key in keys if key.startswith(prefix)]
        for number, at in enumerate(range(0, len(keys), self.page_keys)):
            if number == self.breaks_after:
                raise Unavailable("cut")
            yield [RemoteObject(key, 1, self.etags[key], 0) for key in keys[at : at + self.page_keys]]

    def head(self, key: str) -> RemoteObject:
        self.heads += 1
        if key not in self.etags:
            raise ObjectMissing("no such object")
        return RemoteObject(key, 1, self.etags[key], 0)


class Swept:
    """A lane, its bucket and its export; `sweep` gives the hinted relpaths."""

    def __init__(self, home, journal: Journal, **options) -> None:
        self.root = home / "export"
        (self.root / "in").mkdir(parents=True)
        storage = Storage("http://h", "b", "r", SecretStr("k"), SecretStr("s"))
        target = Target("w", Direction.INGRESS, str(self.root), "in", Prefix("p/"), storage, TargetOptions(**options))
        self.bucket = Bucket()
        export = Export(str(self.root), "in", hard_links="allow")
        self.lane = Lane(target, export, cast("ObjectStore", self.bucket), journal, journal.target(target.identity))
        self.one = IngressSweep(self.lane)
        self.skipped: dict[str, str] = {}
        self.files = 0

    def arrive(self, *relpaths: str, etag: str = "e1") -> None:
        """Object, file and row agree."""
        for relpath in relpaths:
            self.bucket.etags[f"p/{relpath}"] = etag
            path = self.root / "in" / relpath
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            self.lane.journal.settle(self.lane.number, Row(relpath, self.stat(relpath), etag, ""))

    def stat(self, relpath: str):
        return self.lane.export.stat(relpath).fingerprint

    def path(self, relpath: str):
        return self.root / "in" / relpath

    async def sweep(self) -> list[str | None]:
        hints: list[Hint] = []

        async def found(more: list[Hint]) -> None:
            hints.extend(more)

        report = await self.one.run(found)
        self.skipped, self.files = report.skipped, report.files
        return [hint.relpath for hint in hints]


@pytest.fixture
def journal(tmp_path):
    one = Journal.open(str(tmp_path / "state"))
    yield one
    one.close()


@pytest.fixture
def swept(tmp_path, journal):
    return Swept(tmp_path, journal)


@pytest.fixture
def marked(tmp_path, journal):
    """A target whose marker is `_m`."""
    one = Swept(tmp_path, journal, ingress_marker="_m")
    one.arrive("_m", "f")
    return one


async def test_what_is_in_step_is_not_looked_at(swept, monkeypatch):
    """An object with its row and a file of its name costs no more than the question whether that is there."""
    swept.arrive("a", "a.b", "ax/b", "d/e/f", "é", "z")
    monkeypatch.setattr(Export, "stat", lambda *_: pytest.fail("it was looked at"))

    assert await swept.sweep() == []
    assert (swept.files, swept.skipped) == (6, {})


async def test_file_that_the_quick_look_does_not_see_gets_a_proper_one(swept, monkeypatch):
    """A no of the quick look is a doubt: what is in step, or edited, is still left alone."""
    swept.arrive("edited", "same")
    swept.path("edited").write_bytes(b"edited")
    monkeypatch.setattr(Presence, "has", lambda *_: False)

    assert await swept.sweep() == []


async def test_every_difference_is_hinted(swept):
    """A new object, another version and a missing file, on whatever page they are; an edit is none."""
    swept.arrive("changed", "edited", "gone", "same")
    swept.bucket.etags |= {"p/new": "e1", "p/changed": "e2"}
    swept.path("edited").write_bytes(b"edited")
    swept.path("gone").unlink()

    assert sorted(await swept.sweep()) == ["changed", "gone", "new"]
    assert swept.files == 5


async def test_file_that_was_there_before_is_hinted(swept):
    """Without a row nothing is known of it: it has to be compared."""
    swept.path("f").write_bytes(b"x")
    swept.bucket.etags["p/f"] = "e1"

    assert await swept.sweep() == ["f"]


async def test_removed_file_is_left_alone_when_it_is_not_to_come_back(tmp_path, journal):
    """Then only another version of its object brings it back."""
    swept = Swept(tmp_path, journal, restore_deleted=False)
    swept.arrive("f", "g")
    swept.path("f").unlink()
    swept.path("g").unlink()
    swept.bucket.etags["p/g"] = "e2"

    assert await swept.sweep() == ["g"]


async def test_what_took_the_place_of_a_file_is_named(swept):
    """A link or a directory under the name is no file of ours; its object is neither fetched nor forgotten."""
    swept.arrive("dir", "link", "ok")
    for name in ("dir", "link"):
        swept.path(name).unlink()
    swept.path("dir").mkdir()
    swept.path("link").symlink_to("ok")

    assert await swept.sweep() == []
    assert swept.skipped == {"dir": "directory", "link": "symlink"}


async def test_object_beneath_a_file_is_named_and_not_asked_for(swept):
    """Where a file stands in the place of its directory nothing can be put: it would be fetched again and again."""
    swept.arrive("a")
    swept.bucket.etags["p/a/b"] = "e1"

    assert await swept.sweep() == []
    assert swept.skipped == {"a/b": "refused"}


@pytest.mark.parametrize("page_keys", [1, 100])
async def test_unsafe_keys_and_markers_stop_nobody(swept, page_keys):
    """Keys that can be no file are named, markers pass in silence, neighbours are compared; whatever their order."""
    swept.bucket.page_keys = page_keys
    swept.arrive("a", "z")
    bad = ["p/..", "p/a//b", "p/./x", "p/" + "n" * 256, "p/\udcff"]
    swept.bucket.etags |= dict.fromkeys([*bad, "p/", "p/m/", "p/\U0001f600", "p/new"], "e1")

    assert sorted(await swept.sweep()) == ["new", "\U0001f600"]
    assert swept.skipped == dict.fromkeys(bad, "unsafe-name")


async def test_excluded_objects_are_not_hinted(tmp_path, journal):
    """New ones and changed ones alike."""
    swept = Swept(tmp_path, journal, exclude=("*.tmp",))
    swept.arrive("old.tmp")
    swept.bucket.etags |= {"p/old.tmp": "e2", "p/new.tmp": "e1", "p/new": "e1"}

    assert await swept.sweep() == ["new"]


async def test_row_without_an_object_is_hinted_once_two_listings_missed_it(swept):
    """At the beginning, between pages and at the end; one listing proves nothing."""
    swept.arrive("a", "b", "c", "d", "e", "f", "g")
    for key in ("p/a", "p/d", "p/g"):
        del swept.bucket.etags[key]

    assert await swept.sweep() == []
    assert await swept.sweep() == ["a", "d", "g"]


@pytest.mark.parametrize("page_keys", [1, 2, 3, 100])
async def test_pages_may_end_anywhere(swept, page_keys):
    """Rows are marched through pages of any length; every row meets its object."""
    swept.bucket.page_keys = page_keys
    swept.arrive(*(f"{name}{more}" for name in ("a", "a.b", "a-", "b") for more in ("1", "/x", "/x.y")))

    assert await swept.sweep() == []
    assert await swept.sweep() == []
    assert swept.files == 12


async def test_missing_export_blocks_and_asks_for_nothing(swept):
    """The target stands still with the path and the next step."""
    swept.root.rename(swept.root.with_name("away"))
    report = await swept.one.run(lambda _: pytest.fail("something was hinted"))

    assert "is missing" in report.blocked
    assert report.fix
    assert (swept.bucket.lists, swept.bucket.heads) == (0, 0)


# With a marker


async def test_unchanged_marker_keeps_what_the_last_listing_said(marked):
    """Status goes on to show what was left out, though nothing is listed."""
    marked.bucket.etags["p/.."] = "e1"
    await marked.sweep()
    before = (marked.files, marked.skipped)

    assert await marked.sweep() == []
    assert (marked.files, marked.skipped) == before
    assert before == (2, {"p/..": "unsafe-name"})
    assert (marked.bucket.lists, marked.bucket.heads) == (1, 2)


async def test_listing_that_breaks_is_repeated(marked):
    """Nothing is remembered of it: what it did not reach would be missed."""
    marked.bucket.etags["p/z"] = "e1"
    marked.bucket.breaks_after = 1
    with pytest.raises(Unavailable):
        await marked.sweep()
    marked.bucket.breaks_after = None

    assert await marked.sweep() == ["z"]


async def test_hints_that_were_not_taken_are_given_again(marked):
    """A sweep that ends while it hands over its hints has not happened."""
    marked.bucket.etags["p/z"] = "e1"

    async def refuse(_hints):
        raise RuntimeError("the queue is gone")

    with pytest.raises(RuntimeError):
        await marked.one.run(refuse)

    assert await marked.sweep() == ["z"]


async def test_marker_renewed_during_a_listing_is_seen_by_the_next_poll(marked):
    """It is asked for before the listing, so a version that comes meanwhile is another one at the next look."""
    whole_list = marked.bucket.list

    def list_and_renew(prefix):
        yield from whole_list(prefix)
        marked.bucket.etags |= {"p/late": "e1", "p/_m": "e2"}
        marked.bucket.list = whole_list

    marked.bucket.list = list_and_renew
    assert await marked.sweep() == []

    assert sorted(await marked.sweep()) == ["_m", "late"]


async def test_export_that_was_away_is_listed_for_again(marked):
    """A directory that comes back may have lost its files."""
    await marked.sweep()
    away = marked.root.with_name("away")
    marked.root.rename(away)
    await marked.sweep()
    away.rename(marked.root)
    os.unlink(marked.path("f"))

    assert await marked.sweep() == ["f"]


async def test_doubt_is_one_more_listing(marked):
    """The marker counts again after it."""
    await marked.sweep()
    marked.one.doubt()
    await marked.sweep()
    await marked.sweep()

    assert marked.bucket.lists == 2
