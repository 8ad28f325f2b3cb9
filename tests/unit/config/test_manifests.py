"""The shapes of Flotta's and Kubernetes' objects, and which devices a workload selects."""

import base64

import pytest
import yaml
from pydantic import ValidationError

from replicator.config.manifests import ConfigMap, DataPath, EdgeDevice, EdgeWorkload, Secret, parse


def read_one(text, where="f.yaml"):
    (found,) = parse(text, where=where)
    return found


def workload(spec, **metadata):
    return read_one(yaml.safe_dump({"kind": "EdgeWorkload", "metadata": {"name": "w"} | metadata, "spec": spec}))


def device(name="d", **metadata):
    return read_one(yaml.safe_dump({"kind": "EdgeDevice", "metadata": {"name": name} | metadata}))


# The samples


def test_workload_of_one_direction(manifest):
    """os-stats sends one directory and fetches nothing."""
    found = read_one(manifest("os-stats.yaml"), where="os-stats.yaml")

    assert isinstance(found, EdgeWorkload)
    assert found.where == "os-stats.yaml"
    assert found.spec.data.egress == (DataPath(source="stats", target="statistics"),)
    assert found.spec.data.ingress == ()


def test_workload_of_both_directions(manifest):
    """telemetry sends two directories and fetches one."""
    data = read_one(manifest("telemetry.yaml")).spec.data

    assert [(path.source, path.target) for path in data.egress] == [
        ("local/upload/log", "remote/log"),
        ("local/upload/telemetry", "remote/telemetry"),
    ]
    assert [(path.source, path.target) for path in data.ingress] == [("remote/data", "local/download/data")]


def test_device_with_external_storage(manifest):
    """A device names its ConfigMap and Secret; what else its spec holds passes."""
    found = read_one(manifest("edgedevice.yaml"))

    assert isinstance(found, EdgeDevice)
    assert (found.s3.config_map_name, found.s3.secret_name) == ("s3configmap-name", "s3secret-name")
    assert not found.s3.create_obc
    assert found.status.data_obc == ""
    assert found.full_name == "EdgeDevice edgedevice-namespace/242e48d0-286b-4170-9b97-95502066e6ae"


def test_device_with_claim():
    """status.dataObc names the claim, spec.storage.s3.createOBC asks for one."""
    found = read_one(
        "{kind: EdgeDevice, metadata: {name: d}, spec: {storage: {s3: {createOBC: true}}}, status: {dataObc: d}}"
    )

    assert (found.status.data_obc, found.s3.create_obc) == ("d", True)


def test_secret_is_decoded_once(manifest):
    """One layer of base64 is taken off, what is beneath stays as it is."""
    secret = read_one(manifest("s3secret.yaml"))

    assert isinstance(secret, Secret)
    assert secret.decoded("AWS_ACCESS_KEY_ID") == "ydayagi1369"
    assert secret.decoded("tls.crt") is None


def test_value_that_looks_like_base64_stays():
    """A key that is itself base64 text is not decoded twice."""
    inner = base64.b64encode(b"inner").decode()
    secret = Secret(metadata={"name": "s"}, data={"k": base64.b64encode(inner.encode()).decode()})

    assert secret.decoded("k") == inner


def test_string_data_is_plain_and_stronger():
    """stringData needs no encoding and wins over data, as in Kubernetes."""
    secret = read_one("{kind: Secret, metadata: {name: s}, data: {k: AAAA}, stringData: {k: plain, l: AAAA}}")

    assert (secret.decoded("k"), secret.decoded("l")) == ("plain", "AAAA")


def test_base64_may_be_folded():
    """Line breaks in base64, as `base64` prints them, are no fault."""
    secret = read_one("kind: Secret\nmetadata: {name: s}\ndata:\n  k: |\n    eWRheWFn\n    aTEzNjk=\n")

    assert secret.decoded("k") == "ydayagi1369"


@pytest.mark.parametrize("text", ["plain text", "eWRh*", "eWRhe", base64.b64encode(b"\xff\xfe").decode()])
def test_bad_base64_names_secret_and_key(text, refusal):
    """What is not base64 of text is told by resource and key, never by value."""
    secret = Secret.of({"metadata": {"name": "s", "namespace": "n"}, "data": {"k": text}}, where="s.yaml", fix="")

    error = refusal(secret.decoded, "k")

    assert (error.where, error.problem) == ("Secret n/s: k", "is not base64 of text")
    assert "s.yaml" in error.fix
    assert text not in str(error)


@pytest.mark.fault("F9")
def test_secret_is_not_shown():
    """Neither the values nor their encoding appear when a Secret is printed."""
    secret = Secret(metadata={"name": "s"}, data={"k": "aGlkZGVu"}, stringData={"l": "hidden"})

    assert "aGlkZGVu" not in repr(secret)
    assert "hidden" not in repr(secret)


