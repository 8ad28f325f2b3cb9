"""The cluster as a source: what its objects mean for one device, and what an API server in trouble may never do."""

import asyncio
import datetime as dt
import functools
import math
import time

import pytest

from replicator.cluster.mirror import Mirror, Rhythm
from replicator.config.settings import load
from replicator.config.sources import kubernetes, watched
from replicator.config.sources.kubernetes import KubernetesSource
from replicator.config.sources.source import make_source
from replicator.errors import ClusterError, ConfigError
from replicator.observe.standing import Report, Stand, Standing
from tests import fleet
from tests.apiserver.server import ApiServer

pytestmark = pytest.mark.slow

STATS = ["os-stats/egress/statistics"]
CLAIM = fleet.bucket_words("the-claim", "claimed")
EXTERNAL = fleet.bucket_words()
OF_SET = fleet.bucket_words("of-the-set", "of-the-set")


@pytest.fixture
def server():
    with ApiServer() as one:
        yield one


@pytest.fixture
def apply(server):
    """Puts objects into the cluster, lists of them too."""

    def put(*objects):
        for one in objects:
            put(*one) if isinstance(one, list) else server.put(one)

    return put


@pytest.fixture
def home(apply):
    """A device with one workload and external storage."""
    apply(fleet.device(), fleet.workload(), EXTERNAL)


@pytest.fixture
def source_of(server, tmp_path, monkeypatch):
    """The source of device gateway-7 in a hurry; settings by name."""
    quick = functools.partial(Mirror, rhythm=Rhythm(pause_s=lambda _: 0.01, doubt_s=0.05))
    monkeypatch.setattr(watched, "Mirror", quick)
    monkeypatch.setattr(kubernetes, "_TICK_S", 0.02)

    def make(*, patience_s=5.0, silence_s=60.0, settle_s=0.01, **settings) -> KubernetesSource:
        config = server.kubeconfig(tmp_path / "kubeconfig", namespace=fleet.NAMESPACE)
        words = {"source": "kubernetes", "device": fleet.DEVICE, "volumes_dir": "/volumes"}
        checked = load(words | {"state_dir": str(tmp_path / "state")} | settings, {}).settings
        environ = {"KUBECONFIG": str(config)}
        rhythm = {"patience_s": patience_s, "silence_s": silence_s, "settle_s": settle_s}
        return KubernetesSource(checked, environ, **rhythm)

    return make


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "state/kubernetes.json"


def shown(snapshot):
    """The ids, or an error's problem."""
    return snapshot.problem if isinstance(snapshot, ConfigError) else [target.id for target in snapshot]


