"""Requests to an API server: every verb, against ours and, where one is given, a real one."""

import asyncio
import contextlib

import pytest

from replicator.cluster.kinds import CONFIG_MAP, EDGE_DEVICE, LEASE, SECRET, Kind, uid_of, version_of
from replicator.errors import ClusterError, Conflict, Gone, Invalid


async def test_what_is_created_can_be_read(place):
    """A created object is there with a uid and a version; of another name there is none."""
    made = await place.cluster.create(CONFIG_MAP, place.config_map("a", data={"k": "v"}))

    found = await place.cluster.get(CONFIG_MAP, place.namespace, "a")

    assert found == made
    assert uid_of(made)
    assert version_of(made)
    assert await place.cluster.get(CONFIG_MAP, place.namespace, "b") is None


async def test_a_name_is_taken_once(place):
    """A second object of one name is a conflict that says AlreadyExists."""
    await place.cluster.create(CONFIG_MAP, place.config_map("a"))

    with pytest.raises(Conflict) as caught:
        await place.cluster.create(CONFIG_MAP, place.config_map("a"))

    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


async def test_a_stale_version_replaces_nothing(place):
    """Who replaces an object that moved meanwhile is refused, and the newer one stays."""
    first = await place.cluster.create(CONFIG_MAP, place.config_map("a", data={"k": "1"}))
    await place.cluster.replace(CONFIG_MAP, first | {"data": {"k": "2"}})

    with pytest.raises(Conflict):
        await place.cluster.replace(CONFIG_MAP, first | {"data": {"k": "3"}})

    assert (await place.cluster.get(CONFIG_MAP, place.namespace, "a"))["data"] == {"k": "2"}


async def test_a_merge_patch_adds_changes_and_removes(place):
    """What the patch names changes, None removes, all else stays."""
    await place.cluster.create(CONFIG_MAP, place.config_map("a", data={"keep": "1", "change": "1", "drop": "1"}))

    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"change": "2", "drop": None, "add": "3"}})

    found = await place.cluster.get(CONFIG_MAP, place.namespace, "a")
    assert found["data"] == {"keep": "1", "change": "2", "add": "3"}


async def test_a_patch_may_insist_on_a_version(place):
    """A merge patch that carries a resourceVersion is refused when the object moved."""
    first = await place.cluster.create(CONFIG_MAP, place.config_map("a"))
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"k": "1"}})

    change = {"metadata": {"resourceVersion": version_of(first)}, "data": {"k": "2"}}
    with pytest.raises(Conflict):
        await place.cluster.patch(CONFIG_MAP, place.namespace, "a", change)


async def test_a_write_that_changes_nothing_makes_no_version(place):
    """The same patch twice leaves the version of the first."""
    await place.cluster.create(CONFIG_MAP, place.config_map("a"))
    once = await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"k": "1"}})

    twice = await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"k": "1"}})

    assert version_of(once) == version_of(twice)


async def test_apply_creates_then_owns_what_it_says(place):
    """What an apply no longer says goes, what others wrote stays."""
    await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "1", "y": "1"}), manager="one")
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"z": "others"}})

    await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "2"}), manager="one")

    assert (await place.cluster.get(CONFIG_MAP, place.namespace, "a"))["data"] == {"x": "2", "z": "others"}


async def test_apply_takes_no_field_of_another(place):
    """Another manager's field is a conflict unless forced; the same value is shared by both."""
    await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "1"}), manager="one")
    await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "1"}), manager="two")

    with pytest.raises(Conflict):
        await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "2"}), manager="two")
    forced = await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "2"}), manager="two", force=True)

    assert forced["data"] == {"x": "2"}


async def test_apply_takes_no_field_that_somebody_wrote_by_hand(place):
    """A value that was created by a plain write belongs to that writer."""
    await place.cluster.create(CONFIG_MAP, place.config_map("a", data={"x": "1"}))

    with pytest.raises(Conflict):
        await place.cluster.apply(CONFIG_MAP, place.config_map("a", data={"x": "2"}), manager="one")


