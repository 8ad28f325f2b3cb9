"""Promises about both directions, the process and its configuration."""

import dataclasses
import json
import logging
import os
import threading
import time

import pytest
from pydantic import SecretStr

from replicator import once, verify
from replicator.engine import Engine
from replicator.errors import ConfigError
from replicator.observe import logs
from replicator.observe.status import to_json
from replicator.transfer import egress


@pytest.mark.fault("B16")
async def test_b1_a_blocked_direction_does_not_stop_the_other(device, witness, until):
    """B1: with ingress pointed at a bucket that does not exist, egress goes on, and the state says which is blocked."""
    nowhere = dataclasses.replace(device.storage, bucket="no-such-bucket-anywhere")
    ingress = dataclasses.replace(device.ingress(), storage=nowhere)
    device.write("out/f")
    async with device.running(device.egress(), ingress) as running:
        await until(lambda: running.view("egress").state == "in-step")
        await until(lambda: running.view("ingress").state == "blocked")

        assert await witness.keys("sent/") == ["sent/f"]
        assert "no-such-bucket-anywhere" in running.view("ingress").reason
        assert "Create the bucket" in running.view("ingress").fix


async def test_b1_a_bad_file_does_not_stop_the_others(device, witness, until):
    """B1: a file that fails for ever is listed with its reason; every other file arrives."""
    for number in range(10):
        device.write(f"out/f{number}")
    async with device.running(device.egress(), watcher="off") as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        put = store.put

        def poison(key, body, **more):
            if key == "sent/f3":
                raise ValueError("a surprise that nobody planned for")
            return put(key, body, **more)

        store.put = poison
        for number in range(10):
            device.write(f"out/g{number}")
        device.write("out/f3", b"changed")
        await until(lambda: running.view().failing and running.view().journal_rows >= 19)

        assert [file.relpath for file in running.view().failing] == ["f3"]
        assert "surprise" in running.view().failing[0].message


async def test_b1_one_targets_lost_directory_does_not_stop_another(device, witness, until):
    """B1: targets fail one by one."""
    device.write("out/f")
    device.write("second/g")
    async with device.running(device.egress(), device.egress("second", "second/")) as running:
        await running.in_step()
        device.outbox.rename(device.export / "away")
        await until(lambda: any(view.state == "blocked" for view in running.supervisor.snapshot().targets))
        device.write("second/h")

        await until(lambda: witness.keys("second/h"))


async def test_b3_upload_frees_the_device_where_the_target_says_so(device, witness, until):
    """B3: with delete_after_upload a file goes once the store has confirmed its content, and its object stays."""
    device.write("out/a", b"first")
    device.write("out/deep/b", b"second")
    device.write("keep/c", b"third")
    freeing = device.egress(delete_after_upload=True)
    async with device.running(freeing, device.egress("keep", "kept/")) as running:
        await until(lambda: not any(path.is_file() for path in device.outbox.rglob("*")))
        device.write("out/a", b"another")
        await until(lambda: not (device.outbox / "a").exists())
        await running.in_step()

        assert running.count("freed") == 3
        assert {view.state for view in running.supervisor.snapshot().targets} == {"in-step"}
    assert await witness.get("sent/a") == b"another"
    assert await witness.get("sent/deep/b") == b"second"
    assert (device.export / "keep/c").exists()


async def test_b3_file_whose_upload_is_not_proven_stays(device, witness):
    """B3: an ETag that proves nothing, or an object that is gone since, keeps the file on the device."""
    path = device.write("out/a", b"only copy")
    await device.sync(device.egress())
    await witness.delete("sent/a")

    await device.sync(device.egress(delete_after_upload=True))

    assert path.read_bytes() == b"only copy"


async def test_b3_touched_file_whose_object_is_gone_stays(device, witness):
    """B3: that the content is what was once sent proves nothing about the object of today."""
    path = device.write("out/a", b"only copy")
    await device.sync(device.egress())
    await witness.delete("sent/a")
    os.utime(path, (1_600_000_000, 1_600_000_000))

    await device.sync(device.egress(delete_after_upload=True))

    assert path.read_bytes() == b"only copy"


async def test_b3_file_that_stays_is_not_asked_for_again_and_again(device, witness):
    """B3: one HEAD tells that the object is gone; the sweeps after it make no request."""
    device.write("out/a", b"only copy")
    await device.sync(device.egress())
    await witness.delete("sent/a")
    async with device.running(device.egress(delete_after_upload=True)) as running:
        await running.in_step()
        before = running.requests()
        await running.swept()
        await running.swept()

        assert running.requests() == before == {"head_object": 1}


