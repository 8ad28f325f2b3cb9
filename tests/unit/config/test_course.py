"""What is told of a device by what was heard of it: identity, departure, silence, and the copy on disk."""

import json
import stat
from typing import Any

import pytest

from replicator.config.device import Inventory
from replicator.config.manifests import ConfigMap, EdgeDevice, EdgeDeviceSet, Secret
from replicator.config.settings import load
from replicator.config.sources.course import KEPT_AS, Course
from replicator.config.sources.moment import Moment, Sighting, from_text, shaped, to_text, workloads_for
from replicator.errors import ConfigError
from tests import fleet

SERVER = "https://cluster:6443"


@pytest.fixture
def settings(tmp_path):
    return load({"source": "kubernetes", "volumes_dir": "/volumes", "state_dir": str(tmp_path / "state")}, {}).settings


@pytest.fixture
def kept(settings):
    """The file that outlives the process."""
    return settings.state_dir / KEPT_AS


def moment(*objects, uid="uid-1", is_leaving=False, device=None, workloads=None) -> Moment:
    """What the cluster says: one device, one workload and its bucket, unless told otherwise."""
    shapes: dict[str, Any] = {"EdgeDeviceSet": EdgeDeviceSet, "ConfigMap": ConfigMap, "Secret": Secret}
    one = shaped(EdgeDevice, device or fleet.device())
    running = workloads_for(one, [fleet.workload()] if workloads is None else workloads)
    others = [shaped(shapes[found["kind"]], found) for found in objects or fleet.bucket_words()]
    return Moment(one, Sighting(uid, is_leaving), Inventory.of([one, *running, *others]))


def shown(told) -> list:
    """Each snapshot by its ids, an error by its problem."""
    return [one.problem if isinstance(one, ConfigError) else [target.id for target in one] for one in told]


STATS = ["os-stats/egress/statistics"]


# What is heard


def test_device_with_its_bucket_is_told(settings):
    """All is there: the mappings, with the bucket that the device names."""
    (targets,) = Course(settings, {}).heard(moment())

    assert shown([targets]) == [STATS]
    assert not isinstance(targets, ConfigError)
    assert targets[0].origin == "EdgeWorkload fleet/os-stats: spec.data.egress[0]"
    assert targets[0].storage.origin == "external storage (ConfigMap fleet/external: BUCKET_NAME)"


@pytest.mark.fault("E10")
def test_missing_secret_is_told_and_the_kept_copy_stays(settings, kept):
    """The reason names the Secret; what is kept is the last good configuration."""
    course = Course(settings, {})
    course.heard(moment())
    before = kept.read_text()

    assert shown(course.heard(moment(fleet.config_map()))) == ["Secret fleet/external is not there"]
    assert kept.read_text() == before


def test_workload_of_others_may_be_what_it_likes(settings):
    """Only a workload for this device has to make sense; a selector that says nothing selects nobody."""
    others = [
        fleet.workload("bad-paths", data={"egrss": []}, device="gateway-8"),
        fleet.workload("bad-selector", deviceSelector={"matchExpressions": [{"key": "dc", "operator": "Is"}]}),
    ]

    assert shown(Course(settings, {}).heard(moment(workloads=[fleet.workload(), *others]))) == [STATS]


def test_workload_that_makes_no_sense_is_an_error_of_the_device_it_is_for(refusal):
    """It is named, with its field."""
    bad = fleet.workload("bad-paths", data={"egrss": []})

    error = refusal(moment, workloads=[fleet.workload(), bad])

    assert error.where == "EdgeWorkload fleet/bad-paths: spec.data"


@pytest.mark.fault("E10")
def test_start_beside_a_missing_secret_goes_by_what_was_kept(settings):
    """The last good configuration is in force over a restart, too, and the reason is told."""
    before = Course(settings, {}).heard(moment())

    told = Course(settings, {}).heard(moment(fleet.config_map()))

    assert told[:1] == before
    assert shown(told[1:]) == ["Secret fleet/external is not there"]