# Which bucket


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    ("objects", "answer"),
    [
        pytest.param([fleet.device(), EXTERNAL], "device-bucket-6", id="external storage that the device names"),
        pytest.param([fleet.device(obc="the-claim"), EXTERNAL, CLAIM], "claimed", id="status.dataObc comes first"),
        pytest.param(
            [fleet.device(), EXTERNAL, fleet.bucket_words(fleet.DEVICE, "unnamed")],
            "device-bucket-6",
            id="a claim that the status does not name is none",
        ),
        pytest.param(
            [fleet.device(obc="the-claim"), EXTERNAL],
            "ConfigMap fleet/the-claim is not there",
            id="a claim that is not bound yet is no reason to fall back",
        ),
        pytest.param(
            [fleet.device(obc="the-claim"), EXTERNAL, CLAIM[0]],
            "Secret fleet/the-claim is not there",
            id="half a claim is no reason to fall back",
        ),
        pytest.param([fleet.device(spec={})], "no bucket is configured", id="nothing is named"),
        pytest.param(
            [fleet.device(spec={"storage": {"s3": {"createOBC": True}}}), CLAIM],
            "no bucket is configured",
            id="a claim that is only asked for",
        ),
        pytest.param(
            [fleet.device(member_of="set"), fleet.device_set("set", fleet.s3("of-the-set")), EXTERNAL, OF_SET],
            "of-the-set",
            id="the set's storage replaces the device's",
        ),
        pytest.param(
            [fleet.device(member_of="set"), fleet.device_set("set", {}), EXTERNAL],
            "no bucket is configured",
            id="a set without storage leaves its devices without",
        ),
        pytest.param(
            [
                fleet.device(member_of="set"),
                fleet.device_set("set", {"storage": {"s3": {"createOBC": True}}}),
                EXTERNAL,
            ],
            "no bucket is configured",
            id="createOBC of a set is nobody's claim",
        ),
        pytest.param(
            [
                fleet.device(member_of="set", obc="the-claim"),
                fleet.device_set("set", fleet.s3("of-the-set")),
                OF_SET,
                CLAIM,
            ],
            "claimed",
            id="status.dataObc comes before the set's storage",
        ),
        pytest.param([fleet.device(member_of="set"), EXTERNAL], "device-bucket-6", id="a set that is not there"),
        pytest.param(
            [fleet.device(), fleet.config_map()], "Secret fleet/external is not there", id="external without Secret"
        ),
        pytest.param(
            [fleet.device(), fleet.secret()], "ConfigMap fleet/external is not there", id="external without ConfigMap"
        ),
        pytest.param(
            [fleet.device(spec={"storage": {"s3": {"configMapName": "external"}}}), EXTERNAL],
            "is empty though its sibling is set",
            id="one of two names",
        ),
        pytest.param([fleet.device(), fleet.config_map(bucket=""), fleet.secret()], "is empty", id="an empty word"),
        pytest.param(
            [fleet.device(), fleet.config_map(BUCKET_PORT="abc"), fleet.secret()], "is not a port number", id="port"
        ),
        pytest.param(
            [fleet.device(), fleet.config_map(BUCKET_PORT="0"), fleet.secret()], "is not a port number", id="port 0"
        ),
        pytest.param(
            [fleet.device(), fleet.config_map(BUCKET_HOST="https://play.min.io"), fleet.secret()],
            "is not a host name",
            id="a host with a scheme",
        ),
    ],
)
def test_bucket_of_the_device(apply, source_of, objects, answer):
    """Claim, external storage and set in every mix: one of them is in force, or the error says what is missing."""
    apply(fleet.workload(), objects)

    try:
        found = source_of().read()[0].storage.bucket
    except ConfigError as error:
        found = error.problem

    assert found == answer


def test_words_of_the_bucket_are_taken_as_they_are(apply, source_of):
    """Host and port are the ConfigMap's, the scheme is https, and Secrets have one layer of base64."""
    apply(fleet.device(obc="the-claim"), fleet.workload(), fleet.secret("the-claim"))
    apply(fleet.config_map("the-claim", bucket="b", BUCKET_HOST="s3.openshift-storage.svc", BUCKET_PORT="10443"))

    storage = source_of().read()[0].storage

    assert (storage.endpoint, storage.region) == ("https://s3.openshift-storage.svc:10443", "us-east-1")
    assert storage.secret_access_key.get_secret_value() == fleet.SECRET_TEXT
    assert source_of(s3_scheme="http").read()[0].storage.endpoint.startswith("http://")


@pytest.mark.fault("E7")
@pytest.mark.parametrize(
    "name", ["../the-claim", "x,metadata.name=the-claim", "the-claim/../external", "The-Claim", "-"]
)
def test_name_that_is_none_leads_nowhere(apply, server, source_of, name):
    """A tenant cannot have another object read by writing a path or a selector where a name belongs."""
    apply(fleet.device(spec=fleet.s3(name)), fleet.workload(), CLAIM, EXTERNAL)

    with pytest.raises(ConfigError, match="is not there"):
        source_of().read()
    assert server.count("list", "secrets") == server.count("get", "secrets") == 0


@pytest.mark.fault("E7")
@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "file:///etc/passwd", "0.0.0.0"])
def test_host_that_is_no_store_is_refused(apply, source_of, host):
    """Keys are never sent to where clouds keep their own, nor anywhere that is no host."""
    apply(fleet.device(), fleet.workload(), fleet.config_map(BUCKET_HOST=host), fleet.secret())

    with pytest.raises(ConfigError, match="BUCKET_HOST"):
        source_of().read()


