"""Settings: precedence, origins, bounds, and one readable error for whatever is wrong."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.bandwidth import Allowance, Caps
from replicator.config.settings import FLAGS, Settings, load, text_of
from replicator.errors import ConfigError

BY_NAME = {flag.name: flag for flag in FLAGS}


@pytest.fixture
def settings_file(tmp_path):
    """Writes a settings file and returns its path."""

    def write(text):
        path = tmp_path / "replicator.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# Where a value comes from


def test_nothing_given_is_the_defaults():
    """Without any word all settings have their default, and say so."""
    loaded = load({}, {"PATH": "/bin", "replicator_transfers": "3"})

    assert loaded.settings == Settings()
    assert loaded.origins == dict.fromkeys(BY_NAME, "default")


@pytest.mark.fault("D6")
def test_flag_beats_environment_beats_file_beats_default(settings_file):
    """Each setting comes from the strongest place that names it, and its origin names that place."""
    path = settings_file("transfers: 2\nretry_max_s: 2\nparked_retry_s: 2\n")
    environ = {"REPLICATOR_CONFIG": path, "REPLICATOR_TRANSFERS": "3", "REPLICATOR_RETRY_MAX_S": "3"}

    loaded = load({"transfers": "4"}, environ)

    names = ("transfers", "retry_max_s", "parked_retry_s", "read_timeout_s", "config")
    assert [getattr(loaded.settings, name) for name in names[:4]] == [4, 3, 2, 30]
    assert [loaded.origins[name] for name in names] == [
        "flag --transfers",
        "environment REPLICATOR_RETRY_MAX_S",
        f"file {path}: parked_retry_s",
        "default",
        "environment REPLICATOR_CONFIG",
    ]


def test_flag_names_another_file_than_the_environment(settings_file):
    """The file that counts is the one that the stronger word names; the other is not even opened."""
    loaded = load({"config": settings_file("device: d")}, {"REPLICATOR_CONFIG": "/absent"})

    assert loaded.settings.device == "d"


def test_value_from_a_file_of_its_own(tmp_path):
    """REPLICATOR_X_FILE is the setting's value without its line end."""
    (tmp_path / "name").write_text("pump-7\n")

    loaded = load({}, {"REPLICATOR_DEVICE_FILE": str(tmp_path / "name")})

    assert loaded.settings.device == "pump-7"
    assert loaded.origins["device"] == "environment REPLICATOR_DEVICE_FILE"


def test_value_and_file_at_once_are_refused(refusal):
    """Two words for one setting in one place are not weighed against each other."""
    error = refusal(load, {}, {"REPLICATOR_DEVICE": "a", "REPLICATOR_DEVICE_FILE": "/b"})

    assert (error.where, error.problem) == ("environment REPLICATOR_DEVICE", "REPLICATOR_DEVICE_FILE is set as well")


def test_path_of_the_settings_file_is_not_itself_in_a_file(refusal):
    """REPLICATOR_CONFIG_FILE is what people write for REPLICATOR_CONFIG, so it must not mean something else."""
    assert "did you mean REPLICATOR_CONFIG?" in refusal(load, {}, {"REPLICATOR_CONFIG_FILE": "/etc/x.yaml"}).problem


# Every setting in every place


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_setting_has_option_help_and_a_default_that_can_be_given(flag):
    """What `--help` and the samples show as default is accepted and changes nothing."""
    assert flag.option == f"--{flag.name.replace('_', '-')}"
    assert flag.variable == f"REPLICATOR_{flag.name.upper()}"
    assert flag.help.endswith(".")
    assert len(flag.help) <= 120
    assert load({flag.name: flag.default}, {}).settings == Settings()
    assert load({}, {flag.variable: flag.default}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("source", "files", "files"),
        ("sweep_interval_s", "1.5", 1.5),
        ("transfers", " 8 ", 8),
        ("restore_deleted", "no", False),
        ("log_level", "WARNING", "warning"),
        ("http_listen", "[::]:9477", "[::]:9477"),
        ("http_listen", "", ""),
        ("include", "*.csv, logs/**", ("*.csv", "logs/**")),
        ("include", '["a,b"]', ("a,b",)),
        ("s3_engine", "obstore", "obstore"),
        ("priority", "-3", -3),
        ("delete_after_upload", "yes", True),
        ("resume_after_s", "0", 0),
        ("data_budget", "10GiB/30d", Allowance(10 * 2**30, 30 * 86400)),
        ("ingress_marker", "sub/_manifest", "sub/_manifest"),
        ("ingress_audit_s", "60", 60),
        ("ingress_publish", "generation", "generation"),
    ],
)
def test_text_becomes_the_value(name, text, value):
    """Flags and variables are text; the setting has its own type."""
    assert getattr(load({name: text}, {}).settings, name) == value


