"""An S3 server in a process of its own, for tests: moto, made quicker.

Ends when its standard input does, so not even a killed test run leaves it behind. Run it with `running`.
"""

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The endpoint of a server that runs while the block does."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.moto_server"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        _, endpoint = next(line for line in process.stdout or () if line.startswith("ready")).split()
        yield endpoint
        process.kill()


def main() -> None:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    _remember()
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    print("ready", "http://{}:{}".format(*server.get_host_and_port()), flush=True)
    sys.stdout = sys.stderr  # nobody reads a second line: it would fill the pipe and stop the server
    sys.stdin.read()


def _remember() -> None:
    """What moto finds out anew: at each request its own services, on disk; at each listed object the same few times.

    That is half of what a request costs, and half of a listing.
    """
    from botocore.utils import parse_to_aware_datetime
    from moto import backends
    from moto.core import serialize

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    vars(serialize)["parse_to_aware_datetime"] = functools.lru_cache(parse_to_aware_datetime)


if __name__ == "__main__":
    main()
