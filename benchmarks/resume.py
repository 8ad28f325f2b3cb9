"""A large upload is killed near its end: how much of it is sent again?

    make bench-resume [ARGS="--gib 5 --mib-s 20"]

Pushes one sparse file with `replicator sync` through a link of that rate, kills it with SIGKILL when the server has
`--at` of the bytes, starts it again, and counts what the server received. Passes when no more was sent again than one
part for each part that was under way at once, and the object is the file. Needs about 5 minutes for 5 GiB.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from check import check
from stand import REPLICATOR, Endpoint, Stand, ours, say, wait_until

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=5)
    parser.add_argument("--mib-s", type=float, default=20, help="rate of the link")
    parser.add_argument("--at", type=float, default=0.9, help="share of the bytes after which it is killed")
    parser.add_argument("--part-mib", type=int, default=8)
    parser.add_argument("--resume-after-s", help="the setting; 0 for files too small to be worth resuming otherwise")
    wanted = parser.parse_args()
    size = int(wanted.gib * 1024) * MIB
    with tempfile.TemporaryDirectory(prefix="bench-") as text, Stand(Path(text)) as stand:
        check(stand)
        home = Path(text)
        slow = stand.through(stand.http, rate=wanted.mib_s * MIB)
        env = prepared(home, slow, size=size, part_mib=wanted.part_mib)
        if wanted.resume_after_s:
            env["REPLICATOR_RESUME_AFTER_S"] = wanted.resume_after_s
        patience_s = 60 + 3 * size / MIB / wanted.mib_s
        kill_at(stand, env, int(size * wanted.at), within_s=patience_s)
        first = settled(stand)
        say(f"killed with {first / MIB:,.1f} of {size / MIB:,.1f} MiB sent; starting again")
        code = subprocess.run(
            [REPLICATOR, "sync"], env=env, timeout=patience_s, check=False, stdout=subprocess.DEVNULL
        ).returncode
        stats, found = stand.stats(), stand.objects()
        again = stats["bytes_in"] - size
        allowed = stats["parts_at_once"] * wanted.part_mib * MIB
        right = code == 0 and found.keys() == {"large/file"} and found["large/file"]["md5"] == md5_of_zeros(size)
        print(f"sent in all {stats['bytes_in'] / MIB:,.1f} MiB of {size / MIB:,.1f}, {again / MIB:,.1f} MiB again")
        print(f"parts sent twice: {stats['parts_repeated']}; parts at once: {stats['parts_at_once']}")
        print(f"requests: {stats['requests']}")
        print(f"the object is {'the file' if right else f'WRONG (exit code {code})'}")
        if not right or again > allowed:
            raise SystemExit(f"not resumed: {again / MIB:,.1f} MiB again, {allowed / MIB:,.1f} were allowed")


def prepared(home: Path, endpoint: Endpoint, *, size: int, part_mib: int) -> dict[str, str]:
    """The sparse file, and the environment that sends it."""
    source, state = home / "export" / "large", home / "state"
    source.mkdir(parents=True)
    state.mkdir(mode=0o700)
    with (source / "file").open("wb") as file:
        file.truncate(size)
    return ours(endpoint, export=source.parent, state=state, EGRESS="large=large", PART_SIZE_BYTES=part_mib * MIB)


def kill_at(stand: Stand, env: dict[str, str], wanted: int, *, within_s: float) -> None:
    """Start it, and kill it the moment the server has `wanted` bytes."""
    with subprocess.Popen([REPLICATOR, "sync"], env=env) as process:
        arrived = wait_until(
            lambda: stand.stats()["bytes_in"] >= wanted or process.poll() is not None, within_s=within_s, step_s=0.02
        )
        if process.poll() is not None:
            raise SystemExit("it ended before it could be killed: more --gib, or a lower --at")
        os.kill(process.pid, signal.SIGKILL)
        if not arrived:
            raise SystemExit(f"only {stand.stats()['bytes_in']:,} bytes arrived in {within_s:.0f} s")


def settled(stand: Stand) -> int:
    """Bytes received, once what was on the link has arrived."""
    seen = [-1]

    def is_still() -> bool:
        seen.append(stand.stats()["bytes_in"])
        return seen[-1] == seen[-2]

    wait_until(is_still, within_s=30, step_s=0.5)
    return seen[-1]


def md5_of_zeros(size: int) -> str:
    digest, block = hashlib.md5(), bytes(MIB)
    for _ in range(size // MIB):
        digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