async def test_b3_file_that_was_sent_before_the_option_came_is_freed(device, witness):
    """B3: the option holds for what is in step already, once a HEAD has shown that the object is still there."""
    path = device.write("out/a", b"sent long ago")
    await device.sync(device.egress())

    await device.sync(device.egress(delete_after_upload=True))

    assert not path.exists()
    assert await witness.get("sent/a") == b"sent long ago"


async def test_b2_what_ingress_wrote_is_not_sent_back(device, witness, until):
    """B2: an egress source that covers an ingress directory sends the workload's files, and its edits, but no echo."""
    await witness.put("incoming/a", b"from the bucket")
    async with device.running(device.egress("", "backup/"), device.ingress()) as running:
        await until((device.inbox / "a").exists)
        device.write("own", b"the workload's own")
        await until(lambda: witness.keys("backup/own"))
        await running.in_step()
        await running.in_step()
        assert await witness.keys("backup/") == ["backup/own"]

        device.write("in/a", b"edited by the workload")
        await until(lambda: witness.keys("backup/in/a"))

        await witness.put("incoming/a", b"the bucket's next version")
        await until(lambda: (device.inbox / "a").read_bytes() == b"the bucket's next version")
        await running.in_step()
        await running.in_step()

    assert await witness.get("backup/in/a") == b"edited by the workload"
    assert [key for key in await witness.keys("backup/in/") if "sync-conflict" not in key] == ["backup/in/a"]


async def test_b2_echo_guard_survives_a_restart(device, witness):
    """B2: the guard is a fact in the journal and not a timer."""
    await witness.put("incoming/a", b"from the bucket")
    await device.sync(device.ingress())

    both = device.egress("", "backup/"), device.ingress()
    assert [step async for step in once.plan(device.effective(), both)] == []
    await device.sync(*both)
    assert [found.differences for found in await verify.verify(device.effective(), both)] == [[], []]
    async with device.running(*both) as running:
        await running.in_step()

        assert "put_object" not in running.requests()
    assert await witness.keys("backup/") == []


async def test_b2_drain_sends_no_echo_either(device, witness, until):
    """B2: the last look before the end still knows which files came from the bucket."""
    await witness.put("incoming/a", b"from the bucket")
    both = device.egress("", "backup/"), device.ingress()
    async with device.running(*both, watcher="off", sweep_interval_s=3600) as running:
        await until(lambda: running.view("ingress").journal_rows == 1)
        device.write("in/own", b"written just before the end")

    assert await witness.keys("backup/") == ["backup/in/own"]


@pytest.mark.fault("A18")
async def test_b3_nothing_is_deleted_on_either_side(device, witness, until):
    """B3: removals on one side leave the other side as it was."""
    device.write("out/f")
    await witness.put("incoming/g", b"x")
    async with device.running(device.egress(), device.ingress()) as running:
        await running.in_step()
        (device.outbox / "f").unlink()
        device.write("out/keep")
        await witness.delete("incoming/g")
        await until(lambda: running.view("ingress").journal_rows == 0)
        await running.in_step()

        assert "delete_object" not in running.requests()
    assert await witness.keys("sent/") == ["sent/f", "sent/keep"]
    assert (device.inbox / "g").exists()


async def test_b8_spent_data_budget_stops_both_ways_and_says_so(device, witness, until):
    """B8: what would pass the budget waits, over a restart too, with the reason and the time; nothing is lost."""
    for number in range(4):
        device.write(f"out/f{number}", bytes(600_000))
    async with device.running(device.egress(), data_budget="1MB/1d", transfers=1) as running:
        await until(lambda: running.view().state == "blocked")

        assert "budget" in running.view().reason
        assert running.supervisor.snapshot().link.budget_used_bytes >= 1_000_000
        assert running.supervisor.snapshot().link.budget_relief_ts
    sent = len(await witness.keys("sent/"))
    assert 2 <= sent < 4

    async with device.running(device.egress(), data_budget="1MB/1d") as running:
        await until(lambda: running.view().state == "blocked")
        assert len(await witness.keys("sent/")) == sent
    await device.sync(device.egress())

    assert len(await witness.keys("sent/")) == 4


