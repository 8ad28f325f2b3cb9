"""A mirror beside an API server that ends watches, forgets, repeats, goes away and comes back empty."""

import math
from dataclasses import replace

import pytest

from replicator.cluster.kinds import CONFIG_MAP, EDGE_DEVICE
from replicator.cluster.mirror import Rhythm, pause_s


def config_map(name, value="1", **meta):
    meta = {"name": name, "namespace": "ns", **meta}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": value}}


def values(mirror):
    return {name: one["data"]["k"] for (_, name), one in mirror.objects.items()}


@pytest.fixture
def watched(server, mirror, quick, until):
    """A mirror of ConfigMaps that is synced and watches."""

    async def start(*names, rhythm=quick, **words):
        for name in names:
            server.put(config_map(name))
        one = mirror(CONFIG_MAP, rhythm=rhythm, **words)
        await one.synced()
        await until(lambda: server.watching("configmaps"))
        return one

    return start


async def test_it_has_what_is_there_and_follows(server, watched, until):
    """What is there at the start is complete when it is synced; every change follows, told as it was and as it is."""
    told = []

    one = await watched("a", on_change=lambda key, old, new: told.append((key[1], bool(old), bool(new))))
    assert one.is_synced
    assert values(one) == {"a": "1"}

    server.put(config_map("b"))
    server.edit("configmaps", "ns", "a", {"data": {"k": "2"}})
    server.delete("configmaps", "ns", "b")
    await until(lambda: len(told) == 4)
    assert told == [("a", False, True), ("b", False, True), ("a", True, True), ("b", True, False)]
    assert values(one) == {"a": "2"}


async def test_it_costs_one_list_and_one_connection(server, watched, until):
    """While nothing breaks there is one list, one watch, and nothing is asked for again."""
    await watched("a")

    for number in range(20):
        server.edit("configmaps", "ns", "a", {"data": {"k": str(number)}})
    await until(lambda: server.count("watch") == 1)

    assert (server.count("list"), server.count("get"), server.watching()) == (1, 0, 1)


async def test_it_is_about_one_name_or_some_labels(server, mirror, quick, until):
    """A mirror of one name, or of a label, has nothing else in memory."""
    server.put(config_map("a", labels={"tier": "one"}))
    server.put(config_map("b", labels={"tier": "two"}))
    named, labelled = (
        mirror(CONFIG_MAP, "ns", name="b", rhythm=quick),
        mirror(CONFIG_MAP, labels="tier=one", rhythm=quick),
    )
    await named.synced()
    await labelled.synced()

    server.edit("configmaps", "ns", "a", {"metadata": {"labels": {"tier": "two"}}})
    server.edit("configmaps", "ns", "b", {"metadata": {"labels": {"tier": "one"}}})

    await until(lambda: list(values(labelled)) == ["b"])
    assert list(values(named)) == ["b"]


@pytest.mark.fault("E1")
async def test_a_watch_that_ends_goes_on_where_it_was(server, watched, until):
    """After the server closed the watch, what happened meanwhile is told by the next one, without a list."""
    one = await watched("a")

    for number in range(5):
        server.close_watches()
        server.edit("configmaps", "ns", "a", {"data": {"k": str(number)}})
        await until(lambda number=number: values(one) == {"a": str(number)})

    assert server.count("list") == 1


@pytest.mark.fault("E1")
async def test_a_forgotten_version_is_listed_anew(server, watched, until):
    """410 in answer to a watch: a new list, applied by difference."""
    one = await watched("a", "b")

    server.answer(410, plural="configmaps", verb="watch", reason="Expired")
    server.close_watches()
    server.compact()
    server.delete("configmaps", "ns", "b")
    server.put(config_map("c"))

    await until(lambda: values(one) == {"a": "1", "c": "1"})
    assert server.count("list") >= 2


@pytest.mark.fault("E1")
async def test_a_version_forgotten_within_a_watch_is_listed_anew(server, watched, until):
    """410 as an event, which is how servers tell it: the same."""
    one = await watched("a")

    server.emit(
        "configmaps",
        "ERROR",
        {"kind": "Status", "metadata": {}, "code": 410, "reason": "Expired", "message": "too old"},
    )
    server.edit("configmaps", "ns", "a", {"data": {"k": "2"}})

    await until(lambda: server.count("list") == 2 and values(one) == {"a": "2"})
    assert one.problem == ""


