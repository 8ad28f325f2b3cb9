"""What the C library keeps of freed memory."""

import ctypes
import subprocess
import sys

import pytest

from replicator.stores import heap

CROWD = """
import re, sys, threading
from replicator.stores import heap

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

assert sys.argv[1] == "as it is" or heap.keep_small()
here, gone = threading.Barrier(33), threading.Barrier(33)

def work():
    kept = []
    for number in range(20):
        body = bytearray(900_000 + number * 37_000)
        kept.append(bytes(3000))
        del body
    here.wait()
    del kept
    gone.wait()

threads = [threading.Thread(target=work) for _ in range(32)]
before = resident()
for thread in threads:
    thread.start()
here.wait()
grown = resident() - before
gone.wait()
print(grown)
"""


def grown(how: str) -> float:
    """MiB that 32 threads leave behind, each of which had bodies of a megabyte and keeps little."""
    run = subprocess.run([sys.executable, "-c", CROWD, how], capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_bodies_that_are_gone_take_no_room():
    """What threads have freed goes back to the kernel, though small things were made after it."""
    assert grown("kept small") < grown("as it is") / 2


def test_other_library_is_left_alone(monkeypatch):
    """Without mallopt nothing is done, and nothing breaks."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())

    assert not heap.keep_small()
