"""Which watch stands on which directory: a tree that follows renames, and that forgets what is gone.

Pure: no kernel, no disk. A directory that moved away is adrift: it has no path until it is put somewhere again, and
those that were not are cleared out.
"""

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Place:
    """A watched directory. `heat` is when something last happened in it, seconds since the epoch."""

    wd: int
    name: str = ""
    parent: "_Place | None" = None
    heat: float = 0.0
    children: "dict[str, _Place]" = field(default_factory=dict)

    def unhang(self) -> None:
        # Another may have the name by now.
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]
        self.parent = None

    def beneath(self) -> "Iterator[_Place]":
        pending = [self]
        while pending:
            place = pending.pop()
            yield place
            pending += place.children.values()


class Watches:
    """Watch descriptors by directory, and back. Relpaths count from the first directory that is put, which is ''."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._root: _Place | None = None
        self._adrift: dict[int, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, wd: int) -> bool:
        return wd in self._places

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._places))

    @property
    def root_wd(self) -> int | None:
        """The watch of the directory itself; None while there is none."""
        return self._root.wd if self._root else None

    @property
    def has_adrift(self) -> bool:
        """Whether directories moved away and were not put anywhere since."""
        return bool(self._adrift)

    def path(self, wd: int) -> str | None:
        """The relpath of a watched directory; None when the watch is unknown or its directory adrift."""
        place = self._places.get(wd)
        names = []
        while place is not None and place.parent is not None:
            names.append(place.name)
            place = place.parent
        return "/".join(reversed(names)) if place is not None and place is self._root else None

    def has(self, relpath: str) -> bool:
        """Whether a watch stands on this directory."""
        return _find(self._root, relpath) is not None

    def has_child(self, wd: int, name: str) -> bool:
        """Whether a watch stands on the directory `name` in that of `wd`."""
        place = self._places.get(wd)
        return place is not None and name in place.children

    def put(self, relpath: str, wd: int, *, heat: float) -> bool:
        """Note that `wd` stands on `relpath`, wherever it stood before. False, and nothing done, without its parent."""
        above, _, name = relpath.rpartition("/")
        parent = _find(self._root, above) if relpath else None
        place = self._places.get(wd)
        if relpath and (parent is None or (place is not None and _is_beneath(parent, place))):
            return False
        if place is None:
            place = self._places[wd] = _Place(wd)
        elif place.parent is not parent or place.name != name:
            self._adrift.pop(wd, None)
            place.unhang()
        place.heat = max(place.heat, heat)
        if parent is None:
            if self._root is not None and self._root is not place:
                self._adrift[self._root.wd] = self._root
            self._root = place
            return True
        former = parent.children.get(name)
        if former is not None and former is not place:
            self._set_adrift(former)
        place.name, place.parent = name, parent
        parent.children[name] = place
        return True

    def warm(self, wd: int, now: float) -> None:
        """Note that something happened in the directory."""
        if (place := self._places.get(wd)) is not None:
            place.heat = max(place.heat, now)

    def detach(self, wd: int, name: str) -> None:
        """The directory `name` in that of `wd` moved away or was removed."""
        parent = self._places.get(wd)
        if parent is not None and (place := parent.children.get(name)) is not None:
            self._set_adrift(place)

    def forget(self, wd: int) -> None:
        """The watch is no more; what was beneath its directory is adrift."""
        place = self._places.pop(wd, None)
        if place is None:
            return
        for child in list(place.children.values()):
            self._set_adrift(child)
        self._adrift.pop(wd, None)
        place.unhang()
        if place is self._root:
            self._root = None

    def clear_adrift(self) -> list[int]:
        """Forget all that is adrift; the watches that stood on it, to be given back."""
        gone = [place.wd for loose in self._adrift.values() for place in loose.beneath()]
        self._adrift.clear()
        for wd in gone:
            self._places.pop(wd, None)
        return gone

    def coldest(self, count: int, *, below: float) -> list[int]:
        """The watches of up to `count` directories that are colder than `below` and have no watched one beneath."""
        leaves = (
            place
            for place in self._places.values()
            if place.heat < below and not place.children and place is not self._root
        )
        return [place.wd for place in heapq.nsmallest(count, leaves, key=lambda place: place.heat)]

    def _set_adrift(self, place: _Place) -> None:
        place.unhang()
        self._adrift[place.wd] = place


def _find(root: _Place | None, relpath: str) -> _Place | None:
    place = root
    for name in relpath.split("/") if relpath else ():
        if place is None:
            return None
        place = place.children.get(name)
    return place


def _is_beneath(place: _Place | None, above: _Place) -> bool:
    while place is not None and place is not above:
        place = place.parent
    return place is above


def hottest(census: Collection[tuple[float, str]], budget: int) -> set[str]:
    """The `budget` directories with the newest changes, each with all above it; `census` has (heat, relpath) of all."""
    chosen = {""}
    for _, relpath in sorted(census, reverse=True):
        if len(chosen) >= budget:
            break
        chain = {relpath}
        while (relpath := relpath.rpartition("/")[0]) not in chosen:
            chain.add(relpath)
        if len(chosen) + len(chain - chosen) <= budget:
            chosen |= chain
    return chosen
