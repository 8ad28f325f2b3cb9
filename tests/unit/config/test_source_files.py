"""A directory of manifests as a source."""

import shutil

import pytest

from replicator.config.settings import Settings
from replicator.config.sources import files
from replicator.config.sources.files import FilesSource
from replicator.config.sources.source import make_source
from replicator.errors import ConfigError
from replicator.model import Direction

DEVICE = "242e48d0-286b-4170-9b97-95502066e6ae"
CLAIM = """
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}}}
data: {{BUCKET_HOST: s3.svc, BUCKET_NAME: {bucket}}}
"""
KEYS = """
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
stringData: {{AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: b}}
"""


@pytest.fixture
def source_of(manifests_dir):
    """The source of the manifests directory; rhythm for tests that follow changes."""

    def make(environ=None, *, rhythm=None, **settings):
        checked = Settings.model_validate({"source": "files", "manifests_dir": str(manifests_dir)} | settings)
        if rhythm is None:
            return make_source(checked, environ or {})
        return FilesSource(checked, environ or {}, poll_s=rhythm, settle_s=rhythm)

    return make


@pytest.fixture
def write_claim(manifests_dir):
    """Writes the ConfigMap and Secret of a claim, in the device's namespace unless told otherwise."""

    def write(name=DEVICE, bucket="claimed", namespace="edgedevice-namespace", *, with_secret=True):
        names = {"name": name, "namespace": namespace, "bucket": bucket}
        texts = [CLAIM.format(**names)] + ([KEYS.format(**names)] if with_secret else [])
        (manifests_dir / f"claim-{bucket}.yaml").write_text("---".join(texts))

    return write


@pytest.fixture
def mount(manifests_dir):
    """Mounts words as kubelet does: a directory of links through `..data`."""

    def write(place, words):
        directory = manifests_dir / "storage" / place
        number = len(list(directory.iterdir())) if directory.exists() else 0
        version = directory / f"..version{number}"
        version.mkdir(parents=True)
        for word, value in words.items():
            (version / word).write_text(value)
            if not (directory / word).is_symlink():
                (directory / word).symlink_to(f"..data/{word}")
        (directory / "..data_tmp").symlink_to(version.name)
        (directory / "..data_tmp").rename(directory / "..data")

    return write


def edit(directory, name, old, new):
    text = (directory / name).read_text()
    assert old in text
    (directory / name).write_text(text.replace(old, new))


# The samples


def test_device_with_a_workload_and_external_storage(source_of):
    """The samples together: one target, with the external bucket and its origin."""
    (target,) = source_of().read()

    assert (target.id, target.root, target.subdir) == ("os-stats/egress/statistics", "/export", "stats")
    assert target.origin == "os-stats.yaml: spec.data.egress[0]"
    assert target.storage.place == "https://play.min.io/device-bucket-6"
    assert target.storage.access_key_id.get_secret_value() == "ydayagi1369"
    assert target.storage.origin == "external storage (ConfigMap edgedevice-namespace/s3configmap-name: BUCKET_NAME)"


def test_device_mode_serves_all_its_workloads(source_of, manifests_dir, manifest):
    """Every workload that selects the device gets its own root."""
    (manifests_dir / "telemetry.yml").write_text(manifest("telemetry.yaml"))

    targets = source_of(volumes_dir="/volumes").read()

    assert [(target.id, target.root) for target in targets] == [
        ("os-stats/egress/statistics", "/volumes/os-stats"),
        ("telemetry/egress/remote/log", "/volumes/telemetry"),
        ("telemetry/egress/remote/telemetry", "/volumes/telemetry"),
        ("telemetry/ingress/remote/data", "/volumes/telemetry"),
    ]
    assert targets[3].direction is Direction.INGRESS


def test_sidecar_is_told_its_workload(source_of, manifests_dir, manifest, refusal):
    """Two workloads need a choice."""
    (manifests_dir / "telemetry.yaml").write_text(manifest("telemetry.yaml"))

    assert len(source_of(workload="telemetry").read()) == 3
    assert "one of: os-stats, telemetry" in refusal(source_of().read).fix


def test_workload_of_other_devices_is_not_ours(source_of, manifests_dir, refusal):
    """A selector that does not fit leaves the sidecar without work, and the error says why."""
    edit(manifests_dir, "os-stats.yaml", "dc: home", "dc: away")

    error = refusal(source_of().read)

    assert error.problem == f"there is no EdgeWorkload for EdgeDevice {DEVICE}"
    assert error.fix == "Add one, or correct spec.device or spec.deviceSelector. Found: os-stats"
    assert source_of(volumes_dir="/volumes").read() == ()


