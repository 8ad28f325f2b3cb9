"""The whole examination: what it begins with, and that a broken configuration does not end it."""

from replicator.doctor.examination import CONFIGURATION, examine
from replicator.doctor.findings import Verdict
from replicator.errors import ConfigError


def test_targets_come_first_and_are_named(stub_s3, reply, new_settings, new_target):
    """Device and endpoint follow, each target's directory and bucket among them."""
    stub_s3.default = reply(403)
    target = new_target("ingress", "in", storage=stub_s3.storage())

    found = list(examine(new_settings(), lambda: (target,)))

    assert (found[0].check, found[0].found) == (CONFIGURATION, "1 target: workload/ingress/p")
    names = ["targets", "state directory", "export", "writing", "free space"]
    names += ["name", "connection", "clock", "requests", "bucket"]
    assert [one.check for one in found] == names


def test_broken_configuration_is_a_finding_and_the_device_is_examined(new_settings):
    """What, where and the fix; checks that need no target go on."""

    def read():
        raise ConfigError(where="file x: y", problem="is wrong", fix="Mend it")

    found = list(examine(new_settings(), read))

    assert [(one.check, one.verdict) for one in found] == [
        (CONFIGURATION, Verdict.FAILED),
        ("state directory", Verdict.OK),
    ]
    assert found[0].found == "file x: y: is wrong"


def test_nothing_mapped_is_a_warning(new_settings):
    """A workload without data paths is legal, and seldom meant."""
    found = next(examine(new_settings(), tuple))

    assert found.verdict is Verdict.WARNING
    assert "nothing is mapped" in found.found