@pytest.mark.fault("E3")
def test_start_beside_an_empty_listing_goes_by_what_was_kept(settings):
    """That nobody sees the device says nothing: what it did last goes on."""
    before = Course(settings, {}).heard(moment())
    error = ConfigError(where="device", problem="no EdgeDevice is named 'x'", fix="")

    assert Course(settings, {}).refused(None, error) == [*before, error]


# Another device under the name


@pytest.mark.fault("E4")
def test_device_that_was_made_anew_is_another(settings):
    """What ran for the old one ends first, then what the new one says is told."""
    course = Course(settings, {})
    course.heard(moment())

    assert shown(course.heard(moment(uid="uid-2"))) == [[], STATS]
    assert shown(course.heard(moment(uid="uid-2"))) == [STATS]


@pytest.mark.fault("E4")
def test_bucket_of_the_old_device_is_not_the_new_ones(settings, kept):
    """A new device whose bucket is not there yet waits; neither what ran nor what was kept is its own."""
    course = Course(settings, {})
    course.heard(moment())

    told = course.heard(moment(device=fleet.device(obc="new-claim"), uid="uid-2"))

    assert shown(told) == [[], "ConfigMap fleet/new-claim is not there"]
    assert not kept.exists()


@pytest.mark.fault("E4")
def test_what_was_kept_of_the_old_device_ends_once_the_new_one_is_heard(settings):
    """A start without the API server goes by what was kept, and no further than the first word of another uid."""
    Course(settings, {}).heard(moment())
    course = Course(settings, {})

    assert shown(course.silent(SERVER, 0))[0] == STATS
    assert shown(course.heard(moment(uid="uid-2", workloads=[]))) == [[], []]


@pytest.mark.fault("E4")
def test_new_device_whose_bucket_is_missing_does_not_start_by_what_was_kept_of_the_old_one(settings, kept):
    """Its name is the same, its uid is not: it waits, and the old one's credentials leave the disk."""
    Course(settings, {}).heard(moment())

    told = Course(settings, {}).heard(moment(fleet.config_map(), uid="uid-2"))

    assert shown(told) == ["Secret fleet/external is not there"]
    assert not kept.exists()


# Departure


def test_device_that_is_deleted_ends_what_runs(settings, kept):
    """With deletionTimestamp the set of mappings is empty, so that what ran is drained; then nothing stays on disk."""
    course = Course(settings, {})
    course.heard(moment())

    assert shown(course.heard(moment(is_leaving=True))) == [[]]
    assert shown(course.heard(moment(is_leaving=True))) == [[]]
    assert kept.exists()
    course.drained()
    assert not kept.exists()


def test_start_in_silence_beside_a_device_that_was_leaving_goes_on(settings):
    """Until all is sent a restart still knows what to send."""
    course = Course(settings, {})
    before = course.heard(moment())
    course.heard(moment(is_leaving=True))

    assert Course(settings, {}).silent(SERVER, 0)[:1] == before


def test_start_beside_a_device_that_is_deleted_sends_what_is_left(settings, kept):
    """A restart in the middle of the drain begins it anew: mappings first, then none."""
    course = Course(settings, {})

    assert shown(course.heard(moment(is_leaving=True))) == [STATS, []]
    assert shown(course.heard(moment(is_leaving=True))) == [[]]
    assert not kept.exists()


def test_start_that_cannot_drain_does_not_claim_it(settings):
    """Without the bucket's words a leaving device is an error, not an empty configuration."""
    told = Course(settings, {}).heard(moment(fleet.config_map(), is_leaving=True))

    assert shown(told) == ["Secret fleet/external is not there"]


def test_start_beside_a_device_that_is_deleted_drains_by_what_was_kept(settings):
    """Where the bucket's words are gone from the cluster, those of the last good configuration serve."""
    Course(settings, {}).heard(moment())

    assert shown(Course(settings, {}).heard(moment(fleet.config_map(), is_leaving=True))) == [STATS, []]


def test_faults_of_a_device_that_has_left_are_nobodys(settings):
    """Its claim goes with it: that is no error any more."""
    course = Course(settings, {})
    course.heard(moment())
    course.heard(moment(is_leaving=True))

    assert shown(course.heard(moment(fleet.config_map(), is_leaving=True))) == [[]]
    assert course.refused(None, ConfigError(where="device", problem="is not there", fix="")) == [()]