# Which workloads, which device


@pytest.mark.parametrize(
    ("addressed", "runs"),
    [
        ({"device": fleet.DEVICE}, True),
        ({"device": fleet.DEVICE, "deviceSelector": {"matchLabels": {"dc": "away"}}}, True),
        ({"device": "gateway-8", "deviceSelector": {}}, False),
        ({"deviceSelector": {}}, True),
        ({"deviceSelector": {"matchExpressions": [{"key": "dc", "operator": "NotIn", "values": ["away"]}]}}, True),
        ({"deviceSelector": {"matchLabels": {"dc": "away"}}}, False),
        ({"deviceSelector": None}, False),
    ],
)
def test_workload_runs_where_it_selects(apply, source_of, addressed, runs):
    """spec.device comes first, an empty selector is all, none is nobody; labels kept by others count nothing."""
    device = fleet.device()
    device["metadata"]["labels"]["workload/os-stats"] = "true"
    apply(device, fleet.workload(**addressed), EXTERNAL)

    assert bool(source_of().read()) == runs


def test_workload_that_is_being_deleted_runs_no_more(apply, server, source_of):
    """Flotta's finalizer holds it until the devices let go of it."""
    held = fleet.workload()
    held["metadata"]["finalizers"] = ["yggdrasil-device-reference-finalizer"]
    apply(fleet.device(), held, EXTERNAL)
    server.delete("edgeworkloads", fleet.NAMESPACE, "os-stats")

    assert source_of().read() == ()


def test_sidecar_reads_its_own_workload(apply, server, home, source_of):
    """A sidecar is told its workload, and asks for no other."""
    apply(fleet.workload("other"))

    (target,) = source_of(workload="os-stats", volumes_dir="").read()

    assert (target.id, target.root) == (STATS[0], "/export")
    assert {r.query.get("fieldSelector") for r in server.requests if r.plural == "edgeworkloads"} == {
        "metadata.name=os-stats"
    }


def test_only_device_of_the_namespace_need_not_be_named(apply, home, source_of):
    """Without a name the only one is meant; with two a choice is needed, and with none there is nothing to do."""
    assert shown(source_of(device="").read()) == STATS

    apply(fleet.device("gateway-8"))
    with pytest.raises(ConfigError, match="2 EdgeDevices could be meant"):
        source_of(device="").read()
    with pytest.raises(ConfigError, match="no EdgeDevice is named 'gateway-9'"):
        source_of(device="gateway-9").read()
    with pytest.raises(ConfigError, match="namespace elsewhere: there is no EdgeDevice"):
        source_of(device="", namespace="elsewhere").read()


# Least privilege


def test_objects_are_asked_for_by_name(apply, server, source_of):
    """A role that names device, set, ConfigMap and Secret is enough: nobody else's are read."""
    apply(fleet.device(member_of="set"), fleet.workload(), fleet.device_set("set", fleet.s3("of-the-set")), OF_SET)
    apply(EXTERNAL, CLAIM)

    source_of().read()

    asked = {(r.plural, r.query.get("fieldSelector"), r.namespace) for r in server.requests}
    assert asked == {
        ("edgedevices", f"metadata.name={fleet.DEVICE}", "fleet"),
        ("edgedevicesets", "metadata.name=set", "fleet"),
        ("edgeworkloads", None, "fleet"),
        ("configmaps", "metadata.name=of-the-set", "fleet"),
        ("secrets", "metadata.name=of-the-set", "fleet"),
    }
    assert {r.verb for r in server.requests} <= {"list", "watch"}


