"""Kill it anywhere: nothing is lost, and nothing is sent again that was confirmed."""

import asyncio
import dataclasses
import os
import random
import signal
from collections import Counter

import pytest

from replicator.stores.journal.journal import Journal

FILES = 120


def confirmed(home):
    """relpath -> etag of every row that the dead process left."""
    journal = Journal.open(str(home / "state"))
    try:
        rows = [row for number in (1, 2) for row in journal.rows(number)]
        return {row.relpath: row.etag for row in rows if row.relpath.startswith("d/up")}
    finally:
        journal.close()


LONG_EPISODES = 17
"""Times six seeds, times two kills: 204."""


@pytest.mark.slow
@pytest.mark.fault("C1", "C7")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(6))
async def test_killed_at_any_time_it_converges_and_resends_nothing_confirmed(
    replicator, witness, until, seed, is_long, record_property
):
    """SIGKILL at a random moment of a busy start, twice; all is there, whole; once confirmed never again."""
    chance = random.Random(seed)
    episodes = LONG_EPISODES if is_long else 1
    record_property("cases", 2 * episodes)
    await asyncio.to_thread(
        witness.client.put_bucket_versioning,
        Bucket=witness.bucket,
        VersioningConfiguration={"Status": "Enabled"},
    )
    for number in range(episodes):
        home = replicator.home / f"device{number}"
        (home / "export").mkdir(parents=True)
        words = {
            "REPLICATOR_EXPORT_DIR": str(home / "export"),
            "REPLICATOR_STATE_DIR": str(home / "state"),
            "REPLICATOR_EGRESS": f"out=sent{number}",
            "REPLICATOR_INGRESS": f"incoming{number}=in",
        }
        device = dataclasses.replace(replicator, home=home, env=replicator.env | words)
        await kill_twice(device, witness, until, chance, number)


async def kill_twice(replicator, witness, until, chance, number):
    """What a device of this number sends and fetches lies below prefixes of this number."""
    sent = f"sent{number}/"
    contents = {f"up{one}": os.urandom(chance.choice((0, 10, 5000, 200_000))) for one in range(FILES)}
    (replicator.home / "export/out/d").mkdir(parents=True)
    for name, body in contents.items():
        (replicator.home / "export/out/d" / name).write_bytes(body)
    downs = {f"down{one}": os.urandom(1000) for one in range(30)}
    for name, body in downs.items():
        await witness.put(f"incoming{number}/{name}", body)

    rows: dict[str, str] = {}
    before: Counter[str] = Counter()
    for least in (chance.randrange(FILES // 2), chance.randrange(FILES // 2, FILES)):
        process = await replicator.start("run", REPLICATOR_HTTP_LISTEN="")

        async def is_underway(least=least):
            return len(await witness.keys(sent)) > least

        await until(is_underway)
        await asyncio.sleep(chance.uniform(0, 0.05))  # the moment of death is the experiment, not a wait for luck
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        rows = await asyncio.to_thread(confirmed, replicator.home)
        before = await asyncio.to_thread(versions, witness, sent)

    assert rows
    async with replicator.running() as service:
        await until(service.is_in_step)
    after = await asyncio.to_thread(versions, witness, sent)

    assert {key.removeprefix(f"{sent}d/"): await witness.get(key) for key in await witness.keys(sent)} == contents
    found = {path.name: path.read_bytes() for path in (replicator.home / "export/in").iterdir()}
    assert found == downs
    assert [name for name in rows if after[sent + name] > before[sent + name]] == []
    assert list((replicator.home / "export/.replicator/tmp").iterdir()) == []
    verdict = await replicator("verify")
    assert verdict.code == 0, verdict.out


def versions(witness, prefix):
    pages = witness.client.get_paginator("list_object_versions").paginate(Bucket=witness.bucket, Prefix=prefix)
    return Counter(entry["Key"] for page in pages for entry in page.get("Versions", ()))