def test_workload_without_data_needs_no_bucket(source_of, manifests_dir):
    """A device that transfers nothing may have no storage at all."""
    edit(manifests_dir, "os-stats.yaml", "data:\n    egress:", "pods:\n    egress:")
    (manifests_dir / "s3configmap.yaml").unlink()

    assert source_of().read() == ()


# Which device


def test_device_is_picked_by_name(source_of, manifests_dir, manifest, refusal):
    """With several devices one must be named."""
    (manifests_dir / "other.yaml").write_text(manifest("edgedevice.yaml").replace(DEVICE, "other"))

    error = refusal(source_of().read)

    assert (error.where, error.problem) == ("device", "2 EdgeDevices could be meant")
    assert error.fix == f"Set REPLICATOR_DEVICE to the name of one; there are: {DEVICE}, other"
    assert len(source_of(device="other").read()) == 1


@pytest.mark.parametrize(("is_there", "known"), [(True, DEVICE), (False, "none")])
def test_absent_device_is_refused(is_there, known, source_of, manifests_dir, refusal):
    """A device that is named must be there."""
    if not is_there:
        (manifests_dir / "edgedevice.yaml").unlink()

    error = refusal(source_of(device="absent").read)

    assert error.problem == "no EdgeDevice is named 'absent'"
    assert error.fix.endswith(f"there are: {known}")


# Which bucket, with a device


@pytest.mark.fault("D6")
def test_claim_named_by_the_status_wins(source_of, manifests_dir, write_claim):
    """status.dataObc names the claim, which comes before external storage."""
    with (manifests_dir / "edgedevice.yaml").open("a") as file:
        file.write("status: {dataObc: my-claim}\n")
    write_claim("my-claim")

    (target,) = source_of().read()

    assert target.storage.bucket == "claimed"
    assert target.storage.origin == "in-cluster claim (ConfigMap edgedevice-namespace/my-claim: BUCKET_NAME)"


def test_claim_named_like_the_device_wins(source_of, write_claim):
    """Without a status the claim is known by the device's name."""
    write_claim()

    assert source_of().read()[0].storage.bucket == "claimed"


@pytest.mark.parametrize("options", [{"with_secret": False}, {"namespace": "elsewhere"}, {"name": "stranger"}])
def test_half_a_claim_that_nobody_names_is_none(options, source_of, write_claim):
    """A ConfigMap alone, or objects of other names and namespaces, are not the device's claim."""
    write_claim(**options)

    assert source_of().read()[0].storage.bucket == "device-bucket-6"


@pytest.mark.parametrize(("with_secret", "kind"), [(True, "Secret"), (False, "ConfigMap")])
def test_named_claim_that_is_missing_is_no_reason_to_fall_back(with_secret, kind, source_of, manifests_dir, refusal):
    """status.dataObc without its objects is an error, though external storage is complete."""
    with (manifests_dir / "edgedevice.yaml").open("a") as file:
        file.write("status: {dataObc: my-claim}\n")
    if with_secret:
        names = {"name": "my-claim", "namespace": "edgedevice-namespace", "bucket": "b"}
        (manifests_dir / "claim.yaml").write_text(CLAIM.format(**names))

    error = refusal(source_of().read)

    assert error.where == "edgedevice.yaml: status.dataObc"
    assert error.problem == f"{kind} edgedevice-namespace/my-claim is not there"


def test_incomplete_claim_is_no_reason_to_fall_back(source_of, write_claim, manifests_dir, refusal):
    """A claim without its bucket's name is an error that names object and key."""
    write_claim()
    edit(manifests_dir, "claim-claimed.yaml", "BUCKET_NAME", "BUCKET")

    error = refusal(source_of().read)

    assert (error.where, error.problem) == (f"ConfigMap edgedevice-namespace/{DEVICE}: BUCKET_NAME", "is missing")


def test_mounted_claim_counts_as_the_claim(source_of, mount, bucket):
    """storage/obc is the in-cluster claim, also beside a device with external storage."""
    mount("obc", bucket | {"BUCKET_NAME": "mounted"})

    storage = source_of().read()[0].storage

    assert storage.bucket == "mounted"
    assert storage.origin.startswith("in-cluster claim (/")


@pytest.mark.parametrize("place", ["external", "obc"])
def test_mount_stands_in_for_named_objects(place, source_of, manifests_dir, mount, bucket):
    """Where objects that are named are not in the directory, their mounted files are used."""
    (manifests_dir / "s3secret.yaml").unlink()
    mount(place, bucket | {"BUCKET_NAME": "mounted"})

    assert source_of().read()[0].storage.bucket == "mounted"