async def test_apply_adds_to_lists_of_finalizers_and_owners(place):
    """Finalizers and owners are parts of their own: an apply adds its own beside those of others."""
    owner = await place.cluster.create(CONFIG_MAP, place.config_map("owner"))
    other = await place.cluster.create(CONFIG_MAP, place.config_map("other"))

    def owned_by(one):
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": one["metadata"]["name"], "uid": uid_of(one)}

    meta = {"finalizers": ["example.org/first"], "ownerReferences": [owned_by(owner)]}
    await place.cluster.create(CONFIG_MAP, place.config_map("a", metadata=meta))
    meta = {"finalizers": ["example.org/second"], "ownerReferences": [owned_by(other)]}

    made = await place.cluster.apply(CONFIG_MAP, place.config_map("a", metadata=meta), manager="one")

    assert sorted(made["metadata"]["finalizers"]) == ["example.org/first", "example.org/second"]
    assert {one["uid"] for one in made["metadata"]["ownerReferences"]} == {uid_of(owner), uid_of(other)}
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"metadata": {"finalizers": None}})


async def test_a_finalizer_holds_what_is_deleted(place, until):
    """A deleted object with a finalizer stays, marked, and goes with its last finalizer."""
    await place.cluster.create(CONFIG_MAP, place.config_map("a", metadata={"finalizers": ["example.org/one"]}))
    await place.cluster.delete(CONFIG_MAP, place.namespace, "a")

    marked = await place.cluster.get(CONFIG_MAP, place.namespace, "a")
    assert marked["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.org/one", "example.org/two"]}}
    with pytest.raises(Invalid):
        await place.cluster.patch(CONFIG_MAP, place.namespace, "a", more)

    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"metadata": {"finalizers": None}})
    assert await place.cluster.get(CONFIG_MAP, place.namespace, "a") is None


async def test_what_belongs_to_a_removed_object_goes_too(place):
    """The garbage collector removes what has no owner left."""
    owner = await place.cluster.create(CONFIG_MAP, place.config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid_of(owner)}
    await place.cluster.create(CONFIG_MAP, place.config_map("owned", metadata={"ownerReferences": [reference]}))

    await place.cluster.delete(CONFIG_MAP, place.namespace, "owner")

    async with asyncio.timeout(30):
        while await place.cluster.get(CONFIG_MAP, place.namespace, "owned"):
            await asyncio.sleep(0.05)


async def test_deleting_insists_on_the_uid(place):
    """Missing is fine; an object that was made again under the name is not deleted for the old one."""
    await place.cluster.delete(CONFIG_MAP, place.namespace, "a")
    first = await place.cluster.create(CONFIG_MAP, place.config_map("a"))
    await place.cluster.delete(CONFIG_MAP, place.namespace, "a", uid=uid_of(first))
    again = await place.cluster.create(CONFIG_MAP, place.config_map("a"))

    with pytest.raises(Conflict):
        await place.cluster.delete(CONFIG_MAP, place.namespace, "a", uid=uid_of(first))

    assert uid_of(await place.cluster.get(CONFIG_MAP, place.namespace, "a")) == uid_of(again)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=one", ["a"]),
        ("tier!=one", ["b", "c"]),
        ("tier in (one, two)", ["a", "b"]),
        ("tier notin (one),tier", ["b"]),
        ("!tier", ["c"]),
    ],
)
async def test_lists_are_chosen_by_labels(place, selector, names):
    """Every form of a label selector chooses what it says."""
    for name, labels in (("a", {"tier": "one"}), ("b", {"tier": "two"}), ("c", {"other": "x"})):
        await place.cluster.create(CONFIG_MAP, place.config_map(name, metadata={"labels": labels}))

    listing = await place.cluster.list(CONFIG_MAP, place.namespace, labels=selector)

    ours = [one["metadata"]["name"] for one in listing.items if not one["metadata"]["name"].startswith("kube-")]
    assert ours == names


async def test_lists_and_watches_are_chosen_by_name(place):
    """One name alone is listed and watched, with its kind, which lists of built-in kinds leave out."""
    for name in ("a", "b"):
        await place.cluster.create(CONFIG_MAP, place.config_map(name))

    listing = await place.cluster.list(CONFIG_MAP, place.namespace, name="b")
    assert [(one["kind"], one["metadata"]["name"]) for one in listing.items] == [("ConfigMap", "b")]

    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"k": "1"}})
    await place.cluster.patch(CONFIG_MAP, place.namespace, "b", {"data": {"k": "2"}})
    events = place.cluster.watch(CONFIG_MAP, place.namespace, version=listing.version, name="b")
    async with contextlib.aclosing(events):
        event = await asyncio.wait_for(anext(events), 10)
    assert (event.type, event.object["metadata"]["name"]) == ("MODIFIED", "b")