async def test_b8_small_files_overtake_a_large_one(device, witness, until):
    """B8: while a large file takes its time, small ones go on arriving."""
    device.write("out/large", bytes(12 * 2**20))
    settings = {"part_size_bytes": 5 * 2**20, "transfers": 1, "resume_after_s": 0, "drain_timeout_s": 0}
    held = threading.Event()
    async with device.running(device.egress(), **settings) as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        put_part = store.put_part

        def hold(*args, **more):
            held.wait(30)
            return put_part(*args, **more)

        store.put_part = hold
        await until(lambda: running.view().in_flight)
        for number in range(5):
            device.write(f"out/small{number}")

        await until(lambda: running.count("copied") == 5)

        (moving,) = running.view().in_flight
        assert (moving.relpath, moving.size, moving.moved_bytes) == ("large", 12 * 2**20, 0)
        held.set()
        await running.in_step()


async def test_b4_idle_egress_makes_no_request_and_ingress_one_listing_a_poll(device, witness):
    """B4: silence costs nothing on a metered link but the poll itself."""
    for number in range(20):
        device.write(f"out/{number}")
        await witness.put(f"incoming/{number}", b"x")
    async with device.running(device.egress(), device.ingress()) as running:
        await running.in_step()
        await running.in_step()
        before = running.requests()
        polls = running.sweeps("ingress")
        await running.in_step()
        await running.in_step()
        after = running.requests()

        listings = after.pop("list_objects_v2") - before.pop("list_objects_v2")
        assert after == before
        assert listings <= running.sweeps("ingress") - polls + 1


@pytest.mark.fault("F9")
async def test_b5_secrets_appear_nowhere(device, witness, until, caplog, tmp_path):
    """B5: credentials are in no log line at debug, no metric, no status and not in the journal."""
    canary = "canary-secret-value-0123456789"
    storage = dataclasses.replace(device.storage, secret_access_key=SecretStr(canary))
    device.storage = storage
    device.write("out/f")
    log_file = tmp_path / "log"
    with log_file.open("w") as stream:
        logs.configure(level="debug", format="text", stream=stream)
        async with device.running(device.egress(), device.ingress()) as running:
            await running.in_step()
            status = json.dumps(to_json(running.supervisor.snapshot()))
            running.engine.metrics.publish(running.supervisor.snapshot())
            metrics = running.engine.metrics.render().decode()
    logs.configure(level="info", format="text")
    logging.getLogger("replicator").handlers.clear()
    state = b"".join(path.read_bytes() for path in (device.home / "state").iterdir())

    assert canary not in log_file.read_text()
    assert log_file.read_text()
    assert canary not in status
    assert canary not in metrics
    assert canary.encode() not in state


async def test_b5_age_of_unreplicated_data_is_visible_and_older_than_the_process(device, until):
    """B5: the oldest pending age counts from the change itself, not from the start of the process."""
    device.storage = dataclasses.replace(device.storage, endpoint="http://127.0.0.1:9")
    path = device.write("out/f")
    await until(lambda: time.time() - path.stat().st_ctime > 1.5)
    async with device.running(device.egress(), drain_timeout_s=0) as running:
        await until(lambda: running.view().oldest_pending_s > 0)
        started = running.supervisor.snapshot().started_ts

        assert running.view().oldest_pending_s > time.time() - started + 1
        assert running.view().pending_files == 1
        assert running.view().state in ("behind", "blocked", "failing")


@pytest.mark.fault("C5")
async def test_b6_stop_sends_what_is_settled_first(device, witness, until):
    """B6: a file closed just before SIGTERM is in the bucket when the process has ended."""
    device.outbox.mkdir()
    async with device.running(device.egress(), watcher="off", sweep_interval_s=3600) as running:
        await until(lambda: running.view().state == "in-step")
        device.write("out/last", b"words")

    assert await witness.get("sent/last") == b"words"


@pytest.mark.fault("C5")
async def test_b6_drain_ends_by_itself_when_the_endpoint_is_away(device, until):
    """B6: what cannot be sent is left for the next start; the process ends within its drain time."""
    device.storage = dataclasses.replace(device.storage, endpoint="http://127.0.0.1:9")
    device.write("out/f")
    async with device.running(device.egress(), drain_timeout_s=1) as running:
        await until(lambda: running.view().state == "blocked")

    assert running.task.done()


@pytest.mark.fault("C5")
async def test_b6_second_signal_skips_the_drain(device, until):
    """B6: who insists is obeyed."""
    device.storage = dataclasses.replace(device.storage, endpoint="http://127.0.0.1:9")
    device.write("out/f")
    async with device.running(device.egress(), drain_timeout_s=600) as running:
        await until(lambda: running.view().state == "blocked")
        running.supervisor.stop()
        running.supervisor.stop()
        await until(running.task.done, within_s=5)


