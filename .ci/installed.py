"""Whether the replicator that is installed beside this interpreter is whole, with nothing there but the runtime lock.

Every file of its record is there, every module can be imported, the journal finds its scripts, and the command says its
version. Exit codes: 0 it is whole, 1 it is not, which is said.
"""

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import replicator
from replicator.stores.journal.journal import Journal

NOT_LOCKED = {"localbucket"}
"""What the extra `demo` brings: no part of a device's installation."""


def flaws() -> Iterator[str]:
    """What is wrong with it."""
    if not Path(replicator.__file__).is_relative_to(sys.prefix):
        yield f"{replicator.__file__} is looked at, and that is not installed in {sys.prefix}"
    files = importlib.metadata.files("replicator") or []
    yield from (f"{file} is missing" for file in files if not Path(str(file.locate())).is_file())
    for module in pkgutil.walk_packages(replicator.__path__, "replicator."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in NOT_LOCKED:
                    yield f"{module.name} needs {error.name}, which the runtime lock lacks"
    with tempfile.TemporaryDirectory() as state:
        Journal.open(state).close()
    command = [str(Path(sys.prefix, "bin/replicator")), "version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.stdout.split() != ["replicator", importlib.metadata.version("replicator")]:
        yield f"`replicator version` says {said.stdout + said.stderr!r}"


if __name__ == "__main__":
    if found := list(flaws()):
        sys.exit("\n".join(["What is installed is not whole:", *found]))
    sys.stdout.write(f"replicator {replicator.__version__} is whole in {sys.prefix}\n")
