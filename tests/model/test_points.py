"""Every point at which the process may end or something may fail, in every route that passes it.

What a route passes is found out by running it; then it is run once for each time that it passes each point. So a point
that no route passes any more is noticed, and a new one in a route is tried by itself.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.model.faults import CRASHES, FAULTS, MEDDLING
from tests.model.process import COMING, IN, OUT, PART, RANGED, SMALL
from tests.model.world import content

_HITS: "Counter[str]" = Counter()
"""Over all routes; the last test looks at it."""

_EVERY_PASS = 30

_ELSEWHERE = {"abort_upload:after", "head:after", "drop_upload:before", "drop_upload:after"}
"""Points that no undisturbed route passes: the long stories have to meet them."""


def small_file(scene):
    scene.world.write(OUT, "a", content(0, 17))
    scene.world.write(OUT, "d/b", content(1, SMALL))


def large_file(scene):
    scene.world.write(OUT, "a", content(0, 3 * PART + 5))


def file_that_is_changed(scene):
    scene.world.write(OUT, "a", content(0, 3 * PART))
    scene.world.write(OUT, "d/b", content(0, 17))
    scene.round()
    scene.world.write(OUT, "a", content(1, 3 * PART))
    scene.world.write(OUT, "d/b", content(1, 17))


def file_that_goes(scene):
    scene.world.write(OUT, "a", content(0, 17))
    scene.world.write(OUT, "b", content(0, 18))
    scene.round()
    scene.world.delete(OUT, "a")


def small_object(scene):
    scene.world.put(COMING + "a", content(0, 17))
    scene.world.put(COMING + "d/b", content(1, SMALL))


def large_object(scene):
    scene.world.put(COMING + "a", content(0, RANGED + 5))
    scene.world.put(COMING + "b", content(0, PART))


def object_that_is_changed(scene):
    small_object(scene)
    scene.round()
    scene.world.put(COMING + "a", content(2, 18))


def edit_and_new_object(scene):
    small_object(scene)
    scene.round()
    scene.world.write(IN, "a", content(1, 30))
    scene.world.put(COMING + "a", content(2, 18))


def object_that_goes(scene):
    small_object(scene)
    scene.round()
    scene.world.remove(COMING + "a")


ROUTES: dict[str, tuple[Callable, dict]] = {
    "small file": (small_file, {}),
    "stream": (large_file, {}),
    "parts": (large_file, {"streams": False}),
    "changed file, parts": (file_that_is_changed, {"streams": False}),
    "changed file, opaque": (file_that_is_changed, {"opaque": "look"}),
    "file that goes": (file_that_goes, {}),
    "freed file": (small_file, {"frees": True}),
    "freed large file": (large_file, {"frees": True, "streams": False}),
    "small object": (small_object, {}),
    "large object": (large_object, {}),
    "opaque object": (large_object, {"opaque": "other"}),
    "changed object": (object_that_is_changed, {}),
    "edit": (edit_and_new_object, {}),
    "object that goes": (object_that_goes, {}),
}


def tell(scene, route, kind, point, skip):
    """The route, in which this strikes at this point after so many passes; whether it did."""
    before, name = sum(_HITS.values()), ROUTES[route][0]
    scene.hits = scene.injector.hits = _HITS
    name(scene)
    scene.injector.arm(kind, (point,), skip=skip)
    for _ in range(3):
        if scene.process.engine is None:
            assert scene.process.start()
        scene.round()
    has_struck = sum(_HITS.values()) > before
    scene.calm()
    return has_struck


def try_all(scene_of, route, kind, points, *, passes):
    for point in points:
        for skip in range(passes):
            scene = scene_of(**ROUTES[route][1])
            try:
                if not tell(scene, route, kind, point, skip):
                    break
            except AssertionError as error:
                error.add_note(f"{route}: {kind} at {point} after {skip} passes")
                raise
            finally:
                scene.close()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.fault("C3")
@pytest.mark.parametrize("route", ROUTES)
def test_process_may_end_at_every_point_of_a_route(scene_of, route, is_long):
    """The restart converges, whatever was done by then: nothing torn, nothing lost, no rubbish, nothing twice."""
    try_all(scene_of, route, "crash", CRASHES, passes=_EVERY_PASS if is_long else 2)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.fault("B2", "B3", "B5", "B8", "B9", "B10", "B11", "B13", "B14", "A9", "A10", "A12", "A13", "A14")
@pytest.mark.parametrize("route", ROUTES)
def test_every_fault_may_strike_at_every_point_of_a_route(scene_of, route, is_long):
    """Each is counted, harms nothing, and is over once its cause is."""
    for kind, everywhere in FAULTS.items():
        # What ends a request ends it like a refusal does: in a short run that one is tried everywhere.
        points = everywhere if is_long or kind == "refused" else everywhere[:6]
        if kind != "body-flipped" or not ROUTES[route][1].get("opaque"):
            # A file takes several syncs, and what follows from a failed one depends on which it was.
            try_all(scene_of, route, kind, points, passes=_EVERY_PASS if is_long or kind == "sync-failed" else 1)


@pytest.mark.slow
@pytest.mark.fault("A1", "A2", "B12")
@pytest.mark.parametrize("route", ["stream", "parts", "large object", "opaque object", "changed object"])
def test_somebody_may_come_in_between(scene_of, route):
    """A file or an object that is another one at just that moment is never published torn, and arrives in the end."""
    for point in MEDDLING:
        scene = scene_of(**ROUTES[route][1])

        def meddle(key, world=scene.world):
            name = key.partition("/")[2]
            if key.startswith(COMING):
                world.put(key, content(2, RANGED + 7))
            else:
                world.write(OUT, name, content(2, 3 * PART + 5))

        ROUTES[route][0](scene)
        scene.injector.arm("meddle", (point,), deed=meddle)
        scene.round()
        scene.calm()
        scene.close()


@pytest.mark.slow
def test_every_point_and_every_fault_was_met():
    """A point that nothing passes any more proves nothing."""
    if not _HITS:
        pytest.skip("the routes were not run")
    print(*(f"{count:6} {what}" for what, count in sorted(_HITS.items())), sep="\n")

    assert {point for point in CRASHES if not _HITS[f"crash {point}"]} <= _ELSEWHERE
    assert [kind for kind in FAULTS if not _HITS[f"fault {kind}"]] == []