def test_set_that_may_not_be_read_is_ignored_and_told(apply, server, source_of, caplog):
    """The device's own storage counts, and the log says so."""
    apply(fleet.device(member_of="set"), fleet.workload(), fleet.device_set("set", fleet.s3("of-the-set")), EXTERNAL)
    server.answer(403, plural="edgedevicesets", times=math.inf)

    assert source_of().read()[0].storage.bucket == "device-bucket-6"
    assert "device set cannot be read, the device's own storage counts" in caplog.messages


async def test_secret_that_may_not_be_read_is_named(home, server, source_of, followed, next_of):
    """The error names object and remedy; once the role allows it, the targets are there."""
    answer = server.answer(403, plural="secrets", times=math.inf)
    stream = followed(source_of())

    assert await next_of(stream) == ()
    error = await next_of(stream)
    assert (error.where, error.problem) == ("Secret fleet/external", "may not be read")
    answer.times = 0
    assert shown(await next_of(stream)) == STATS


# Changes


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ([fleet.workload("more", data={"egress": [{"source": "a", "target": "b"}]})], [*STATS, "more/egress/b"]),
        ([fleet.workload(data={"egress": [{"source": "stats", "target": "else"}]})], ["os-stats/egress/else"]),
        ([fleet.workload(deviceSelector={"matchLabels": {"dc": "away"}})], []),
        ([fleet.device(dc="away")], []),
        ([fleet.config_map(bucket="another")], "another"),
        ([fleet.secret(AWS_SECRET_ACCESS_KEY="rotated-0")], "device-bucket-6"),
        ([CLAIM, fleet.device(obc="the-claim")], "claimed"),
        ([OF_SET, fleet.device_set("set", fleet.s3("of-the-set")), fleet.device(member_of="set")], "of-the-set"),
        ([OF_SET, fleet.device(spec=fleet.s3("of-the-set"))], "of-the-set"),
    ],
)
async def test_change_is_told(home, apply, source_of, followed, next_of, change, answer):
    """Each object that counts is watched: what it says now is the next snapshot."""
    stream = followed(source_of())
    first = await next_of(stream)

    apply(change)

    second = await next_of(stream)
    assert second != first
    assert (second[0].storage.bucket if isinstance(answer, str) else shown(second)) == answer


async def test_what_is_no_change_is_not_told(home, apply, server, source_of, followed, next_of):
    """A heartbeat on the status, other objects and watches that end are nothing new."""
    stream = followed(source_of())
    await next_of(stream)

    server.edit("edgedevices", "fleet", fleet.DEVICE, {"status": {"phase": "up"}})
    apply(fleet.device("gateway-8"), fleet.workload("other", device="gateway-8"), CLAIM)
    server.close_watches()
    server.compact()
    apply(fleet.config_map(bucket="another"))

    assert (await next_of(stream))[0].storage.bucket == "another"


async def test_changes_are_waited_for_together():
    """What changes while the first change settles is part of it."""
    changed = asyncio.Event()
    changed.set()
    asyncio.get_running_loop().call_later(0.05, changed.set)

    assert await kubernetes._has_changed(changed, settle_s=0.2)
    assert not changed.is_set()


async def test_words_that_are_no_longer_named_are_no_longer_watched(home, apply, server, source_of, followed, next_of):
    """A device that moves to a claim lets go of the external storage's Secret."""
    stream = followed(source_of())
    await next_of(stream)

    apply(CLAIM, fleet.device(obc="the-claim"))
    await next_of(stream)

    async with asyncio.timeout(5):
        while server.watching("secrets") != 1:
            await asyncio.sleep(0.01)


# What is not there yet, or no more


async def test_claim_that_is_not_bound_is_waited_for(apply, source_of, followed, next_of):
    """The start runs nothing and says why; once the provisioner has written its words, the targets are there."""
    apply(fleet.device(obc="the-claim"), fleet.workload())
    stream = followed(source_of())

    assert await next_of(stream) == ()
    assert shown(await next_of(stream)) == "ConfigMap fleet/the-claim is not there"
    apply(CLAIM)
    assert shown(await next_of(stream)) == STATS