async def test_a_list_comes_in_pages(place, monkeypatch):
    """Every object of a list that takes several pages is there once, at one version."""
    monkeypatch.setattr("replicator.cluster.client.PAGE_LIMIT", 3)
    for number in range(10):
        await place.cluster.create(CONFIG_MAP, place.config_map(f"n{number}"))

    listing = await place.cluster.list(CONFIG_MAP, place.namespace)

    ours = [one["metadata"]["name"] for one in listing.items if one["metadata"]["name"].startswith("n")]
    assert ours == [f"n{number}" for number in range(10)]


async def test_a_watch_tells_what_happened_since(place):
    """From a list's version on, every change is told in order; a label that no longer fits is told as a removal."""
    listing = await place.cluster.list(CONFIG_MAP, place.namespace)
    await place.cluster.create(CONFIG_MAP, place.config_map("a", metadata={"labels": {"tier": "one"}}))
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"data": {"k": "1"}})
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"metadata": {"labels": {"tier": "two"}}})
    await place.cluster.patch(CONFIG_MAP, place.namespace, "a", {"metadata": {"labels": {"tier": "one"}}})
    await place.cluster.delete(CONFIG_MAP, place.namespace, "a")

    told = []
    events = place.cluster.watch(CONFIG_MAP, place.namespace, version=listing.version, labels="tier=one")
    async with asyncio.timeout(10), contextlib.aclosing(events):
        async for event in events:
            told.append(event.type)
            if len(told) == 5:
                break

    assert told == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]


async def test_a_kind_that_the_server_does_not_know_is_told(place):
    """A list of an unknown kind is an error with the status, and not an empty list."""
    with pytest.raises(ClusterError) as caught:
        await place.cluster.list(Kind("example.org", "v1", "unicorns", "Unicorn"), place.namespace)

    assert caught.value.status == 404


async def test_a_lease_insists_on_its_version(place):
    """A Lease cannot be replaced without saying which version was seen."""
    meta = {"name": "a", "namespace": place.namespace}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {}}
    await place.cluster.create(LEASE, lease)

    with pytest.raises((Conflict, Invalid)):
        await place.cluster.replace(LEASE, lease)


async def test_a_secret_is_carried_in_one_layer_of_base64(place):
    """`stringData` becomes `data` in base64."""
    meta = {"name": "s", "namespace": place.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"k": "word"}}

    made = await place.cluster.create(SECRET, secret)

    assert made["data"] == {"k": "d29yZA=="}
    assert "stringData" not in made


# What only ours can be made to do


async def test_a_page_that_came_too_late_is_gone(server, cluster, monkeypatch):
    """A list whose pages outlive the server's memory raises Gone; nothing incomplete is returned."""
    monkeypatch.setattr("replicator.cluster.client.PAGE_LIMIT", 1)
    for name in ("a", "b"):
        server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}})
    server.answer(410, plural="configmaps", verb="list", query="continue")

    with pytest.raises(Gone):
        await cluster.list(CONFIG_MAP)


async def test_the_status_is_a_part_of_its_own(server, cluster):
    """A patch of the object leaves the status alone, one of the status all else; only the first is a generation."""
    server.put(
        {"apiVersion": EDGE_DEVICE.api_version, "kind": "EdgeDevice", "metadata": {"name": "d", "namespace": "ns"}}
    )

    await cluster.patch(
        EDGE_DEVICE, "ns", "d", {"spec": {"heartbeat": {"periodSeconds": 9}}, "status": {"phase": "no"}}
    )
    made = await cluster.patch(
        EDGE_DEVICE, "ns", "d", {"spec": {"heartbeat": None}, "status": {"phase": "up"}}, subresource="status"
    )

    assert made["spec"] == {"heartbeat": {"periodSeconds": 9}}
    assert made["status"] == {"phase": "up"}
    assert made["metadata"]["generation"] == 2


async def test_apply_needs_no_more_than_the_name(server, cluster):
    """Kind and version are filled in, the manager and force go along as said."""
    await cluster.apply(EDGE_DEVICE, {"metadata": {"name": "d", "namespace": "ns"}}, manager="us", force=True)

    request = server.requests[-1]
    assert (request.verb, request.query) == ("apply", {"fieldManager": "us", "force": "true"})
    assert server.get("edgedevices", "ns", "d")["kind"] == "EdgeDevice"