# What passes


def test_other_kinds_are_ignored(manifest):
    """Pods, and objects of other groups that share a kind's name, are not ours."""
    text = (
        manifest("pod.yaml")
        + "---\n{apiVersion: other.io/v1, kind: Secret, data: 5}\n---\n{kind: EdgeDeviceSignedRequest}\n"
    )

    assert parse(text, where="f") == ()


def test_several_documents_are_told_apart(manifest):
    """Each object knows its document, empty ones do not count."""
    text = "---\n" + manifest("s3configmap.yaml") + "---\n---\n" + manifest("s3secret.yaml")

    found = parse(text, where="all.yaml")

    assert [(type(one), one.where) for one in found] == [
        (ConfigMap, "all.yaml document 1"),
        (Secret, "all.yaml document 2"),
    ]


def test_list_is_unfolded():
    """`kubectl get -o yaml` prints a List."""
    found = parse(
        "kind: List\napiVersion: v1\nitems:\n- {kind: ConfigMap, metadata: {name: a}}\n- {kind: Pod}\n", where="f"
    )

    assert [one.metadata.name for one in found] == ["a"]


@pytest.mark.parametrize(
    "data", ["{egress: null, ingress: null}", "{ingress: null}", "{}", "null", "{egress: [], ingress: []}"]
)
def test_absent_data_is_no_data(data):
    """Null and empty lists mean 'no mapping', as Flotta writes them."""
    found = read_one(f"{{kind: EdgeWorkload, metadata: {{name: w}}, spec: {{data: {data}}}}}")

    assert (found.spec.data.egress, found.spec.data.ingress) == ((), ())


def test_foreign_fields_pass():
    """What belongs to Kubernetes or to other parts of Flotta is not looked at."""
    found = workload({"type": "pod", "pod": {"spec": {"containers": 5}}, "metrics": None}, annotations=[], uid=7)

    assert found.spec.data.egress == ()


# What does not


@pytest.mark.parametrize(
    ("spec", "where", "problem"),
    [
        ({"data": {"egres": []}}, "spec.data", "unknown key 'egres' (did you mean egress?)"),
        (
            {"data": {"egress": [{"source": "a", "target": "b"}, {"source": "a", "traget": "b"}]}},
            "spec.data.egress[1]",
            "unknown key 'traget' (did you mean target?)",
        ),
        ({"data": {"egress": [{"source": "a"}]}}, "spec.data.egress[0].target", "is missing"),
        ({"data": {"egress": [{"source": None, "target": "b"}]}}, "spec.data.egress[0].source", "is missing"),
        ({"data": {"egress": [{"source": 5, "target": "b"}]}}, "spec.data.egress[0].source", "must be a text"),
        ({"data": {"egress": [None]}}, "spec.data.egress[0]", "must be a mapping"),
        ({"data": {"egress": {"source": "a"}}}, "spec.data.egress", "must be a list"),
        ({"data": []}, "spec.data", "must be a mapping"),
        ({"data": {"ingress": "x"}}, "spec.data.ingress", "must be a list"),
        ({"deviceSelector": {"matchLables": {}}}, "spec.deviceSelector", "unknown key 'matchLables'"),
        ({"deviceSelector": {"matchLabels": {"dc": True}}}, "spec.deviceSelector.matchLabels.dc", "must be a text"),
        (
            {"deviceSelector": {"matchExpressions": [{"key": "dc", "operator": "in", "values": ["x"]}]}},
            "spec.deviceSelector.matchExpressions[0].operator",
            "must be 'In', 'NotIn', 'Exists' or 'DoesNotExist'",
        ),
        (
            {"deviceSelector": {"matchExpressions": [{"key": "dc", "operator": "In"}]}},
            "spec.deviceSelector.matchExpressions[0]",
            "operator In needs values",
        ),
        (
            {"deviceSelector": {"matchExpressions": [{"key": "dc", "operator": "Exists", "values": ["x"]}]}},
            "spec.deviceSelector.matchExpressions[0]",
            "operator Exists takes no values",
        ),
    ],
)
def test_fault_in_our_sections_is_named_by_file_and_field(spec, where, problem, refusal):
    """A misspelt or mistyped word of ours is never ignored."""
    error = refusal(workload, spec)

    assert error.where == f"f.yaml: {where}"
    assert error.problem.startswith(problem)


def test_unknown_key_of_a_device_is_named(refusal):
    """spec.storage.s3 is ours: a misspelt name there would mean 'no external storage'."""
    text = "{kind: EdgeDevice, metadata: {name: d}, spec: {storage: {s3: {configMap: x}, other: 1}}}"

    error = refusal(parse, text, where="d.yaml")

    assert error.where == "d.yaml: spec.storage.s3"
    assert error.problem == "unknown key 'configMap' (did you mean configMapName?)"


