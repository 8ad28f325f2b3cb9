"""A soak: a workload and another party at work, one fault after the other, and what has to be true in the end."""

import contextlib
import os
import platform
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.faults import wire
from tests.soak.gauges import Sample, growth
from tests.soak.history import history, overtaken
from tests.soak.stand import KINDS, Stand
from tests.soak.workload import OtherParty, Workload, digest

IN_THE_BUCKET = "every file is in the bucket as it is"
NO_PARTS_LEFT = "no upload is left open with parts in it"
TOLD = 5
"""Files that speak against a claim and whose history is told."""

CALM_S = 180
"""How long it may take to be in step once the faults are over."""


class Soak:
    """One run: who acts, what befalls them, what was measured."""

    def __init__(
        self, stand: Stand, *, seconds: float, rate: float, seed: int, kinds: Mapping[str, wire.Fault] = KINDS
    ) -> None:
        self.stand, self.seconds, self.rate, self.kinds = stand, seconds, rate, kinds
        self.workload = Workload(stand.outbox, random.Random(seed))
        self.other = OtherParty(stand.client, stand.bucket, stand.inbox, random.Random(seed + 1))
        self.dice = random.Random(seed + 2)
        self.samples: list[Sample] = []
        self.torn: set[str] = set()
        self.faults: Counter[str] = Counter()
        self.began_s = time.monotonic()
        self.is_over = threading.Event()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    def run(self) -> None:
        self._start()
        chaos = self.stand.proxy.chaos(self.dice.randrange(2**32), 0.02, self.kinds)
        jobs = (self._act, self._measure, self._read)
        threads = [threading.Thread(target=job, name=job.__name__) for job in jobs]
        for thread in threads:
            thread.start()
        self._befall()
        self.is_over.set()
        for thread in threads:
            thread.join()
        self.stand.proxy.calm()
        self.faults.update(chaos.hits)

    def settle(self, *, calm_s: int = 8) -> float:
        """Until nothing was pending on either side for so long; how many seconds that took.

        By default two sweeps of both directions. What a late request overwrote is looked at a minute later only.
        """
        began_s = time.monotonic()
        calm = 0
        while calm < calm_s:
            assert time.monotonic() < began_s + CALM_S + calm_s, "still not in step: see the log"
            time.sleep(1)
            now = self.stand.sample(self.now_s)
            calm = calm + 1 if now and not now.pending else 0
        return time.monotonic() - began_s - calm

    def _start(self) -> None:
        """With both engines from the beginning: the second one's 35 MiB, loaded when first needed, are no growth."""
        self.workload.put_odd()
        self.stand.start()

    def _act(self) -> None:
        """Changes at the rate, a tenth of them at the other side."""
        due_s, number = time.monotonic(), 0
        while not self.is_over.is_set():
            due_s, number = due_s + 1 / self.rate, number + 1
            (self.workload if number % 10 else self.other).act()
            self.is_over.wait(max(0, due_s - time.monotonic()))

    def _measure(self) -> None:
        while not self.is_over.wait(1):
            if now := self.stand.sample(self.now_s):
                self.samples.append(now)

    def _read(self) -> None:
        """A reader of fetched files, who must never see what nobody wrote."""
        while not self.is_over.wait(0.2):
            for path in list(self.stand.inbox.rglob("*")):
                with contextlib.suppress(OSError):
                    if path.is_file():
                        self._look(path)

    def _look(self, path: Path) -> None:
        relpath = path.relative_to(self.stand.inbox).as_posix().partition(".sync-conflict-")[0]
        if digest(path.read_bytes()) not in self.other.written[relpath]:
            self.torn.add(str(path))

    def _befall(self) -> None:
        """One larger fault after the other, with a pause between."""
        stand = self.stand
        everywhere: dict[str, Callable[[], object]] = {
            "outage": lambda: stand.outage(6),
            "throttled minute": lambda: stand.throttle(5),
            "slow link": lambda: stand.slow(6),
            "connections cut": stand.proxy.sever,
            "device full": lambda: stand.fill(3),
            "source away": lambda: stand.hide(3),
            "burst of files": self._burst,
            "credentials rotated": lambda: stand.rotate(int(self.now_s * 1000)),
        }
        at_first: dict[str, Callable[[], object]] = {
            "killed": self._restart(stand.kill),
            "ended": self._restart(stand.terminate),
            "suspended": lambda: stand.pause(3),
        }
        for name, deed in self._plan(everywhere | at_first, until_s=self.seconds / 3):
            self.faults[name] += 1
            deed()
        for name, deed in self._plan(everywhere, until_s=self.seconds):
            self.faults[name] += 1
            deed()

    def _plan(
        self, deeds: dict[str, Callable[[], object]], *, until_s: float
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Each once before one comes again, in an order by chance, while there is time."""
        while True:
            for name in self.dice.sample(sorted(deeds), len(deeds)):
                pause_s = self.dice.uniform(2, 6)
                if self.now_s + pause_s + 10 > until_s:
                    self.is_over.wait(max(0, until_s - self.now_s))
                    return
                self.is_over.wait(pause_s)
                yield name, deeds[name]

    def _burst(self) -> None:
        self.workload.burst(2000)
        time.sleep(2)
        self.workload.clear_burst()

    def _restart(self, end: Callable[[], object]) -> Callable[[], None]:
        def deed() -> None:
            end()
            self._start()

        return deed

    # What has to be true in the end

    def claims(self) -> Iterator[tuple[str, list[str]]]:
        """Each claim with what speaks against it."""
        objects = self._objects("sent/")
        files = {path.relative_to(self.stand.outbox).as_posix(): path for path in _plain(self.stand.outbox)}
        digests = {relpath: digest(path.read_bytes()) for relpath, path in files.items()}
        yield IN_THE_BUCKET, [one for one in digests if objects.get(one) != digests[one]]
        written = self.workload.written
        bodies = {(call.key.removeprefix("sent/"), call.digest) for call in self.stand.proxy.seen("put", key="sent/*")}
        # A reset leaves a part of a body in the proxy's record, which the server never saw.
        yield "no object was ever torn", [one for one, body in objects.items() if body not in written[one]]
        yield (
            "no body was sent that no file ever was",
            [one for one, body in bodies if body not in written[one] and one.partition("/")[0] != "burst"],
        )
        yield (
            "every object is a file as it is",
            [
                one
                for one, body in self.other.objects.items()
                if digest((self.stand.inbox / one).read_bytes()) not in {body, self.other.edits.get(one)}
            ],
        )
        kept = {digest(path.read_bytes()) for path in _plain(self.stand.inbox)}
        yield "every edit of a fetched file is kept", [o for o, body in self.other.edits.items() if body not in kept]
        yield "no reader saw a torn file", sorted(self.torn)
        temps = self.stand.home / "export/.replicator/tmp"
        yield "no temporary file is left", [path.name for path in temps.iterdir()] if temps.exists() else []
        uploads = self.stand.client.list_multipart_uploads(Bucket=self.stand.bucket).get("Uploads", [])
        # One without parts was begun by a request that came in late, so nobody knows its id.
        holding = [one["Key"] for one in uploads if self._has_parts(one["Key"], one["UploadId"])]
        yield NO_PARTS_LEFT, [key.removeprefix("sent/") for key in holding]
        yield "nothing grows", list(self._grown())

    def _has_parts(self, key: str, upload_id: str) -> bool:
        listed = self.stand.client.list_parts(Bucket=self.stand.bucket, Key=key, UploadId=upload_id)
        return bool(listed.get("Parts"))

    def _objects(self, prefix: str) -> dict[str, str]:
        pages = self.stand.client.get_paginator("list_objects_v2").paginate(Bucket=self.stand.bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        bodies = {key: self.stand.client.get_object(Bucket=self.stand.bucket, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(prefix): digest(body) for key, body in bodies.items() if "burst/" not in key}

    @property
    def lived(self) -> list[Sample]:
        """Samples of the process that lived to the end, without its first half minute."""
        mine = [one for one in self.samples if one.pid == self.stand.process.pid]
        return [one for one in mine if one.at_s > mine[0].at_s + 30] or mine

    def _grown(self) -> Iterator[str]:
        for gauge, share, more in (("rss_mib", 1.1, 4), ("fds", 1.2, 8), ("threads", 1, 4), ("state_mib", 1.5, 4)):
            before, after = growth(self.lived, gauge)
            if after > before * share + more:
                yield f"{gauge} went from {before:.1f} to {after:.1f}"


def _plain(top: Path) -> Iterator[Path]:
    return (
        path for path in top.rglob("*") if path.is_file() and not path.is_symlink() and ".replicator" not in path.parts
    )


def _table(soak: Soak, *, every_s: float) -> str:
    lines = ["| minute | pid | RSS MiB | descriptors | threads | state MiB | temporary | pending | oldest s | series |"]
    lines.append("|" + " ---: |" * 10)
    due_s = 0.0
    for one in soak.samples:
        if one.at_s >= due_s:
            due_s = one.at_s + every_s
            lines.append(
                f"| {one.at_s / 60:.1f} | {one.pid} | {one.rss_mib:.0f} | {one.fds} | {one.threads}"
                f" | {one.state_mib:.1f} | {one.temps} | {one.pending:.0f} | {one.oldest_s:.0f} | {one.series} |"
            )
    return "\n".join(lines)


def report(soak: Soak, settled_s: float, claims: list[tuple[str, list[str]]]) -> str:
    calls = Counter(call.operation for call in soak.stand.proxy.calls)
    faults = ", ".join(f"{name} {count}" for name, count in sorted(soak.faults.items()))
    requests = ", ".join(f"{name} {count}" for name, count in calls.most_common())
    changes = soak.workload.deeds + soak.other.deeds
    worst = {gauge: max(getattr(one, gauge) for one in soak.lived) for gauge in ("rss_mib", "fds", "threads")}
    flat = "; ".join(
        f"{gauge} {before:.1f} to {after:.1f}"
        for gauge in ("rss_mib", "fds", "threads", "state_mib", "series")
        for before, after in [growth(soak.lived, gauge)]
    )
    broken = [relpath for claim in (IN_THE_BUCKET, NO_PARTS_LEFT) for relpath in dict(claims).get(claim, [])]
    histories = "\n".join(history(soak.stand, relpath) for relpath in broken[:TOLD])
    verdicts = "\n".join(
        f"- {claim}: {'yes' if not against else f'NO, {len(against)}: {against[:3]}'}" for claim, against in claims
    )
    changed = f"{changes} changes in {soak.seconds:.0f} s ({changes / soak.seconds:.0f} a second)"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    device = "with" if soak.stand.is_own_device else "without"
    struck = sum(soak.faults[kind] for kind in KINDS)
    most = f"at most {worst['rss_mib']:.0f} MiB, {worst['fds']} descriptors, {worst['threads']} threads"
    paragraphs = (
        f"{changed}, {machine}, {device} a file system that can be filled.",
        f"Faults: {faults}.",
        f"Requests: {requests}. Of them {struck} met a fault of their own.",
        f"Uploads that the server carried out after a later one of their key: {overtaken(soak.stand.proxy.fates)}.",
        f"In step {settled_s:.0f} s after the last fault.",
        verdicts,
        *([f"What happened to files of which that is not so:\n\n{histories}"] if histories else []),
        f"The process that lived to the end, median of its first and of its last fifth: {flat}; {most}.",
        _table(soak, every_s=soak.seconds / 20),
    )
    return "\n\n".join(paragraphs)