@pytest.mark.fault("E1")
async def test_bookmarks_alone_carry_the_watch(server, watched, until):
    """With bookmarks only, the next watch begins from the last of them, although history before it is gone."""
    one = await watched("a")

    for _ in range(3):
        server.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}})
        server.delete("secrets", "ns", "s")
    server.compact()
    server.bookmark()
    await until(lambda: one._belief.version == str(server.store.version))
    server.close_watches()

    await until(lambda: server.count("watch", "configmaps") == 2)
    assert server.count("list", "configmaps") == 1


@pytest.mark.fault("E1")
async def test_repeated_and_late_events_change_nothing(server, watched, until):
    """Events that come twice or out of order leave the newest version, and are told once."""
    told = []
    one = await watched("a", on_change=lambda key, old, new: told.append(new["data"]["k"]))
    first = server.get("configmaps", "ns", "a")
    second = server.edit("configmaps", "ns", "a", {"data": {"k": "2"}})

    for late in (first, second, first):
        server.emit("configmaps", "MODIFIED", late)
    server.edit("configmaps", "ns", "a", {"data": {"k": "3"}})

    await until(lambda: values(one) == {"a": "3"})
    assert told == ["1", "2", "3"]


@pytest.mark.fault("E1")
@pytest.mark.parametrize(
    "nonsense",
    ["not JSON", "[]", '{"type":"ADDED"}', '{"type":"ADDED","object":3}', '{"type":"ADDED","object":{"kind":"x"}}'],
)
async def test_nonsense_in_a_watch_ends_it_and_no_more(server, watched, until, nonsense):
    """What is no event is a broken watch: told, listed anew, and the copy stays."""
    one = await watched("a")

    server._do(lambda: server._api.tell("configmaps", nonsense.encode() + b"\n"))
    await until(lambda: server.count("list") == 2)
    server.put(config_map("b"))

    await until(lambda: values(one) == {"a": "1", "b": "1"})


@pytest.mark.fault("E2")
async def test_it_outlives_an_api_server_that_is_away(server, watched, until, quick):
    """While nobody answers all stays as it was, its age grows and `problem` says why; then it is current again."""
    now = [0.0]
    one = await watched("a", rhythm=replace(quick, clock=lambda: now[0]))

    server.stop()
    await until(lambda: one.problem)
    now[0] += 3600
    assert values(one) == {"a": "1"}
    assert one.age_s() == 3600

    server.edit("configmaps", "ns", "a", {"data": {"k": "2"}})
    server.start()
    await until(lambda: values(one) == {"a": "2"})
    assert (one.problem, one.age_s()) == ("", 0)


@pytest.mark.fault("E2")
async def test_it_begins_when_the_api_server_comes(server, mirror, quick, until):
    """Started while nobody answers it waits, not synced, and is complete soon after the server is there."""
    server.put(config_map("a"))
    server.stop()
    one = mirror(CONFIG_MAP, rhythm=quick)
    await until(lambda: one.problem)
    assert not one.is_synced

    server.start()

    await one.synced()
    assert values(one) == {"a": "1"}


@pytest.mark.fault("E2")
async def test_it_outlives_a_server_that_comes_and_goes(server, watched, until):
    """However often the server vanishes, at the end everything is as it says."""
    one = await watched("a")

    for number in range(5):
        server.stop()
        server.edit("configmaps", "ns", "a", {"data": {"k": f"v{number}"}})
        server.start()
    server.put(config_map("b"))

    await until(lambda: values(one) == {"a": "v4", "b": "1"})


@pytest.mark.fault("E2")
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_a_server_that_refuses_is_asked_again(server, mirror, quick, until, status):
    """A refusal is told in `problem` and asked again; nothing ends."""
    server.put(config_map("a"))
    server.answer(status, plural="configmaps", verb="list", times=3, message="not now")
    told = []

    def pause(failures):
        told.append(one.problem)
        return 0.01

    one = mirror(CONFIG_MAP, rhythm=replace(quick, pause_s=pause))

    await one.synced()

    assert values(one) == {"a": "1"}
    assert all("not now" in problem for problem in told[:3])


