"""What is told of a workload: the sum over the devices that run it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.controlplane.operator.fleet import Fleet

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, tzinfo=UTC)
KEY = ("fleet", "stats")


def device(state: str = "", *, pending: int = 0, upload: str = "", labels=None) -> dict:
    status: dict[str, Any] = {"replication": {"pendingBytes": pending}}
    if state:
        status["conditions"] = [
            {"type": one, "status": "True" if one == state else "False"} for one in ("Synced", "Lagging", "Blocked")
        ]
    if upload:
        status["workloads"] = [{"name": "stats", "lastDataUpload": upload}]
    return {"metadata": {"labels": {"dc": "home"} if labels is None else labels}, "status": status}


def workload(status: Any = None, **spec: Any) -> dict:
    spec = spec or {"deviceSelector": {"matchLabels": {"dc": "home"}}}
    metadata = {"name": "stats", "namespace": "fleet", "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"type": "pod", **spec}, "status": status or {}}


def fleet(*devices: dict, of: dict | None = None) -> Fleet:
    made = Fleet()
    for number, one in enumerate(devices):
        made.see_device(("fleet", f"camera-{number}"), one)
    made.see_workload(KEY, of or workload())
    return made


def told(of: Fleet) -> dict:
    """The status that is to be written of the one workload."""
    ((key, _, change),) = of.changes(NOW)
    assert key == KEY
    assert change["metadata"] == {"resourceVersion": "7"}
    return change["status"]


def conditions(of: Fleet) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["message"]) for one in told(of)["conditions"]}


def test_workload_is_synced_when_all_its_devices_are():
    """Every device has told that nothing is pending."""
    assert conditions(fleet(device("Synced"), device("Synced"))) == {
        "Synced": ("True", "2 of 2 devices"),
        "Lagging": ("False", "0 of 2 devices"),
        "Blocked": ("False", "0 of 2 devices"),
    }


def test_workload_tells_how_many_devices_lag_and_which_are_blocked():
    """Numbers of all, names of the first that need somebody."""
    found = conditions(fleet(device("Synced"), device("Lagging"), *(device("Blocked") for _ in range(4)), device()))

    assert found == {
        "Synced": ("False", "1 of 7 devices; 1 told nothing yet"),
        "Lagging": ("True", "1 of 7 devices"),
        "Blocked": ("True", "4 of 7 devices: camera-2, camera-3, camera-4 and more"),
    }


def test_workload_without_devices_is_not_synced():
    """Nothing is true of no device."""
    assert conditions(fleet())["Synced"] == ("False", "0 of 0 devices")


def test_workload_tells_pending_bytes_and_its_last_upload():
    """Bytes of all its devices; the latest upload, whatever zone it was told in."""
    found = fleet(
        device("Lagging", pending=5, upload="2026-11-23T10:00:00Z"),
        device("Lagging", pending=7, upload="2026-11-23T12:30:00+02:00"),
        device("Lagging", pending=100, labels={"dc": "away"}),
    )

    assert told(found)["replication"] == {
        "devices": 2,
        "synced": 0,
        "lagging": 2,
        "blocked": 0,
        "pendingBytes": 12,
        "lastUpload": "2026-11-23T10:30:00Z",
    }


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({"device": "camera-1"}, 1),
        ({"device": "nowhere", "deviceSelector": {}}, 0),
        ({"deviceSelector": {}}, 2),
        ({"deviceSelector": {"matchLabels": {"workload/stats": "true"}}}, 0),
        ({"data": {}}, 0),
    ],
)
def test_devices_of_a_workload_are_those_that_it_selects(spec, count):
    """By name, else by selector, else none; labels that are bookkeeping of others prove nothing."""
    marked = device("Synced", labels={"workload/stats": "true"})

    assert told(fleet(marked, device("Synced"), of=workload(**spec)))["replication"]["devices"] == count


def test_devices_of_another_namespace_do_not_count():
    """A selector ends at its namespace."""
    found = fleet(device("Synced"))
    found.see_device(("elsewhere", "camera-9"), device("Blocked"))

    assert conditions(found)["Synced"] == ("True", "1 of 1 devices")


def test_same_sum_is_told_once():
    """Heartbeats that change nothing cost no request; one that does costs one."""
    found = fleet(device("Synced"))
    ((key, total, _),) = found.changes(NOW)
    found.was_told(key, total)
    found.see_device(("fleet", "camera-0"), device("Synced"))

    assert list(found.changes(NOW)) == []

    found.see_device(("fleet", "camera-0"), device("Synced", pending=1))
    assert len(list(found.changes(NOW))) == 1


def test_refused_sum_is_told_again():
    """What the API server did not take is still to be told."""
    found = fleet(device("Synced"))

    assert list(found.changes(NOW)) == list(found.changes(NOW)) != []


def test_restart_tells_nothing_that_is_told():
    """An operator that starts finds in the status what it would write, and is silent."""
    written = told(fleet(device("Synced")))

    assert list(fleet(device("Synced"), of=workload(written)).changes(LATER)) == []


def test_condition_moves_its_time_only_with_its_status():
    """Another count is no transition; conditions of others stay."""
    written = told(fleet(device("Synced"), device("Lagging")))
    other = {"type": "Deployed", "status": "True"}
    before = workload(written | {"conditions": [other, *written["conditions"]]})

    found = fleet(device("Synced"), device("Lagging"), device("Lagging"), of=before)

    ((_, _, change),) = found.changes(LATER)
    assert change["status"]["conditions"][0] == other
    assert {one.get("lastTransitionTime") for one in change["status"]["conditions"][1:]} == {"2026-11-23T12:00:00Z"}


def test_what_is_gone_counts_no_more():
    """A device that is gone leaves the sum, a workload that is gone is told nothing."""
    found = fleet(device("Synced"), device("Blocked"))
    found.see_device(("fleet", "camera-1"), None)
    found.see_device(("fleet", "never-seen"), None)

    assert conditions(found)["Blocked"] == ("False", "0 of 1 devices")

    found.see_workload(KEY, None)
    assert list(found.changes(NOW)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.fault("E7")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(labels=JSON, conditions_=JSON, replication=JSON, workloads=JSON, spec=JSON, status=JSON)
def test_no_content_of_an_object_is_an_exception(labels, conditions_, replication, workloads, spec, status):
    """Whatever strangers wrote into devices and workloads, the others are told as before."""
    found = fleet(device("Synced"))
    strange = {"conditions": conditions_, "replication": replication, "workloads": workloads}
    found.see_device(("fleet", "strange"), {"metadata": {"labels": labels}, "status": strange})
    found.see_workload(("fleet", "odd"), {"metadata": {"name": "odd"}, "spec": spec, "status": status})

    assert KEY in [key for key, _, _ in found.changes(NOW)]