@pytest.mark.fault("E10")
async def test_renamed_key_and_missing_secret_wait_with_their_reason(home, apply, server, source_of, followed, next_of):
    """Each is an error beside which the last good configuration stays; put right, the same targets are told again."""
    stream = followed(source_of())
    good = await next_of(stream)

    server.edit("secrets", "fleet", "external", {"data": {"AWS_ACCESS_KEY_ID": None, "ACCESS_KEY": "a2V5"}})
    error = await next_of(stream)
    assert (error.where, error.problem) == ("Secret fleet/external: AWS_ACCESS_KEY_ID", "is missing")
    server.delete("secrets", "fleet", "external")
    assert shown(await next_of(stream)) == "Secret fleet/external is not there"
    apply(fleet.secret())
    assert await next_of(stream) == good


async def test_deleted_device_ends_what_runs(apply, server, source_of, followed, next_of, kept):
    """deletionTimestamp is enough, the finalizer of others does not matter; once it is gone, no copy is left."""
    held = fleet.device()
    held["metadata"]["finalizers"] = ["device-finalizer"]
    apply(held, fleet.workload(), EXTERNAL)
    stream = followed(source_of())
    await next_of(stream)
    assert kept.exists()

    server.delete("edgedevices", "fleet", fleet.DEVICE)

    assert await next_of(stream) == ()
    assert kept.exists()
    server.edit("edgedevices", "fleet", fleet.DEVICE, {"metadata": {"finalizers": None}})
    waiting = asyncio.ensure_future(next_of(stream, 60))
    async with asyncio.timeout(10):
        while kept.exists():
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.fault("E4")
async def test_device_that_is_made_anew_is_another(home, apply, server, source_of, followed, next_of):
    """Its removal ends what runs; the new one under its name is told as any other, by its own words."""
    stream = followed(source_of())
    await next_of(stream)

    server.delete("edgedevices", "fleet", fleet.DEVICE)
    apply(CLAIM, fleet.device(obc="the-claim"))

    assert await next_of(stream) == ()
    assert (await next_of(stream))[0].storage.bucket == "claimed"


# What the cluster is told

REPORT = Report((Standing("os-stats", Stand.SYNCED),), is_drained=True, at_ts=1_800_000_000.0)


def replication(server) -> dict:
    """What stands in the device's status."""
    status: dict = server.get("edgedevices", "fleet", fleet.DEVICE).get("status", {})
    return status.get("replication", {})


async def test_report_stands_in_the_status_and_changes_nothing(home, apply, server, source_of, followed, next_of):
    """A device that stays is not drained, whatever ran before; and its own report is no new configuration."""
    source = source_of()
    stream = followed(source)
    await next_of(stream)

    await source.tell(REPORT)

    assert replication(server)["pendingFiles"] == 0
    assert "drainedAt" not in replication(server)
    apply(fleet.config_map(bucket="another"))
    assert (await next_of(stream))[0].storage.bucket == "another"


async def test_drained_is_said_of_a_device_that_has_left(apply, server, source_of, followed, next_of, kept):
    """Not before what ran has ended, and until it stands in the status nothing is forgotten."""
    held = fleet.device()
    held["metadata"]["finalizers"] = ["device-finalizer"]
    apply(held, fleet.workload(), EXTERNAL)
    source = source_of()
    stream = followed(source)
    await next_of(stream)
    server.delete("edgedevices", "fleet", fleet.DEVICE)
    assert await next_of(stream) == ()

    await source.tell(REPORT)  # of the time before it was parted with
    assert "drainedAt" not in replication(server)
    waiting = asyncio.ensure_future(next_of(stream, 60))
    await asyncio.sleep(0)
    server.answer(403, plural="edgedevices", subresource="status")
    with pytest.raises(ClusterError):
        await source.tell(REPORT)
    assert kept.exists()
    await source.tell(REPORT)

    assert replication(server)["drainedAt"]
    assert not kept.exists()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_drained_waits_for_the_targets_of_a_start_beside_a_departure(apply, server, source_of, followed, next_of):
    """That nothing runs yet is no proof: what would run is told, run and ended first."""
    held = fleet.device()
    held["metadata"]["finalizers"] = ["device-finalizer"]
    apply(held, fleet.workload())
    server.delete("edgedevices", "fleet", fleet.DEVICE)
    source = source_of()
    stream = followed(source)
    assert await next_of(stream) == ()
    assert "is not there" in shown(await next_of(stream))
    apply(EXTERNAL)
    assert shown(await next_of(stream)) == STATS

    await source.tell(REPORT)

    assert "drainedAt" not in replication(server)
    assert await next_of(stream) == ()


