"""A throttled store: how many requests does it take until everything is there?

    make bench-burst [ARGS="--files 1000 --seconds 60"]

`replicator run` has files to send while the server answers 503 SlowDown to everything, and then no longer. Passes when
all of them arrived, and no more than three times the needed requests were made.
"""

import argparse
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from cases import make_tree
from check import check
from stand import REPLICATOR, Stand, ours, wait_until

MOST = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60, help="how long the server is throttled")
    parser.add_argument("--probability", type=float, default=1, help="share of the requests that it refuses meanwhile")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as text, Stand(Path(text)) as stand:
        check(stand)
        export, state = Path(text) / "export", Path(text) / "state"
        state.mkdir(mode=0o700)
        expected = make_tree(export / "burst", count=wanted.files, size=4096)
        stand.fault(seconds=wanted.seconds, probability=wanted.probability)
        began = time.monotonic()
        env = ours(stand.http, export=export, state=state, EGRESS="burst=b")
        with subprocess.Popen([REPLICATOR, "run"], env=env) as process:
            try:
                arrived = wait_until(lambda: puts(stand) >= wanted.files, within_s=wanted.seconds + 180, step_s=0.2)
            finally:
                process.send_signal(signal.SIGTERM)
        seconds = time.monotonic() - began
        stats = stand.stats()
        found = {key.removeprefix("b/"): each["md5"] for key, each in stand.objects().items()}
    asked, refused = (sum(stats[name].values()) for name in ("requests", "refused"))
    needed = wanted.files + 1  # and the one listing of a target without a journal
    print(f"{wanted.files:,} files, throttled for {wanted.seconds:g} s: all sent after {seconds:.1f} s")
    print(f"requests {asked:,}, refused {refused:,}, needed {needed:,}: {asked / needed:.2f} times")
    print(f"by operation: {stats['requests']}")
    if not arrived or found != expected:
        raise SystemExit(f"not everything arrived: {len(found):,} of {len(expected):,}")
    if asked > MOST * needed:
        raise SystemExit(f"too many requests: {MOST} times the needed ones are allowed")


def puts(stand: Stand) -> int:
    """Files that were accepted."""
    stats = stand.stats()
    return stats["requests"].get("PutObject", 0) - stats["refused"].get("PutObject", 0)


if __name__ == "__main__":
    main()