@pytest.mark.parametrize(
    ("file", "field", "problem"),
    [
        ("s3configmap.yaml", "configMapName", "ConfigMap edgedevice-namespace/s3configmap-name is not there"),
        ("s3secret.yaml", "secretName", "Secret edgedevice-namespace/s3secret-name is not there"),
    ],
)
def test_absent_external_object_is_named(file, field, problem, source_of, manifests_dir, refusal):
    """The device names it, so it must be there."""
    (manifests_dir / file).unlink()

    error = refusal(source_of().read)

    assert (error.where, error.problem) == (f"edgedevice.yaml: spec.storage.s3.{field}", problem)


def test_external_objects_stay_in_the_devices_namespace(source_of, manifests_dir, refusal):
    """An object of the same name in another namespace is another object."""
    edit(manifests_dir, "s3secret.yaml", "edgedevice-namespace", "elsewhere")

    assert refusal(source_of().read).problem == "Secret edgedevice-namespace/s3secret-name is not there"


def test_object_that_states_no_namespace_fits(source_of, manifests_dir):
    """Manifests are often applied with `-n`; an exact namespace comes first."""
    edit(manifests_dir, "s3secret.yaml", "  namespace: edgedevice-namespace\n", "")
    edit(manifests_dir, "s3configmap.yaml", "  namespace: edgedevice-namespace\n", "")
    assert source_of().read()[0].storage.bucket == "device-bucket-6"

    names = {"name": "s3configmap-name", "namespace": "edgedevice-namespace", "bucket": "exact"}
    (manifests_dir / "z.yaml").write_text(CLAIM.format(**names))

    assert source_of().read()[0].storage.bucket == "exact"


def test_half_named_external_storage_is_refused(source_of, manifests_dir, refusal):
    """A ConfigMap without a Secret is a forgotten line."""
    edit(manifests_dir, "edgedevice.yaml", "      secretName: s3secret-name\n", "")

    error = refusal(source_of().read)

    assert (error.where, error.problem) == (
        "edgedevice.yaml: spec.storage.s3.secretName",
        "is empty though its sibling is set",
    )


def test_device_without_storage_names_all_places(source_of, manifests_dir, refusal, bucket):
    """Nothing configured is an error that lists every place; the environment is none of them beside a device."""
    edit(manifests_dir, "edgedevice.yaml", "configMapName: s3configmap-name", "createOBC: true")
    edit(manifests_dir, "edgedevice.yaml", "      secretName: s3secret-name\n", "")

    error = refusal(source_of(bucket).read)

    assert error.problem == "no bucket is configured"
    for place in ("status.dataObc", "spec.storage.s3.configMapName", "storage/obc", "storage/external"):
        assert place in error.fix


# Which bucket, for the member of a set

SET = """
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDeviceSet
metadata: {name: fleet, namespace: edgedevice-namespace}
spec: {%s}
"""


@pytest.fixture
def join_set(manifests_dir):
    """Makes the device a member of the set `fleet`, which has this spec, or is not there."""

    def join(spec=None):
        edit(manifests_dir, "edgedevice.yaml", "    dc: home\n", "    dc: home\n    flotta/member-of: fleet\n")
        if spec is not None:
            (manifests_dir / "set.yaml").write_text(SET % spec)

    return join


def test_storage_of_the_set_replaces_the_devices(source_of, write_claim, join_set):
    """The set's storage counts as a whole, not the device's own."""
    write_claim("of-the-set", bucket="of-the-set")
    join_set("storage: {s3: {configMapName: of-the-set, secretName: of-the-set}}")

    assert source_of().read()[0].storage.bucket == "of-the-set"


@pytest.mark.parametrize(
    "spec", ["", "heartbeat: {periodSeconds: 5}", "storage: {}", "storage: {s3: {createOBC: true}}"]
)
def test_set_without_storage_leaves_the_device_without(spec, source_of, join_set, refusal):
    """A field that the set leaves out is left out for its devices, too: Flotta replaces, it does not merge."""
    join_set(spec)

    error = refusal(source_of().read)

    assert error.problem == "no bucket is configured"
    assert "set.yaml: spec.storage.s3.configMapName" in error.fix


def test_half_named_storage_of_the_set_is_told_at_the_set(source_of, join_set, refusal):
    """The error leads to the object that has to be corrected."""
    join_set("storage: {s3: {configMapName: s3configmap-name}}")

    assert refusal(source_of().read).where == "set.yaml: spec.storage.s3.secretName"


