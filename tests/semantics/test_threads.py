"""A thread that dies of a bug of ours takes the process with it, and says so: nothing stands still in silence."""

import asyncio
import functools

import pytest

from replicator.errors import ReplicatorError
from replicator.transfer import egress, settle

pytestmark = pytest.mark.fault("C8")


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize(("room", "work"), [(egress, "send"), (settle.Settling, "_count")])
async def test_thread_that_dies_ends_the_process_and_the_next_one_converges(
    device, witness, until, monkeypatch, room, work, error
):
    """The process ends with the reason, so that whoever watches it starts another; that one finds all it needs."""

    def fail(*args, **kwargs):
        raise error("a bug")

    device.write("out/f", b"content")
    with monkeypatch.context() as broken:
        broken.setattr(room, work, fail)
        with pytest.RaisesGroup(pytest.RaisesExc(ReplicatorError, match=f"ended by itself .{error.__name__}: a bug")):
            async with device.running(device.egress()) as running:
                await until(running.task.done)

    async with device.running(device.egress()) as running:
        await running.in_step()

    assert await witness.get("sent/f") == b"content"


async def test_task_that_ends_is_told_by_health(device, until):
    """Where a task is gone and the process is not, the liveness probe says which."""
    device.outbox.mkdir()
    with pytest.RaisesGroup(pytest.RaisesExc(ReplicatorError, match="task gone ended by itself")):
        async with device.running(device.egress()) as running, asyncio.TaskGroup() as group:
            tasks = running.supervisor._tasks
            assert tasks.complaints() == []
            tasks.start(group, "gone", functools.partial(asyncio.sleep, 0))
            await until(lambda: tasks.complaints() == ["task gone has ended"])
