"""Ten minutes of changes with every fault at a low rate: nothing is lost, and nothing grows.

    python -m tests.soak [--minutes 10] [--rate 200] [--seed 1] [--report docs/SOAK.md]

In the first third the process is killed, ended and stopped now and then. After that one process has to live through
everything else, so that its memory, descriptors and journal can be looked at over time. Exits with 1 when a claim
does not hold.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from replicator.model import LATE_LOOK_S
from tests.soak.soak import Soak, report
from tests.soak.stand import Stand

LOOKED_S = int(LATE_LOOK_S) + 15
"""Until what a late request overwrote was looked at."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    stand = Stand(Path(tempfile.mkdtemp(prefix="soak-")))
    try:
        soak = Soak(stand, seconds=options.minutes * 60, rate=options.rate, seed=options.seed)
        soak.run()
        settled_s = soak.settle(calm_s=LOOKED_S)
        claims = list(soak.claims())
        text = report(soak, settled_s, claims)
        print(text, flush=True)
        if options.report:
            command = (
                f"python -m tests.soak --minutes {options.minutes:g} --rate {options.rate:g} --seed {options.seed}"
            )
            options.report.write_text(f"# Soak\n\nMade by `{command}`.\n\n{text}\n")
        return int(any(against for _, against in claims))
    finally:
        stand.close()
        if sys.exc_info()[0]:
            sys.stdout.write(stand.said)


if __name__ == "__main__":
    raise SystemExit(main())
