"""A short soak, so that the long one cannot rot, and every kind of fault meets the whole process in each run."""

import tempfile
from pathlib import Path

import pytest

from tests.soak.soak import Soak
from tests.soak.stand import KINDS, Stand

GROWTH = "nothing grows"
"""A claim that needs minutes."""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("G4")
def test_every_fault_at_once_loses_nothing(record_property):
    """A workload and another party make changes while requests, link, disk, directory and process fail in turn."""
    stand = Stand(Path(tempfile.mkdtemp(prefix="soak-")))
    try:
        kinds = {name: fault for name, fault in KINDS.items() if name != "late"}  # what is late costs a minute
        soak = Soak(stand, seconds=30, rate=40, seed=7, kinds=kinds)
        soak.run()
        soak.settle()
        against = {claim: found[:5] for claim, found in soak.claims() if found and claim != GROWTH}
    finally:
        stand.close()
    record_property("cases", soak.workload.deeds + soak.other.deeds)

    assert against == {}, stand.said
    assert soak.workload.deeds > 100