def test_device_that_is_gone_is_forgotten(settings, kept):
    """Once its removal was seen, nothing of it is used again, not even in silence."""
    course = Course(settings, {})
    course.heard(moment())

    assert course.gone() == [()]
    assert not kept.exists()
    assert len(course.silent(SERVER, 0)) == 1


# Silence


@pytest.mark.fault("E2")
def test_silence_is_told_and_changes_nothing(settings):
    """The error says since when; there is no other configuration."""
    course = Course(settings, {})
    course.heard(moment())

    (error,) = course.silent(SERVER, 1_000_000_000)

    assert (error.where, error.problem) == (SERVER, "has not been heard since 2001-09-09 01:46:40 UTC")


@pytest.mark.fault("E2")
def test_start_in_silence_goes_by_what_was_kept(settings, kept, caplog):
    """The same targets as before the restart, with the age of the copy in the error and in the log."""
    before = Course(settings, {}).heard(moment())

    targets, error = Course(settings, {}).silent(SERVER, 0)

    assert [targets] == before
    assert ", in force is what it said on 2" in error.problem
    assert [record.message for record in caplog.records] == ["started by what was kept"]


def test_what_is_kept_is_for_nobody_else(settings, kept):
    """Mode 0600, without what is not needed: Pods, other workloads."""
    Course(settings, {}).heard(moment(workloads=[fleet.workload(), fleet.workload("other", device="gateway-8")]))

    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "example/os-stats" not in kept.read_text()
    assert "other" not in kept.read_text()


@pytest.mark.parametrize("changes", [{"device": "gateway-8"}, {"namespace": "elsewhere"}])
@pytest.mark.fault("E4")
def test_what_was_kept_of_another_device_is_not_used(settings, changes):
    """The state directory may have been another device's."""
    Course(settings, {}).heard(moment())

    told = Course(settings.model_copy(update=changes), {}).silent(SERVER, 0)

    assert shown(told) == ["has not been heard since 1970-01-01 00:00:00 UTC"]


def test_authority_of_claims_comes_from_the_environment(settings, ca_pem):
    """Provisioners write none; an authority of the Secret's own comes first, and external storage has no part in it."""
    course = Course(settings, {"OBC_tls.crt": ca_pem})
    claimed = fleet.device(obc="the-claim")

    def authority(*words, device=claimed) -> str:
        (targets,) = course.heard(moment(*words, device=device))
        assert not isinstance(targets, ConfigError)
        return targets[0].storage.ca_pem

    assert authority(*fleet.bucket_words("the-claim")) == ca_pem
    assert authority(*fleet.bucket_words(), device=fleet.device()) == ""
    (error,) = course.heard(
        moment(fleet.config_map("the-claim"), fleet.secret("the-claim", **{"tls.crt": "none"}), device=claimed)
    )
    assert isinstance(error, ConfigError)
    assert error.where == "Secret fleet/the-claim: tls.crt"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"uid": "u", "objects": []}', "[" * 100_000, '{"objects": [1]}']
)
def test_spoilt_copy_is_none(settings, kept, text):
    """Whatever is in the file, it does not end the start."""
    kept.parent.mkdir()
    kept.write_text(text)

    assert len(Course(settings, {}).silent(SERVER, 0)) == 1


def test_copy_is_what_was_said():
    """What is kept says the same as what was heard: device, set, workloads, words."""
    heard = moment(
        fleet.device_set("gateways", fleet.s3("external")),
        *fleet.bucket_words(),
        device=fleet.device(member_of="gateways", spec={}),
        workloads=[
            fleet.workload(),
            fleet.workload("all", deviceSelector={}),
            fleet.workload("me", device=fleet.DEVICE),
        ],
    )

    again = from_text(to_text(heard), where="kept")

    assert json.loads(to_text(again)) == json.loads(to_text(heard))
    assert again.inventory.set_of(again.device) == heard.inventory.sets[0]