@pytest.mark.fault("D1")
async def test_b7_broken_configuration_changes_nothing_and_is_visible(device, witness, until):
    """B7: the last good configuration stays in force; the error is in status and readiness, and goes when mended."""
    device.outbox.mkdir()
    async with device.running(device.egress()) as running:
        await running.in_step()
        running.source.reject(ConfigError(where="w.yaml: spec.data", problem="is broken", fix="Mend it."))
        await until(lambda: not running.supervisor.snapshot().config.valid)
        device.write("out/f")
        await until(lambda: witness.keys("sent/"))

        assert "w.yaml" in running.supervisor.snapshot().config.error
        assert any("w.yaml" in reason for reason in running.supervisor.snapshot().not_ready)
        running.source.offer(device.egress())
        await until(lambda: running.supervisor.snapshot().config.valid)
        await running.in_step()


async def test_b7_target_that_is_taken_out_sends_what_is_settled_first(device, witness, until):
    """B7: what a workload wrote before it was taken away is in the bucket before its target is gone."""
    device.outbox.mkdir()
    async with device.running(device.egress(), watcher="off", sweep_interval_s=3600) as running:
        await until(lambda: running.view().state == "in-step")
        device.write("out/last", b"words")
        running.source.offer()
        await until(lambda: not running.supervisor.snapshot().targets)

        assert await witness.get("sent/last") == b"words"


@pytest.mark.fault("D5")
async def test_b7_target_that_is_taken_out_cannot_hold_up_the_others(device, witness, until):
    """B7: where its bucket is away, a target goes within the drain time, and the new configuration is in force."""
    away = dataclasses.replace(
        device.egress(), storage=dataclasses.replace(device.storage, endpoint="http://127.0.0.1:9")
    )
    device.write("out/f")
    async with device.running(away, drain_timeout_s=0.5) as running:
        await until(lambda: running.view().state == "blocked")
        running.source.offer(device.egress("second", "second/"))
        device.write("second/g")

        await until(lambda: witness.keys("second/"))


async def test_b7_bucket_of_the_only_target_stays_open_while_its_options_change(device, witness, until, monkeypatch):
    """B7: the old target is wholly gone before the new one is ready, and the endpoint that both use is still there."""
    released, recover, release = threading.Event(), egress.recover, Engine.release

    async def told(engine, lane):
        await release(engine, lane)
        released.set()

    def recover_later(lane):
        assert released.wait(10)
        return recover(lane)

    device.outbox.mkdir()
    async with device.running(device.egress()) as running:
        await running.in_step()
        monkeypatch.setattr(Engine, "release", told)
        monkeypatch.setattr(egress, "recover", recover_later)
        running.source.offer(device.egress(order="newest"))
        device.write("out/f")

        await until(lambda: witness.keys("sent/f"))


async def test_b6_signal_while_a_target_is_taken_out_ends_it_all(device, until):
    """B6: a stop that comes in the middle of another drain is a stop like any other."""
    device.storage = dataclasses.replace(device.storage, endpoint="http://127.0.0.1:9")
    device.write("out/f")
    async with device.running(device.egress(), drain_timeout_s=600) as running:
        await until(lambda: running.view().state == "blocked")
        running.source.offer()
        await until(lambda: "patrol w/egress/sent" not in running.supervisor._tasks)
        running.supervisor.stop()
        running.supervisor.stop()
        await until(running.task.done, within_s=5)


@pytest.mark.fault("D5")
async def test_b7_changed_configuration_leaves_untouched_targets_alone(device, witness, until):
    """B7: targets come and go while the process runs; one that did not change notices nothing."""
    device.write("out/f")
    async with device.running(device.egress()) as running:
        await running.in_step()
        patrol = running.engine.patrols["w/egress/sent"]
        running.source.offer(device.egress(), device.egress("second", "second/"))
        await until(lambda: len(running.supervisor.snapshot().targets) == 2)
        device.write("second/g")
        await until(lambda: witness.keys("second/"))
        assert running.engine.patrols["w/egress/sent"] is patrol

        running.source.offer(device.egress("second", "second/"))
        await until(lambda: len(running.supervisor.snapshot().targets) == 1)
        device.write("out/late")
        device.write("second/late")
        await until(lambda: witness.keys("second/late"))

        assert await witness.keys("sent/") == ["sent/f"]