@pytest.mark.parametrize("settings", [{"volumes_dir": ""}, {"workload": "os-stats"}, {"kubernetes_heartbeat_s": "0"}])
async def test_who_does_not_know_the_whole_device_tells_nothing_of_it(
    home, server, source_of, settings, followed, next_of
):
    """Two sidecars of one device would each overwrite what the other told, and one's drain is not the device's."""
    source = source_of(**settings)
    await next_of(followed(source))

    await source.tell(REPORT)

    assert source.heartbeat_s == 0
    assert replication(server) == {}


async def test_device_that_is_not_known_is_not_told_of(server, source_of):
    """Before anything was heard there is no object to write to."""
    await source_of().tell(REPORT)

    assert list(server.requests) == []


# An API server in trouble


@pytest.mark.fault("E2")
async def test_start_while_the_api_server_is_away(home, server, source_of, followed, next_of):
    """The last good configuration moves data, silence is told with its age, and the next word ends both."""
    good = await asyncio.to_thread(source_of().read)
    server.stop()
    stream = followed(source_of(patience_s=0.1, silence_s=0.1))

    assert await next_of(stream) == good
    error = await next_of(stream)
    assert error.where == server.url
    assert ", in force is what it said on " in error.problem
    server.start()
    assert await next_of(stream) == good


@pytest.mark.fault("E2")
async def test_hour_of_silence_is_told_with_its_age_and_changes_nothing(
    home, apply, server, source_of, followed, next_of, monkeypatch
):
    """By the clock that beliefs go by: what is in force stays, and what changed meanwhile is the next thing told."""
    away_s = [0.0]
    clock = Rhythm(pause_s=lambda _: 0.01, doubt_s=0.05, clock=lambda: time.monotonic() + away_s[0])
    source = source_of(silence_s=150.0)
    monkeypatch.setattr(watched, "Mirror", functools.partial(Mirror, rhythm=clock))
    stream = followed(source)
    assert shown(await next_of(stream)) == STATS

    server.stop()
    away_s[0] = 3600.0
    told = shown(await next_of(stream))
    since = dt.datetime.fromisoformat(told.removeprefix("has not been heard since ")[:19]).replace(tzinfo=dt.UTC)
    assert dt.datetime.now(dt.UTC) - since >= dt.timedelta(seconds=3599)
    apply(fleet.config_map(bucket="another"))
    server.start()

    assert (await next_of(stream))[0].storage.bucket == "another"


@pytest.mark.fault("E2")
async def test_start_with_nothing_kept_waits_for_the_api_server(home, server, source_of, followed, next_of):
    """Nothing runs, the reason is told, and it begins by itself."""
    server.stop()
    stream = followed(source_of(patience_s=0.1))

    assert await next_of(stream) == ()
    assert "has not been heard since" in shown(await next_of(stream))
    server.start()
    assert shown(await next_of(stream)) == STATS


@pytest.mark.fault("E2")
async def test_flapping_api_server_changes_nothing(home, apply, server, source_of, followed, next_of):
    """However often it goes and comes, the next thing told is the next change."""
    stream = followed(source_of())
    await next_of(stream)

    for _ in range(3):
        server.stop()
        server.start()
    apply(fleet.config_map(bucket="another"))

    assert (await next_of(stream))[0].storage.bucket == "another"


