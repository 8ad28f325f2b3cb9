"""The first thing anybody tries."""

import pytest


@pytest.mark.slow
async def test_demo_ends_by_itself_in_step(bare):
    """`replicator demo --seconds 5` shows both directions and ends with 0, which only equal bytes give."""
    result = await bare("demo", "--seconds", "5", REPLICATOR_SWEEP_INTERVAL_S="nonsense that the demo must not inherit")

    assert result.code == 0, result.out + result.err
    assert "device -> bucket  statistics/load.json" in result.out
    assert "bucket -> device  remote/data/greeting.txt" in result.out
    assert "in step" in result.out