def test_set_that_is_not_there_is_ignored_and_told(source_of, join_set, caplog):
    """The device's own storage counts, and the log says so."""
    join_set()

    assert source_of().read()[0].storage.bucket == "device-bucket-6"
    assert [record.message for record in caplog.records] == [
        "device set cannot be read, the device's own storage counts"
    ]


def test_claim_comes_before_the_storage_of_the_set(source_of, manifests_dir, write_claim, join_set):
    """The set replaces what the spec says; status.dataObc still wins."""
    with (manifests_dir / "edgedevice.yaml").open("a") as file:
        file.write("status: {dataObc: my-claim}\n")
    write_claim("my-claim")
    join_set("storage: {s3: {configMapName: s3configmap-name, secretName: s3secret-name}}")

    assert source_of().read()[0].storage.bucket == "claimed"


# Which bucket, without a device


@pytest.fixture
def without_device(manifests_dir):
    """Only the workload is described."""
    for name in ("edgedevice.yaml", "s3configmap.yaml", "s3secret.yaml"):
        (manifests_dir / name).unlink()
    return manifests_dir


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    ("mounts", "variables", "chosen"),
    [
        (["obc", "external"], ["OBC_", ""], "obc"),
        (["external"], ["OBC_", ""], "external"),
        ([], ["OBC_", ""], "OBC_"),
        ([], [""], ""),
    ],
)
def test_mounts_come_before_the_environment(mounts, variables, chosen, source_of, without_device, mount, bucket):
    """Without a device all workloads apply; the bucket is the mounted claim, mounted external, or the environment's."""
    for place in mounts:
        mount(place, bucket | {"BUCKET_NAME": f"of-{place}"})
    environ = {
        prefix + word: value
        for prefix in variables
        for word, value in (bucket | {"BUCKET_NAME": f"of-{prefix}".strip("_")}).items()
    }

    assert source_of(environ).read()[0].storage.bucket == f"of-{chosen}".strip("_")


def test_nothing_anywhere_names_all_places(source_of, without_device, refusal):
    """The error lists the mounts and the variables."""
    error = refusal(source_of().read)

    for place in ("storage/obc", "storage/external", "OBC_BUCKET_NAME", "EXTERNAL_BUCKET_NAME"):
        assert place in error.fix


@pytest.mark.parametrize("words", [{"BUCKET_NAME": "b"}, {"bucket-name": "b"}])
def test_incomplete_mount_is_no_reason_to_fall_back(words, source_of, without_device, mount, bucket, refusal):
    """A claim directory with anything in it is a claim; what it lacks is named by its file."""
    mount("obc", words)

    error = refusal(source_of(bucket).read)

    assert (error.where, error.problem) == (f"{without_device}/storage/obc/BUCKET_HOST", "is missing")


def test_empty_mount_is_no_claim(source_of, without_device, mount, bucket):
    """An optional Secret that does not exist is mounted as an empty directory."""
    mount("obc", {})

    assert source_of(bucket).read()[0].storage.bucket == "device-bucket-6"


# What the directory may hold


def test_hidden_and_other_files_are_ignored(source_of, manifests_dir):
    """Editors' files, notes and directories beside the manifests do no harm."""
    (manifests_dir / ".os-stats.yaml.swp").write_bytes(b"\xff")
    (manifests_dir / "README.md").write_text("a: [")
    (manifests_dir / "more").mkdir()
    (manifests_dir / "more" / "x.yaml").write_text("a: [")

    assert len(source_of().read()) == 1


def test_absent_directory_is_refused(source_of, manifests_dir, refusal):
    """A directory that is not mounted is named."""
    shutil.rmtree(manifests_dir)

    error = refusal(source_of().read)

    assert (error.where, error.problem) == (str(manifests_dir), "there is no such directory")


@pytest.mark.fault("D1")
def test_object_twice_is_refused(source_of, manifests_dir, refusal):
    """Two files with one object would silently be one of the two."""
    shutil.copy(manifests_dir / "os-stats.yaml", manifests_dir / "copy.yaml")

    error = refusal(source_of().read)

    assert error.where == "os-stats.yaml"
    assert error.problem == "EdgeWorkload (no namespace)/os-stats is also in copy.yaml"


def test_large_manifest_is_refused_by_its_size(source_of, manifests_dir, refusal):
    """A 50 MB file is not read."""
    with (manifests_dir / "big.yaml").open("wb") as file:
        file.truncate(50_000_000)

    assert refusal(source_of().read).where == str(manifests_dir / "big.yaml")


