"""Whether a flaw is known in anything that ships: pip-audit over the runtime lock, and a verdict on what it found.

pip-audit calls it a success when the service knows none of the packages, as an index without advisories does. Here a
package that nobody could be asked about is no good news.

Exit codes: 0 no flaw is known, 1 one is, 3 not every package could be looked up.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "config/locks/runtime.txt"
HINT = (
    "Run it where the advisories of PyPI or OSV are in reach, or name a mirror: make audit ARGS='-s osv --osv-url URL'"
)


def ask(more: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """pip-audit's answer for each package of the lock, and its last words where it gave none."""
    options = ("--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15")
    command = [str(Path(sys.executable).with_name("pip-audit")), *options, "--requirement", str(LOCK), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, LookupError):
        return [], (done.stderr.strip().splitlines() or ["no output"])[-1][:200]


def judge(packages: Sequence[dict[str, Any]], complaint: str) -> tuple[int, list[str]]:
    """The exit code and the lines to print."""
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    if lines:
        return 1, [*lines, "Known flaws in what ships. Raise the versions: make lock"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if complaint or unknown or not packages:
        why = complaint or f"the service knows nothing of {len(unknown)} of {len(packages)} packages"
        return 3, [f"Nothing is known about flaws in what ships: {why}.", HINT]
    return 0, [f"{len(packages)} packages, no known flaw."]


if __name__ == "__main__":
    code, words = judge(*ask(sys.argv[1:]))
    sys.stdout.write("\n".join(words) + "\n")
    sys.exit(code)