@pytest.mark.parametrize(
    "text",
    [
        "stats=statistics,a/b = c/d,",
        '[{"source": "stats", "target": "statistics"}, {"source": "a/b", "target": "c/d"}]',
    ],
)
def test_mappings_are_pairs_or_json(text):
    """Both forms of egress and ingress mean the same."""
    settings = load({"egress": text}, {"REPLICATOR_INGRESS": text}).settings

    assert [(path.source, path.target) for path in settings.egress] == [("stats", "statistics"), ("a/b", "c/d")]
    assert settings.ingress == settings.egress


def test_file_may_hold_structure(settings_file):
    """In YAML, lists and mappings are written as such, null is 'not set'."""
    path = settings_file(
        "egress: [{source: stats, target: statistics}]\nexclude: ['*.tmp']\nvolumes_dir: null\n"
        "target_options: {'*/egress/*': {exclude: '*.bak', open_files: snapshot}}\n"
    )

    settings = load({"config": path}, {}).settings

    assert settings.egress[0].target == "statistics"
    assert settings.exclude == ("*.tmp",)
    assert settings.target_options["*/egress/*"].exclude == ("*.bak",)
    assert settings.target_options["*/egress/*"].quota_bytes is None


def test_options_in_json_are_the_same():
    """target_options on the command line is JSON."""
    settings = load({"target_options": '{"*": {"quota_bytes": 5}}'}, {}).settings

    assert settings.target_options["*"].quota_bytes == 5


def test_timetable_is_a_setting(settings_file):
    """Caps by the time of the week stand in one line, also in YAML."""
    path = settings_file("bandwidth: sat-sun 22:00-06:00 1KiB/s:2KiB/s, else unlimited\n")

    bandwidth = load({"config": path}, {}).settings.bandwidth

    assert (bandwidth.caps_at(6, 0), bandwidth.caps_at(0, 1200)) == (Caps(1024, 2048), Caps())


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_file_is_no_settings(text, settings_file):
    """A file with nothing in it is fine."""
    assert load({"config": settings_file(text)}, {}).settings.transfers == 16


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"egress": "a=b"},
        {"include": ["a,b"], "transfers": 3},
        {"volumes_dir": "/v", "restore_deleted": False, "sweep_interval_s": 2.25, "retry_max_s": 12345.6},
        {"target_options": {"*": {"quota_bytes": 1, "include": ["x"]}}},
        {"target_options": {"*": {"order": "pattern", "order_patterns": "a,b", "priority": 2}}},
        {"bandwidth": "sat 1M, else unlimited", "data_budget": "1GB/1d", "order": "pattern", "order_patterns": "a,b"},
    ],
)
def test_printed_value_can_be_given_again(given_, make_settings):
    """What `replicator settings` prints is what a flag takes."""
    settings = make_settings(**given_)

    again = load({name: text_of(getattr(settings, name)) for name in BY_NAME}, {}).settings

    assert again == settings


@pytest.mark.fault("F9")
def test_token_is_masked_wherever_it_is_shown(tmp_path, refusal):
    """Printed, dumped or refused: the token of notifications is never in it, also when it came from a file."""
    token = "token-of-a-test-0123"
    (tmp_path / "token").write_text(token + "\n")
    loaded = load({"notifications": "yes"}, {"REPLICATOR_NOTIFICATIONS_TOKEN_FILE": str(tmp_path / "token")})
    shown = [repr(loaded), str(loaded.settings), text_of(loaded.settings.notifications_token)]
    error = refusal(load, {"notifications_token": token + " and more"}, {})

    assert loaded.settings.notifications_token.get_secret_value() == token
    assert all(token not in text for text in (*shown, str(error)))