@pytest.mark.fault("D1")
def test_many_large_manifests_are_refused(source_of, manifests_dir, refusal, monkeypatch):
    """Files that are small enough alone are bounded together, before they are parsed."""
    monkeypatch.setattr(files, "MAX_TOTAL_BYTES", 3000)
    for number in range(3):
        (manifests_dir / f"a{number}.yaml").write_text("#" * 1001)

    error = refusal(source_of().read)

    assert (error.where, error.problem) == (str(manifests_dir), "the manifests are larger than 3000 bytes together")


@pytest.mark.fault("D1")
def test_broken_manifest_is_named(source_of, manifests_dir, refusal):
    """One unreadable file refuses the whole: half a configuration is none."""
    (manifests_dir / "broken.yaml").write_text("kind: EdgeWorkload\nmetadata: [")

    assert refusal(source_of().read).where.startswith("broken.yaml: line ")


# Changes


async def test_edited_manifest_is_noticed(source_of, manifests_dir, next_of, followed):
    """Real files, really watched: an edit is a snapshot, a broken edit an error, a repair a snapshot."""
    changes = followed(source_of(rhythm=0.02))
    before = await next_of(changes)

    edit(manifests_dir, "os-stats.yaml", "target: statistics", "target: numbers")
    edited = await next_of(changes)
    edit(manifests_dir, "os-stats.yaml", "target: numbers", "target: ../numbers")
    broken = await next_of(changes)
    edit(manifests_dir, "os-stats.yaml", "target: ../numbers", "target: numbers")
    mended = await next_of(changes)

    assert [target.prefix.text for target in (*before, *edited)] == ["statistics/", "numbers/"]
    assert isinstance(broken, ConfigError)
    assert broken.where == "os-stats.yaml: spec.data.egress[0].target"
    assert mended == edited


async def test_edit_that_means_the_same_is_no_news(source_of, manifests_dir, next_of, followed):
    """Comments and renamed files change nothing; the next real change is the next snapshot."""
    changes = followed(source_of(rhythm=0.02))
    await next_of(changes)

    edit(manifests_dir, "os-stats.yaml", "kind:", "# a note\nkind:")
    (manifests_dir / "os-stats.yaml").rename(manifests_dir / "renamed.yaml")
    with pytest.raises(TimeoutError):
        await next_of(changes, deadline_s=0.3)


@pytest.mark.fault("B18", "D2")
async def test_swap_of_a_mounted_configmap_is_noticed(manifests_dir, next_of, followed, bucket, tmp_path):
    """Kubelet swaps `..data`: the entries stay the same links, their meaning changes at once."""
    mounted = tmp_path / "mounted"
    for number, target in enumerate(("old", "new")):
        version = mounted / f"..version{number}"
        version.mkdir(parents=True)
        edit_to = (manifests_dir / "os-stats.yaml").read_text().replace("target: statistics", f"target: {target}")
        (version / "os-stats.yaml").write_text(edit_to)
    (mounted / "..data").symlink_to("..version0")
    (mounted / "os-stats.yaml").symlink_to("..data/os-stats.yaml")
    settings = Settings.model_validate({"source": "files", "manifests_dir": str(mounted)})
    changes = followed(FilesSource(settings, bucket, poll_s=0.02, settle_s=0.02))
    (before,) = await next_of(changes)

    (mounted / "..data_tmp").symlink_to("..version1")
    (mounted / "..data_tmp").rename(mounted / "..data")
    (after,) = await next_of(changes)

    assert (before.prefix.text, after.prefix.text) == ("old/", "new/")


@pytest.mark.fault("B18")
async def test_rotated_mount_is_noticed(source_of, mount, next_of, followed, bucket):
    """A claim's new key arrives through the mounted Secret."""
    mount("obc", bucket)
    changes = followed(source_of(rhythm=0.02))
    await next_of(changes)

    mount("obc", bucket | {"AWS_SECRET_ACCESS_KEY": "rotated"})
    (target,) = await next_of(changes)

    assert target.storage.secret_access_key.get_secret_value() == "rotated"


async def test_directory_that_appears_later_is_noticed(source_of, manifests_dir, next_of, followed):
    """A directory that is not there yet is an error, not the end; when it comes, it is read."""
    manifests_dir.rename(manifests_dir.parent / "later")
    changes = followed(source_of(rhythm=0.02))
    absent = await next_of(changes)

    (manifests_dir.parent / "later").rename(manifests_dir)
    found = await next_of(changes)

    assert absent.problem == "there is no such directory"
    assert [target.id for target in found] == ["os-stats/egress/statistics"]
