"""The decisions alone, over dictionaries: local view, remote view and journal -> actions, with no disk and no network.

Owns: a world of values in which the product's pure functions decide and whose effects may be cut off anywhere. Never:
a decision of its own, beyond the two looks that absence needs (`detect.sweep`).
"""

import random
from dataclasses import dataclass, field, replace

from replicator.errors import KeyUnsafe
from replicator.model import UNSEEN, Action, Fingerprint, LocalFile, Prefix, RemoteObject, Row, TargetOptions
from replicator.reconcile.classify import classify_egress, classify_ingress, is_edited
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import is_marker, key_of, relpath_of
from replicator.reconcile.march import march

NAMES = ("a", "a.b", "a/b", "A", "caf\u00e9", "cafe\u0301", "x#?%+\\ ", "l\ne", "w\udcff", "skip.tmp", "n" * 256)
HOSTILE = ("../e", "/abs", "k//x", "./x", "d/", ".", "z\0", ".replicator/x")
PART = 8
SIZES = (0, 1, PART - 1, PART, PART + 1, 2 * PART)
OPTIONS = TargetOptions(exclude=("*.tmp",))
PREFIX = Prefix("p/")


class Cut(Exception):
    """The process ends between an effect and its row."""


@dataclass
class Side:
    """Contents and versions of one side by name. A content is (number, size)."""

    contents: dict[str, tuple[int, int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, content: tuple[int, int], version: int) -> None:
        self.contents[name] = content
        self.versions[name] = version

    def drop(self, name: str) -> None:
        self.contents.pop(name, None)
        self.versions.pop(name, None)


@dataclass
class Plan:
    """One target in either direction; `round` looks at everything and acts."""

    rng: random.Random
    is_egress: bool
    is_opaque: bool = False
    restores: bool = True
    local: Side = field(default_factory=Side)
    remote: Side = field(default_factory=Side)
    rows: dict[str, Row] = field(default_factory=dict)
    kept: list[tuple[int, int]] = field(default_factory=list)
    """Contents of conflict copies."""
    acts: list[tuple[Action, str]] = field(default_factory=list)
    echoes: set[str] = field(default_factory=set)
    chance: float = 0.0
    """Of each fault at each place where one may be."""
    _absent: frozenset[str] = frozenset()
    _clock: int = 100

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def luck(self) -> bool:
        """Whether something fails here."""
        return self.rng.random() < self.chance

    def file(self, name: str) -> LocalFile | None:
        if name not in self.local.contents:
            return None
        version = self.local.versions[name]
        return LocalFile(name, Fingerprint(self.local.contents[name][1], version, version, version))

    def object(self, key: str) -> RemoteObject | None:
        if key not in self.remote.contents:
            return None
        return RemoteObject(key, self.remote.contents[key][1], self.etag(key), 0)

    def etag(self, key: str) -> str:
        number, size = self.remote.contents[key]
        return f"v{self.remote.versions[key]}" if self.is_opaque else f"{number}.{size}"

    def listing(self) -> list[tuple[str, RemoteObject]]:
        """By relpath as the sweep takes it; it may be short, and cannot say so."""
        keys = sorted((key for key in self.remote.contents if key.startswith(PREFIX.text)), key=str.encode)
        found = [(key.removeprefix(PREFIX.text), item) for key in keys if (item := self.object(key))]
        return [entry for entry in found if not self.luck()]

    def round(self) -> None:
        """One sweep and what follows from it. Raises Cut."""
        if self.luck() and self.rng.random() < 0.3:
            return  # the root is missing: nothing is looked at, nothing is concluded
        absent = self._egress() if self.is_egress else self._ingress()
        proven, self._absent = absent & self._absent, frozenset(absent)
        for name in sorted(proven):
            self._look_again(name)

    def _egress(self) -> set[str]:
        rows = self.rows
        for name in sorted(self.local.contents):
            local, row = self.file(name), rows.get(name)
            assert local is not None
            if not is_included(name, OPTIONS) or self._is_echo(local) or self.luck():
                continue
            try:
                key = key_of(PREFIX, name)
            except KeyUnsafe:
                continue
            action = classify_egress(local, UNSEEN, row)
            if action is Action.CHECK and row is not None:
                action = Action.ADOPT if row.checksum == str(self.local.contents[name]) else Action.COPY
            if action in (Action.COPY, Action.ADOPT):
                self._act(action, name, key)
        return {name for name in rows if name not in self.local.contents}

    def _is_echo(self, local: LocalFile) -> bool:
        return local.relpath in self.echoes and self.local.versions[local.relpath] < 0

    def _ingress(self) -> set[str]:
        absent = set()
        for name, item, row in list(march(self.listing(), sorted(self.rows.items()))):
            if item is None:
                absent.add(name)
            elif not is_marker(item.key) and not self.luck():
                self._take(name, item, row)
        return absent

    def _take(self, name: str, item: RemoteObject, row: Row | None) -> None:
        try:
            name = relpath_of(PREFIX, item.key, subdir="")
        except KeyUnsafe:
            return
        if not is_included(name, OPTIONS):
            return
        local = self.file(name)
        action = classify_ingress(item, local, row, restore_deleted=self.restores)
        if action is Action.CHECK:
            is_equal = not self.is_opaque and self.local.contents[name] == self.remote.contents[item.key]
            action = Action.ADOPT if is_equal else Action.COPY
        if action in (Action.COPY, Action.ADOPT):
            if action is Action.COPY and local is not None and is_edited(local, row):
                self.kept.append(self.local.contents[name])
            self._act(action, name, item.key)

    def _look_again(self, name: str) -> None:
        """A worker's look at what two sweeps missed: the only way to forget."""
        row = self.rows.get(name)
        if self.is_egress:
            action = classify_egress(self.file(name), UNSEEN, row)
            evidence = name not in self.local.contents
        else:
            item = self.object(PREFIX.text + name)  # HEAD is never short
            action = classify_ingress(item, self.file(name), row, restore_deleted=self.restores)
            evidence = item is None
        if action is Action.FORGET:
            assert evidence, f"{name!r} is forgotten though it is there"
            self.acts.append((action, name))
            del self.rows[name]

    def _act(self, action: Action, name: str, key: str) -> None:
        """The effect, then the row; the process may end before, between and after."""
        if self.luck():
            return  # refused
        self.acts.append((action, name))
        if action is Action.COPY and self.is_egress:
            self.remote.put(key, self.local.contents[name], self.tick())
        elif action is Action.COPY:
            self.local.put(name, self.remote.contents[key], self.tick())
        if self.luck():
            raise Cut
        local = self.file(name)
        assert local is not None
        etag = self.etag(key) if key in self.remote.contents else self.rows[name].etag
        self.rows[name] = Row(name, local.fingerprint, etag, str(self.local.contents[name]), is_verified=True)


def correlated(seed: int) -> Plan:
    """A tree that was one once: each side and the journal have moved on from it, or have not."""
    rng = random.Random(seed)
    plan = Plan(rng, is_egress=rng.random() < 0.5, is_opaque=rng.random() < 0.3, restores=rng.random() < 0.7)
    for number, name in enumerate(rng.sample(NAMES, rng.randint(0, len(NAMES)))):
        if not plan.is_egress and not _is_key(name):
            continue
        base = (number, rng.choice(SIZES))
        _begin(plan, name, base)
        _perturb(plan, name, base)
    if not plan.is_egress:
        for key in rng.sample(HOSTILE, rng.randint(0, 3)):
            plan.remote.put(PREFIX.text + key, (99, 1), plan.tick())
    elif rng.random() < 0.5:
        plan.echoes = set(rng.sample(NAMES, 2))
        for name in plan.echoes & plan.local.contents.keys():
            plan.local.versions[name] = -plan.tick()  # just as ingress left it
    return plan


def _is_key(name: str) -> bool:
    return "\udcff" not in name


def _begin(plan: Plan, name: str, base: tuple[int, int]) -> None:
    """Both sides and the row as they were in step; a name that S3 cannot carry never was."""
    plan.local.put(name, base, plan.tick())
    if _is_key(name):
        plan.remote.put(PREFIX.text + name, base, plan.tick())
        local = plan.file(name)
        assert local is not None
        plan.rows[name] = Row(name, local.fingerprint, plan.etag(PREFIX.text + name), str(base), is_verified=True)


def _perturb(plan: Plan, name: str, base: tuple[int, int]) -> None:
    rng, key = plan.rng, PREFIX.text + name
    other = (base[0] + 50, rng.choice([base[1], rng.choice(SIZES)]))
    match rng.choice(["same", "same", "changed", "touched", "gone"]):
        case "changed":
            plan.local.put(name, other, plan.tick())
        case "touched":
            plan.local.put(name, base, plan.tick())
        case "gone":
            plan.local.drop(name)
    match rng.choice(["same", "same", "changed", "rewritten", "gone"]) if key in plan.remote.contents else "never":
        case "changed":
            plan.remote.put(key, (other[0] + 1, other[1]), plan.tick())
        case "rewritten":
            plan.remote.put(key, base, plan.tick())
        case "gone":
            plan.remote.drop(key)
    match rng.choice(["as it was", "as it was", "lost", "older"]) if name in plan.rows else "never":
        case "lost":
            del plan.rows[name]
        case "older":
            row = plan.rows[name]
            plan.rows[name] = replace(row, etag="older", checksum="older", fingerprint=replace(row.fingerprint, ino=7))