# What is refused


@pytest.mark.fault("D4", "D5")
@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("source", "nowhere", "must be 'env', 'files', 'edge-api' or 'kubernetes'"),
        ("transfers", "many", "must be an integer"),
        ("transfers", "0", "greater than or equal to 1"),
        ("transfers", "257", "less than or equal to 256"),
        ("transfers", "", "must be an integer"),
        ("sweep_interval_s", "0", "greater than or equal to 1"),
        ("sweep_interval_s", "1e9", "less than or equal to 3600"),
        ("sweep_interval_s", "nan", "finite number"),
        ("debounce_quiet_s", "-1", "greater than or equal to 0.01"),
        ("read_timeout_s", "inf", "finite number"),
        ("part_size_bytes", "5242879", "greater than or equal to 5242880"),
        ("quota_bytes", "-1", "greater than or equal to 0"),
        ("restore_deleted", "maybe", "must be true or false"),
        ("export_dir", "export", "must be an absolute path"),
        ("export_dir", "/", "must be an absolute path"),
        ("export_dir", "", "must be an absolute path"),
        ("volumes_dir", "/a/../..", "must be an absolute path"),
        ("state_dir", "/a\n", "must be an absolute path"),
        ("http_listen", "9477", "must be host:port"),
        ("http_listen", "localhost:99999", "must be host:port"),
        ("http_listen", ":9477", "must be host:port"),
        ("egress", "stats", "each mapping is source=target"),
        ("egress", "a=b=c", "each mapping is source=target"),
        ("egress", "[{", "is not valid JSON"),
        ("egress", "[" * 100_000, "is not valid JSON"),
        ("include", '[""]', "a pattern must not be empty"),
        ("include", "[1]", "must be a text"),
        ("s3_engine", "boto", "must be 'auto', 's3fs' or 'obstore'"),
        ("resume_after_s", "-1", "greater than or equal to 0"),
        ("order", "biggest", "must be 'oldest', 'newest', 'smallest' or 'pattern'"),
        ("priority", "1001", "less than or equal to 1000"),
        ("bandwidth", "mon 1M, sat 5 1M", "rule 2: times are HH:MM-HH:MM"),
        ("data_budget", "1GB", "must be bytes/period such as 10GiB/30d"),
        ("ingress_marker", "../_manifest", "must be a name beneath the prefix"),
        ("ingress_marker", "/_manifest", "must be a name beneath the prefix"),
        ("ingress_marker", "markers/", "must be a name beneath the prefix"),
        ("ingress_marker", "a\nb", "must be a name beneath the prefix"),
        ("ingress_marker", "x" * 121, "must not be longer than 120 bytes"),
        ("ingress_audit_s", "0", "greater than or equal to 1"),
        ("notifications_token", "too-short", "must be at least 16 printable ASCII characters"),
        ("notifications_token", "with a space in it", "must be at least 16 printable ASCII characters"),
        ("target_options", '{"*": {"ingress_marker": ".."}}', "must be a name beneath the prefix"),
        ("target_options", '{"*": {"priority": -1001}}', "greater than or equal to -1000"),
        ("target_options", '{"*": {"order": "x"}}', "must be 'oldest'"),
        ("target_options", "[]", "must be a mapping"),
        ("target_options", "x", "is not valid JSON"),
        ("target_options", '{"*": {"quota_bytes": true}}', "a yes or no stands where a number is needed"),
        ("target_options", '{"*": {"inclde": ["x"]}}', "unknown key 'inclde' (did you mean include?)"),
    ],
)
def test_wrong_value_is_one_error_with_place_and_meaning(name, text, problem, refusal):
    """A value that cannot be used names its variable, what is wrong with it and what the setting means."""
    error = refusal(load, {}, {BY_NAME[name].variable: text})

    assert error.where.startswith(f"environment {BY_NAME[name].variable}")
    assert problem in error.problem
    assert error.fix == f"{BY_NAME[name].option}: {BY_NAME[name].help}"