@pytest.mark.fault("E3")
async def test_a_list_that_is_empty_after_an_outage_removes_nothing_at_once(server, watched, until, quick):
    """A server that comes back without its memory is asked three times before anything is removed for it."""
    told = []
    one = await watched("a", "b", rhythm=replace(quick, doubt_s=0.02), on_change=lambda *change: told.append(change))
    told.clear()
    server.empty_lists("configmaps", times=2)

    server.stop()
    server.start()
    await until(lambda: server.count("list") >= 4)

    assert (told, values(one)) == ([], {"a": "1", "b": "1"})


@pytest.mark.fault("E3")
async def test_a_doubt_takes_its_time(server, watched, until):
    """A server without memory that also breaks every watch is not believed the sooner."""
    one = await watched("a")
    server.empty_lists("configmaps", times=math.inf)
    server.answer(410, plural="configmaps", verb="watch", times=math.inf)

    server.close_watches()
    await until(lambda: server.count("watch") > 10)

    assert (server.count("list"), values(one)) == (2, {"a": "1"})


@pytest.mark.fault("E3")
async def test_a_list_that_stays_empty_is_believed(server, watched, until, quick):
    """What is missing three times in a row is gone."""
    one = await watched("a", rhythm=replace(quick, doubt_s=0.02))
    server.empty_lists("configmaps", times=math.inf)
    server.answer(200, plural="configmaps", verb="watch", times=math.inf, body=b"")

    server.stop()
    server.start()

    await until(lambda: not one.objects)
    assert server.count("list") == 4


@pytest.mark.fault("E4")
async def test_an_object_made_again_is_told_as_another(server, watched, until):
    """Deleted and made again while nobody listened: gone, then new, under the same name."""
    told = []
    await watched("a", on_change=lambda key, old, new: told.append((bool(old), bool(new))))
    told.clear()

    server.stop()
    server.delete("configmaps", "ns", "a")
    server.put(config_map("a"))
    server.start()

    await until(lambda: told)
    assert told == [(True, False), (False, True)]


async def test_it_lists_again_now_and_then(server, watched, until, quick):
    """A list proves the watch: what a watch withheld is there after the next one."""
    one = await watched("a", rhythm=replace(quick, resync_s=0.05))

    await until(lambda: server.count("list") > 3)

    assert one.problem == ""


async def test_a_listener_that_fails_ends_nothing(server, watched, until):
    """An exception of `on_change` costs that one call."""
    one = await watched("a", on_change=lambda key, old, new: 1 / 0)

    server.edit("configmaps", "ns", "a", {"data": {"k": "2"}})

    await until(lambda: values(one) == {"a": "2"})


async def test_pauses_grow_and_are_spread():
    """The pause after a failure is anything up to a bound that doubles, and never above half a minute."""
    assert all(0 <= pause_s(1) <= 1 for _ in range(100))
    assert max(pause_s(4) for _ in range(500)) > 4
    assert all(pause_s(50) <= 30 for _ in range(100))


async def test_failures_in_a_row_are_counted_until_a_watch_lives(server, mirror, until, quick):
    """Each failure waits longer than the one before; a list that comes by time begins anew."""
    waited = []
    server.answer(500, plural="edgedevices", verb="list", times=3)

    def pause(failures):
        waited.append(failures)
        return 0.01

    one = mirror(EDGE_DEVICE, rhythm=replace(quick, resync_s=0.05, pause_s=pause))
    await one.synced()
    await until(lambda: server.count("list") > 6)
    server.close_watches()

    await until(lambda: len(waited) > 3)
    assert waited[:3] == [1, 2, 3]
    assert waited[3] == 1


def test_the_usual_rhythm():
    """A list every ten minutes, and doubts are settled within a minute."""
    assert (Rhythm().resync_s, Rhythm().doubt_s) == (600, 20)
