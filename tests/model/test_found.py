"""What the model found, each as a story of its own."""

import pytest

from tests.model.process import COMING, ECHO, IN, OUT, PART, RANGED
from tests.model.world import content


def test_object_beneath_a_file_is_not_fetched_again_and_again(scene_of):
    """Keys `a` and `a/b` cannot both be files: the one that cannot costs no body each time that it is tried."""
    scene = scene_of()
    scene.world.put(COMING + "a", content(0, 17))
    scene.round()
    scene.world.put(COMING + "a/b", content(1, RANGED + 5))
    gets = scene.process.store.gets
    for _ in range(5):
        scene.round()

    assert scene.process.store.gets == gets
    assert "a/b" in str(scene.process.snapshot())
    scene.world.delete(IN, "a")
    scene.world.remove(COMING + "a")
    scene.calm()
    assert (scene.world.export / IN / "a" / "b").read_bytes() == content(1, RANGED + 5)


def test_upload_that_a_crash_left_without_a_name_is_thrown_away(scene_of):
    """The process ends after the store began an upload and before its id was recorded: no parts stay for ever."""
    scene = scene_of(streams=False)
    scene.world.write(OUT, "a", content(0, 3 * PART))
    scene.injector.arm("crash", ("create_upload:after",))
    scene.round()
    assert len(scene.bucket.uploads) == 1

    scene.calm()

    assert scene.bucket.uploads == {}


def test_upload_whose_begin_was_not_answered_is_thrown_away(scene_of):
    """The store began an upload and its answer was lost: the next attempt clears it before it begins another."""
    scene = scene_of(streams=False)
    scene.world.write(OUT, "a", content(0, 3 * PART))
    scene.injector.arm("reply-lost", ("create_upload:after",))
    scene.round()

    scene.calm()

    assert scene.bucket.uploads == {}
    assert scene.bucket.objects["sent/a"].body == content(0, 3 * PART)


@pytest.mark.parametrize("opaque", ["", "other"])
@pytest.mark.parametrize("passes", range(6))
def test_file_that_could_not_be_made_durable_in_its_place_is_known_as_fetched(scene_of, opaque, passes):
    """Whichever sync failed: nothing sends the file back, and no conflict copy is made of what nobody edited."""
    scene = scene_of(opaque=opaque)
    scene.world.put(COMING + "d/e/c", content(0, 17))
    scene.injector.arm("sync-failed", ("fsync:before",), skip=passes)
    for number in (1, 2):  # ingress, and who might echo before ingress tries again
        scene.process.sweep(number)
        scene.process.work()
    scene.world.put(COMING + "d/e/c", content(1, 18))

    scene.calm()

    assert scene.hits["fault sync-failed"] == 1
    assert [key for key in scene.bucket.objects if key.startswith(ECHO)] == []
    assert [path.name for path in (scene.world.export / IN).rglob("*.sync-conflict-*")] == []


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("becomes", ["symlink", "nothing"])
@pytest.mark.parametrize("is_killed", [True, False])
def test_parts_of_a_file_that_is_no_more_do_not_stay(scene_of, streams, becomes, is_killed):
    """An upload is interrupted, and before it can go on something else stands in the file's place."""
    scene = scene_of(streams=streams)
    scene.world.write(OUT, "a", content(0, 3 * PART))
    if streams:
        scene.injector.arm("stream-torn", ("put_parts:mid",), skip=1)
    else:
        scene.injector.arm("refused", ("put_part:before",), skip=1)
    scene.process.sweep(0)
    scene.process.work()
    assert len(scene.bucket.uploads) == 1
    if is_killed:
        scene.process.kill()
    scene.world.delete(OUT, "a") if becomes == "nothing" else scene.world.swap(OUT, "a", becomes)

    if is_killed:
        scene.process.start()
    else:
        scene.round()

    assert scene.bucket.uploads == {}
    scene.calm()


def test_parts_of_a_file_that_is_no_more_go_once_the_store_can_be_asked(scene_of):
    """The abort fails first: it is tried again."""
    scene = scene_of(streams=False)
    scene.world.write(OUT, "a", content(0, 3 * PART))
    scene.injector.arm("refused", ("put_part:before",), skip=1)
    scene.process.sweep(0)
    scene.process.work()
    scene.world.delete(OUT, "a")
    scene.injector.arm("refused", ("abort_upload:before",))

    scene.round()
    scene.round()

    assert scene.hits["fault refused"] == 2
    assert scene.bucket.uploads == {}


@pytest.mark.parametrize("streams", [True, False])
def test_parts_of_a_version_that_was_taken_back_do_not_stay(scene_of, streams):
    """An upload is interrupted, and the file is again what the bucket holds: nothing is sent, and nothing is left."""
    scene = scene_of(streams=streams)
    scene.world.write(OUT, "a", content(0, 3 * PART))
    scene.round()
    scene.world.write(OUT, "a", content(1, 3 * PART))
    torn = ("stream-torn", ("put_parts:mid",)) if streams else ("refused", ("put_part:before",))
    scene.injector.arm(*torn, skip=1)
    scene.process.sweep(0)
    scene.process.work()
    assert len(scene.bucket.uploads) == 1
    scene.world.write(OUT, "a", content(0, 3 * PART))
    written = len(scene.bucket.written)

    scene.round()

    assert len(scene.bucket.written) == written
    assert scene.bucket.uploads == {}
    scene.calm()