def test_field_inside_a_structure_is_named(refusal, settings_file):
    """The path leads to the very field."""
    path = settings_file("egress:\n- {source: a, target: b}\n- {source: a, tarjet: b}\n")

    error = refusal(load, {"config": path}, {})

    assert error.where == f"file {path}: egress[1]"
    assert error.problem == "unknown key 'tarjet' (did you mean target?)"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("transfers: yes", "a yes or no"),
        ("device: 7", "must be a text"),
        ("bandwidth: 7000", "must be a text"),
        ("data_budget: [1]", "must be a text"),
        ("priority: yes", "a yes or no"),
    ],
)
def test_yaml_types_are_not_bent(line, problem, refusal, settings_file):
    """A yes is no number and a number no name, though Python would take them."""
    path = settings_file(line)

    error = refusal(load, {"config": path}, {})

    assert error.where == f"file {path}: {line.partition(':')[0]}"
    assert error.problem.startswith(problem)


def test_patterns_of_all_targets_may_be_for_one(make_settings):
    """order_patterns may stand beside any order when some target's order is pattern."""
    settings = make_settings(order_patterns="a", target_options={"w/*": {"order": "pattern"}})

    assert settings.order_patterns == ("a",)


def test_several_faults_are_one_line(refusal):
    """The first fault is told, the others are named."""
    error = refusal(load, {"transfers": "x"}, {"REPLICATOR_QUOTA_BYTES": "x", "REPLICATOR_SOURCE": "x"})

    assert error.where == "environment REPLICATOR_SOURCE"
    assert error.problem.endswith("(2 more wrong: transfers, quota_bytes)")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"debounce_quiet_s": "3"}, "debounce_quiet_s is above debounce_ceiling_s"),
        ({"part_size_bytes": str(65 << 20)}, "part_size_bytes is above transfer_memory_bytes"),
        ({"state_dir": "/export/state"}, "state_dir lies in the export"),
        ({"state_dir": "/v/state", "volumes_dir": "/v"}, "state_dir lies in the export"),
        ({"order_patterns": "a"}, "order_patterns is only read with order pattern"),
        ({"source": "files", "egress": "a=b"}, "egress and ingress are only read with source env"),
        ({"notifications": "yes"}, "notifications needs notifications_token"),
        (
            {"notifications": "yes", "notifications_token": "x" * 16, "http_listen": ""},
            "notifications needs http_listen",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(flags, problem, refusal):
    """Settings that are right alone and wrong together say which they are."""
    assert refusal(load, flags, {}).problem.startswith(problem)


@pytest.mark.fault("D1")
@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("REPLICATOR_TRANSFER", "REPLICATOR_TRANSFERS"),
        ("REPLICATOR_SWEEP_INTERVAL", "REPLICATOR_SWEEP_INTERVAL_S"),
        ("REPLICATOR_EXPORTDIR", "REPLICATOR_EXPORT_DIR"),
        ("REPLICATOR_HTTP_PORT", "REPLICATOR_"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name(variable, nearest, refusal):
    """A misspelt setting is not ignored: that would be a silent default."""
    error = refusal(load, {}, {variable: "3"})

    assert error.where == f"environment {variable}"
    assert f"did you mean {nearest}" in error.problem


@pytest.mark.fault("D1")
def test_unknown_key_and_flag_are_refused(refusal, settings_file):
    """Misspelt words are found in every place."""
    path = settings_file("transfer: 3")

    in_file = refusal(load, {"config": path}, {})
    as_flag = refusal(load, {"transfer": "3"}, {})

    assert (in_file.where, in_file.problem) == (
        f"file {path}: transfer",
        "there is no such setting (did you mean transfers?)",
    )
    assert as_flag.where == "flag transfer"


@pytest.mark.parametrize("text", ["config: /other.yaml", "5: 6", "null: 1"])
def test_file_names_settings_only(text, refusal, settings_file):
    """A settings file cannot name another one, and its keys are names."""
    assert "there is no such setting" in refusal(load, {"config": settings_file(text)}, {}).problem


@pytest.mark.parametrize("text", ["- a", "text", "5", "a: 1\n---\nb: 2"])
def test_file_that_is_no_mapping_is_refused(text, refusal, settings_file):
    """Lists, scalars and several documents are not settings."""
    path = settings_file(text)

    error = refusal(load, {"config": path}, {})

    assert (error.where, error.problem) == (f"file {path}", "is not one YAML mapping")


@pytest.mark.fault("D1")
@pytest.mark.parametrize("text", ["a: [", "a: &x 1\nb: *x", "transfers: 1\ntransfers: 2", "a: " + "[" * 500])
def test_file_that_is_no_yaml_is_refused(text, refusal, settings_file):
    """Malformed, doubled and explosive YAML names the file."""
    path = settings_file(text)

    assert refusal(load, {"config": path}, {}).where.startswith(f"file {path}")


@pytest.mark.fault("D1")
def test_large_file_costs_no_memory(tmp_path, refusal):
    """50 MB of settings are refused by their size."""
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()

    error = refusal(load, {"config": str(path)}, {})

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.problem == "is larger than 1048576 bytes"
    assert peak < 500_000


def test_absent_file_is_refused(refusal):
    """A settings file that is named must be there."""
    assert refusal(load, {}, {"REPLICATOR_CONFIG": "/absent.yaml"}).where == "/absent.yaml"


# Kubernetes' own variables

SERVICE_LINKS = {
    "REPLICATOR_SERVICE_HOST": "10.0.0.1",
    "REPLICATOR_SERVICE_PORT": "9477",
    "REPLICATOR_SERVICE_PORT_METRICS": "9477",
    "REPLICATOR_PORT": "tcp://10.0.0.1:9477",
    "REPLICATOR_PORT_9477_TCP": "tcp://10.0.0.1:9477",
    "REPLICATOR_PORT_9477_TCP_PROTO": "tcp",
    "REPLICATOR_PORT_9477_TCP_PORT": "9477",
    "REPLICATOR_PORT_9477_TCP_ADDR": "10.0.0.1",
    "REPLICATOR_PORT_53_UDP": "udp://[fd00::1]:53",
}


@pytest.mark.parametrize("service", ["", "METRICS_", "EU_WEST_1_"])
def test_variables_of_services_are_ignored(service):
    """A Service called replicator, or replicator-something, puts words into every Pod that are not ours."""
    environ = {name.replace("REPLICATOR_", f"REPLICATOR_{service}", 1): value for name, value in SERVICE_LINKS.items()}

    assert load({}, environ).settings == Settings()


@pytest.mark.parametrize("variable", ["REPLICATOR_HTTP_PORT", "REPLICATOR_PORT", "REPLICATOR_X_PORT_80_TCP"])
def test_setting_that_ends_like_a_service_is_still_refused(variable, refusal):
    """Only what has a service's value is a service's."""
    assert refusal(load, {}, {variable: "9477"}).where == f"environment {variable}"


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_no_setting_looks_like_a_service(flag, refusal):
    """No Service name may ever switch a setting off: a wrong value of each is noticed."""
    environ = {flag.variable: "tcp://10.0.0.1:80"}

    if flag.name in ("device", "workload", "include", "exclude", "notifications_token"):
        assert load({}, environ).origins[flag.name] == f"environment {flag.variable}"
    else:
        refusal(load, {}, environ)


# Anything at all


@pytest.mark.fault("D1", "D5")
@given(
    environ=st.dictionaries(st.sampled_from([flag.variable for flag in FLAGS if flag.name != "config"]), st.text()),
    flags=st.dictionaries(st.sampled_from([name for name in BY_NAME if name != "config"]), st.text()),
)
def test_any_text_is_settings_or_a_config_error(environ, flags):
    """No text anywhere leads to a traceback."""
    try:
        load(flags, environ)
    except ConfigError as error:
        assert error.fix  # noqa: PT017 -- both outcomes are right


@pytest.mark.fault("D1")
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([name for name in BY_NAME if name != "config"]),
)
def test_any_structure_is_settings_or_a_config_error(tmp_path_factory, value, name):
    """No YAML value of any setting leads to a traceback."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(json.dumps({name: value}))
    try:
        load({"config": str(path)}, {})
    except ConfigError as error:
        assert error.fix  # noqa: PT017 -- both outcomes are right