@pytest.mark.parametrize("text", ["[]", "text", "{metadata: {name: x}}", "{kind: 5}", "kind: List\nitems: [5]"])
def test_what_is_no_object_is_refused(text, refusal):
    """A file of this directory that holds no Kubernetes object was put there by mistake."""
    error = refusal(parse, text, where="f.yaml")

    assert (error.where, error.problem) == ("f.yaml", "is not a Kubernetes object: it has no kind")


@pytest.mark.parametrize("metadata", ["null", "{}", "{name: ''}", "{name: 5}"])
def test_object_without_name_is_refused(metadata, refusal):
    """Every object has a name."""
    assert refusal(parse, f"{{kind: Secret, metadata: {metadata}}}", where="f").where.startswith("f: metadata")


def test_unquoted_number_in_a_configmap_says_what_to_do(refusal):
    """BUCKET_PORT without quotes is YAML's number; Kubernetes refuses it too."""
    error = refusal(parse, "{kind: ConfigMap, metadata: {name: c}, data: {BUCKET_PORT: 443}}", where="f")

    assert (error.where, error.problem) == (
        "f: data.BUCKET_PORT",
        "must be a text, in quotes if it looks like a number",
    )


@pytest.mark.fault("F9")
def test_fault_in_a_secret_quotes_nothing(refusal, secret_text):
    """A mistyped Secret is refused without its words, by us (the refusal fixture looks for them) and by pydantic."""
    refusal(parse, f"{{kind: Secret, metadata: {{name: s}}, data: [{secret_text}]}}", where="f")

    with pytest.raises(ValidationError) as caught:
        Secret.model_validate({"metadata": {"name": "s"}, "data": [secret_text]})

    assert secret_text not in str(caught.value)


# Selection

HOME = {"dc": "home", "tier": "edge"}


@pytest.mark.parametrize(
    ("spec", "is_selected"),
    [
        ({}, False),
        ({"deviceSelector": None}, False),
        ({"deviceSelector": {}}, True),
        ({"deviceSelector": {"matchLabels": {}, "matchExpressions": []}}, True),
        ({"deviceSelector": {"matchLabels": None}}, True),
        ({"device": "d"}, True),
        ({"device": "d", "deviceSelector": {"matchLabels": {"dc": "away"}}}, True),
        ({"device": "other", "deviceSelector": {}}, False),
        ({"device": "", "deviceSelector": {}}, True),
        ({"device": "", "deviceSelector": None}, False),
        ({"deviceSelector": {"matchLabels": {"dc": "home"}}}, True),
        ({"deviceSelector": {"matchLabels": {"dc": "home", "tier": "edge"}}}, True),
        ({"deviceSelector": {"matchLabels": {"dc": "home", "tier": "core"}}}, False),
        ({"deviceSelector": {"matchLabels": {"absent": "x"}}}, False),
    ],
)
def test_workload_selects_by_name_then_by_labels(spec, is_selected):
    """spec.device wins; an empty selector is all, no selector none."""
    assert workload(spec).selects(device(labels=HOME)) is is_selected


@pytest.mark.parametrize(
    ("key", "operator", "values", "is_selected"),
    [
        ("dc", "In", ["away", "home"], True),
        ("dc", "In", ["away"], False),
        ("absent", "In", ["home"], False),
        ("dc", "NotIn", ["away"], True),
        ("dc", "NotIn", ["home"], False),
        ("absent", "NotIn", ["home"], True),
        ("dc", "Exists", [], True),
        ("absent", "Exists", [], False),
        ("dc", "DoesNotExist", [], False),
        ("absent", "DoesNotExist", [], True),
    ],
)
def test_expressions_mean_what_kubernetes_means(key, operator, values, is_selected):
    """Each operator, with and without the label; labels and expressions must all hold."""
    expression = {"key": key, "operator": operator, "values": values}
    alone = workload({"deviceSelector": {"matchExpressions": [expression]}})
    together = workload({"deviceSelector": {"matchExpressions": [expression], "matchLabels": {"tier": "core"}}})

    assert alone.selects(device(labels=HOME)) is is_selected
    assert not together.selects(device(labels=HOME))


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"), [("a", "a", True), ("a", "b", False), ("", "b", True), ("a", "", True)]
)
def test_selection_stays_in_the_namespace(ours, theirs, fits):
    """A workload never selects across namespaces; a manifest that names none fits any."""
    found = workload({"deviceSelector": {}}, namespace=ours)

    assert found.selects(device(namespace=theirs)) is fits