@pytest.mark.fault("E3")
async def test_empty_list_after_an_outage_removes_nothing(home, apply, server, source_of, followed, next_of):
    """Two empty answers are not believed, neither about workloads nor about the device and its words."""
    stream = followed(source_of())
    await next_of(stream)

    for plural in ("edgedevices", "edgeworkloads", "configmaps", "secrets"):
        server.empty_lists(plural, times=2)
    server.compact()
    server.stop()
    server.start()
    apply(fleet.config_map(bucket="another"))

    assert (await next_of(stream))[0].storage.bucket == "another"


@pytest.mark.fault("E3")
async def test_device_that_lists_no_longer_show_is_not_taken_for_deleted(home, server, source_of, followed, next_of):
    """Absence is an error however often it is repeated; what runs goes on."""
    stream = followed(source_of())
    good = await next_of(stream)

    absence = server.empty_lists("edgedevices", times=math.inf)
    server.compact()
    server.stop()
    server.start()

    assert "no EdgeDevice is named" in shown(await next_of(stream))
    absence.times = 0
    server.compact()
    server.stop()
    server.start()
    assert await next_of(stream) == good


@pytest.mark.fault("F9")
async def test_nothing_tells_the_secret(home, server, source_of, followed, next_of, caplog):
    """Neither log nor error quotes a word of a Secret, plain or in base64."""
    caplog.set_level("DEBUG")
    stream = followed(source_of())
    await next_of(stream)

    server.edit("secrets", "fleet", "external", {"data": {"AWS_SECRET_ACCESS_KEY": "no base64: " + fleet.SECRET_TEXT}})
    error = await next_of(stream)

    assert error.problem == "is not base64 of text"
    for text in (fleet.SECRET_TEXT, fleet.b64(fleet.SECRET_TEXT)):
        assert text not in caplog.text + str(error)


# Which source


@pytest.mark.fault("D6")
@pytest.mark.parametrize(("chosen", "bucket"), [("env", "of-env"), ("files", "of-files"), ("kubernetes", "claimed")])
def test_setting_alone_decides_between_the_sources(apply, server, tmp_path, chosen, bucket):
    """Where all of them have words for this device, those of REPLICATOR_SOURCE are in force, unmixed."""
    apply(fleet.device(obc="the-claim"), fleet.workload(), CLAIM)
    mount = tmp_path / "manifests/storage/obc"
    mount.mkdir(parents=True)
    words = {"BUCKET_HOST": "h", "BUCKET_NAME": "of-files", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for word, text in words.items():
        (mount / word).write_text(text)
    (tmp_path / "manifests/w.yaml").write_text(
        "{kind: EdgeWorkload, metadata: {name: os-stats}, spec: {data: {egress: [{source: a, target: b}]}}}"
    )
    environ = {f"OBC_{word}": text for word, text in words.items()} | {
        "OBC_BUCKET_NAME": "of-env",
        "KUBECONFIG": str(server.kubeconfig(tmp_path / "kubeconfig", namespace=fleet.NAMESPACE)),
        "REPLICATOR_SOURCE": chosen,
        "REPLICATOR_MANIFESTS_DIR": str(tmp_path / "manifests"),
        "REPLICATOR_STATE_DIR": str(tmp_path / "state"),
        **({"REPLICATOR_EGRESS": "stats=statistics"} if chosen == "env" else {}),
    }

    (target,) = make_source(load({}, environ).settings, environ).read()

    assert target.storage.bucket == bucket


@pytest.mark.parametrize("settings", [{"device": "a,metadata.name!=b"}, {"device": "../x"}, {"workload": "A b"}])
def test_setting_that_names_no_object_is_refused(server, source_of, settings):
    """It would be part of a selector; nothing is asked."""
    with pytest.raises(ConfigError, match="is no object's name"):
        source_of(**settings).read()
    assert list(server.requests) == []


def test_without_a_cluster_there_is_no_source(tmp_path):
    """No kubeconfig and no service account is a mistake to be told at once."""
    with pytest.raises(ConfigError, match="no API server is known"):
        make_source(load({"source": "kubernetes"}, {}).settings, {"HOME": str(tmp_path)})
