"""Mappings become targets; what is unsafe, ambiguous or loops is refused with file, field and fix."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from replicator.config.manifests import DataPath
from replicator.config.settings import Settings
from replicator.config.targets import MAX_TARGETS, WorkloadPaths, build, served
from replicator.errors import ConfigError
from replicator.model import Direction, Storage, TargetOptions

STORAGE = Storage("https://s3", "bucket", "us-east-1", SecretStr("a"), SecretStr("b"))
DEVICE = {"volumes_dir": "/volumes"}


def workload(egress=(), ingress=(), name="w"):
    """Mappings as written: pairs of source and target."""
    return WorkloadPaths(
        workload=name,
        egress=tuple(DataPath(source=source, target=target) for source, target in egress),
        ingress=tuple(DataPath(source=source, target=target) for source, target in ingress),
        egress_where=f"{name}.yaml: spec.data.egress",
        ingress_where=f"{name}.yaml: spec.data.ingress",
    )


def targets_of(*workloads, **settings):
    return build(workloads, storage=STORAGE, settings=Settings.model_validate(settings))


# What a mapping means


def test_directions_read_the_words_their_own_way():
    """Egress sends source to target; ingress fetches source into target."""
    egress, ingress = targets_of(workload(egress=[("stats", "statistics")], ingress=[("remote/data", "download")]))

    assert (egress.direction, egress.subdir, egress.prefix.text) == (Direction.EGRESS, "stats", "statistics/")
    assert (ingress.direction, ingress.subdir, ingress.prefix.text) == (Direction.INGRESS, "download", "remote/data/")
    assert (egress.id, ingress.id) == ("w/egress/statistics", "w/ingress/remote/data")
    assert (egress.origin, ingress.origin) == ("w.yaml: spec.data.egress[0]", "w.yaml: spec.data.ingress[0]")
    assert egress.storage is STORAGE


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a", "a"),
        ("a/", "a"),
        ("a//b", "a/b"),
        ("./a", "a"),
        ("a/./b/.", "a/b"),
        (".", ""),
        ("./", ""),
        (".//.", ""),
        ("a b", "a b"),
        ("ä/%2e%2e/...", "ä/%2e%2e/..."),
        ("a\\..\\b", "a\\..\\b"),
        ("replicator", "replicator"),
    ],
)
def test_paths_are_normalised(written, meant):
    """Dots and doubled slashes say nothing; everything else is kept to the letter."""
    (as_source,) = targets_of(workload(egress=[(written, "p")]))
    (as_target,) = targets_of(workload(egress=[("d", written)]))

    assert as_source.subdir == meant
    assert as_target.prefix.text == (f"{meant}/" if meant else "")


def test_sidecar_has_one_root():
    """In sidecar mode the export itself is the root, whatever the workload is called."""
    (found,) = targets_of(workload(egress=[("a", "b")]), export_dir="/data/export")

    assert found.root == "/data/export"


def test_device_has_a_root_for_each_workload():
    """In device mode each workload has its own directory."""
    one, two = targets_of(
        workload(egress=[("a", "one")], name="one"), workload(egress=[("a", "two")], name="two"), **DEVICE
    )

    assert (one.root, two.root) == ("/volumes/one", "/volumes/two")


def test_no_mapping_is_no_target():
    """A workload without data paths is fine."""
    assert targets_of(workload(), target_options={"x": {}}) == ()


# Unsafe paths


@pytest.mark.fault("D4")
@pytest.mark.parametrize(
    ("path", "problem", "fix"),
    [
        ("", "is empty", "Write '.' for the whole export or bucket"),
        ("..", "'..' leads upwards", "Write it without '..'"),
        ("a/../b", "'a/../b' leads upwards", "Write it without '..'"),
        ("a/..", "'a/..' leads upwards", "Write it without '..'"),
        ("/export/stats", "'/export/stats' is absolute", "Write 'stats': paths are relative"),
        ("/export", "'/export' is absolute", "Write '.': paths are relative"),
        ("//export//a/", "'//export//a/' is absolute", "Write 'a': paths are relative"),
        ("/", "'/' is absolute", "Write '.': paths are relative"),
        ("/etc", "'/etc' is absolute", "Write 'etc': paths are relative"),
        ("a\0b", "'a\\x00b' holds characters that do not print", "Rename the directory or prefix"),
        ("a\n", "'a\\n' holds characters that do not print", "Rename the directory or prefix"),
        ("a\x7f", "'a\\x7f' holds characters that do not print", "Rename the directory or prefix"),
        ("a\udcff", "'a\\udcff' holds characters that do not print", "Rename the directory or prefix"),
        (".replicator", "'.replicator' holds '.replicator', which is our own directory", "Map another directory"),
        (
            "a/.replicator/b",
            "'a/.replicator/b' holds '.replicator', which is our own directory",
            "Map another directory",
        ),
    ],
)
@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("field", ["source", "target"])
def test_unsafe_path_is_refused(direction, field, path, problem, fix, refusal):
    """Either side of either direction is checked, and the error names file, field and what to write."""
    pairs = [("fine", "good"), (path, "x") if field == "source" else ("x", path)]

    # A lone surrogate cannot come through the shapes, but may through the environment.
    mapping = [DataPath.model_construct(source=source, target=target) for source, target in pairs]
    one = WorkloadPaths("w", (), (), "f: egress", "f: ingress")
    one = WorkloadPaths(
        "w",
        tuple(mapping) if direction == "egress" else (),
        tuple(mapping) if direction == "ingress" else (),
        one.egress_where,
        one.ingress_where,
    )
    error = refusal(targets_of, one)

    assert (error.where, error.problem, error.fix) == (f"f: {direction}[1].{field}", problem, fix)


@pytest.mark.parametrize(
    ("egress", "field"),
    [
        (("a" * 256, "p"), "source"),
        (("ä" * 128, "p"), "source"),
        (("/".join(["a" * 200] * 11), "p"), "source"),
        (("a", "p" * 900), "target"),
        (("a", "ä" * 450), "target"),
        (("a", "/".join(["p" * 99] * 10)), "target"),
    ],
)
def test_overlong_path_is_refused(egress, field, refusal):
    """Directories must fit the file system, prefixes must leave room for names in a key."""
    error = refusal(targets_of, workload(egress=[egress]))

    assert error.where == f"w.yaml: spec.data.egress[0].{field}"
    assert error.problem.startswith("is longer than")


def test_longest_paths_are_accepted():
    """The limits themselves are allowed: 255 bytes a name, 900 bytes a prefix with its slash."""
    (found,) = targets_of(workload(egress=[("a" * 255, "p" * 899)]))

    assert len(found.prefix.text) == 900


def test_too_many_mappings_are_refused(refusal):
    """Every pair is compared, so their number has a bound."""
    error = refusal(targets_of, workload(egress=[(f"d{n}", f"p{n}") for n in range(MAX_TARGETS + 1)]))

    assert error.problem == f"{MAX_TARGETS + 1} mappings are more than {MAX_TARGETS}"


# Mappings that disturb each other


@pytest.mark.parametrize(
    ("egress", "ingress"),
    [
        ([("a", "p"), ("b", "q")], []),
        ([("a", "data"), ("b", "data2")], []),
        ([("a", "p/x"), ("b", "p/y")], []),
        ([("a", "p"), ("a", "q")], []),
        ([("a", "p"), ("a/b", "q")], []),
        ([("a", "p"), ("a/b", "p/b")], []),
        ([(".", "."), ("a/b", "a/b")], []),
        ([], [("p", "a"), ("q", "b")]),
        ([], [("p", "data"), ("q", "data2")]),
        ([], [("p", "a"), ("p/x", "b")]),
        ([(".", "backup")], [("remote/data", "download")]),
        ([("a", "data")], [("data2", "b")]),
        ([("a", "p")], [("q", "a")]),
    ],
)
def test_mappings_that_do_not_meet_are_accepted(egress, ingress):
    """Siblings, names that only begin alike, one directory to two prefixes, and ingress into a backed up directory."""
    assert len(targets_of(workload(egress, ingress))) == len(egress) + len(ingress)


@pytest.mark.fault("D3")
@pytest.mark.parametrize(
    ("egress", "problem"),
    [
        ([("a", "p"), ("a", "p")], "is the same mapping as w.yaml: spec.data.egress[0]"),
        ([("a", "p"), ("./a/", "p//")], "is the same mapping as w.yaml: spec.data.egress[0]"),
        ([("a", "p"), ("b", "p")], "writes 'p/', into which w.yaml: spec.data.egress[0] writes 'p/'"),
        ([("a", "p"), ("b", "p/x")], "writes 'p/x/', into which w.yaml: spec.data.egress[0] writes 'p/'"),
        ([("b", "p/x"), ("a", "p")], "writes 'p/', into which w.yaml: spec.data.egress[0] writes 'p/x/'"),
        ([("a", "p"), ("a/y", "p/x")], "writes 'p/x/', into which"),
        ([("a/x", "p"), ("a", "p/x")], "writes 'p/x/', into which"),
        ([("a", "."), ("b", "x")], "writes 'x/', into which w.yaml: spec.data.egress[0] writes '.'"),
    ],
)
def test_two_files_for_one_key_are_refused(egress, problem, refusal):
    """Two egress mappings may never give two files one key."""
    error = refusal(targets_of, workload(egress))

    assert error.where == "w.yaml: spec.data.egress[1]"
    assert error.problem.startswith(problem)
    assert error.fix == "Give each a prefix of its own, or remove one"


@pytest.mark.fault("D3")
@pytest.mark.parametrize(
    ("ingress", "problem"),
    [
        ([("p", "a"), ("p", "a")], "is the same mapping as w.yaml: spec.data.ingress[0]"),
        ([("p", "a"), ("q", "a")], "fetches into 'a', which w.yaml: spec.data.ingress[0] fills as 'a'"),
        ([("p", "a"), ("q", "a/b")], "fetches into 'a/b', which"),
        ([("p", "a"), ("p/b", "a/b")], "fetches into 'a/b', which"),
        ([("p", "a/b"), ("q", ".")], "fetches into '.', which w.yaml: spec.data.ingress[0] fills as 'a/b'"),
        ([("p", "a"), ("p", "b")], "fetches 'p/' a second time, after w.yaml: spec.data.ingress[0]"),
    ],
)
def test_two_objects_for_one_file_are_refused(ingress, problem, refusal):
    """Two ingress mappings may never fill one directory, nor have one id."""
    error = refusal(targets_of, workload(ingress=ingress))

    assert error.where == "w.yaml: spec.data.ingress[1]"
    assert error.problem.startswith(problem)


@pytest.mark.fault("D3")
@pytest.mark.parametrize(
    ("egress", "ingress", "is_loop"),
    [
        (("a", "p"), ("p", "a"), True),
        (("a", "p"), ("p", "b"), False),
        ((".", "p"), ("p/x", "a"), True),
        (("a/b", "p/x"), ("p", "a"), True),
        (("a", "."), ("p", "b"), False),
        (("a", "p"), (".", "b"), False),
        ((".", "."), (".", "."), True),
    ],
)
def test_prefix_that_is_sent_to_and_fetched_from_is_refused(egress, ingress, is_loop, refusal):
    """What egress writes must not be what ingress reads: every loop through the device needs that."""
    error = refusal(targets_of, workload([egress], [ingress]))

    assert error.where == "w.yaml: spec.data.egress[0]"
    assert "w.yaml: spec.data.ingress[0] fetches" in error.problem
    assert ("into the same directory: a loop" in error.problem) == is_loop
    assert error.fix == "Give the egress a prefix that no ingress reads"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (workload([("a", "p")], name="one"), workload([("a", "p")], name="two")),
        (workload([("a", "p")], name="one"), workload([("a/b", "p/b")], name="two")),
        (workload([("a", "p")], name="one"), workload(ingress=[("p/x", "a")], name="two")),
        (workload(ingress=[("p", "a")], name="one"), workload([("b", "p")], name="two")),
    ],
    ids=["same-prefix", "nested-not-mirrored", "sent-then-fetched", "fetched-then-sent"],
)
def test_workloads_share_one_bucket(first, second, refusal):
    """Prefixes meet across workloads, though directories do not: the same names are other directories."""
    error = refusal(targets_of, first, second, **DEVICE)

    assert "one.yaml: spec.data." in str(error)
    assert "two.yaml: spec.data." in str(error)


def test_workloads_do_not_share_directories():
    """The same prefix may be fetched by two workloads, into directories of the same name."""
    found = targets_of(workload(ingress=[("p", "a")], name="one"), workload(ingress=[("p", "a")], name="two"), **DEVICE)

    assert [target.id for target in found] == ["one/ingress/p", "two/ingress/p"]


# Which workload


def test_only_workload_needs_no_name():
    """A sidecar with one workload serves it."""
    assert [one.workload for one in served([workload(name="one")], Settings())] == ["one"]


@pytest.mark.parametrize("mode", [{}, DEVICE])
def test_named_workload_is_served(mode):
    """With several, the setting picks one, in device mode too."""
    settings = Settings.model_validate({"workload": "two"} | mode)

    assert [one.workload for one in served([workload(name="one"), workload(name="two")], settings)] == ["two"]


@pytest.mark.parametrize("names", [["one", "two"], []])
def test_sidecar_must_know_its_workload(names, refusal):
    """None and several are refused, with the names there are."""
    error = refusal(served, [workload(name=name) for name in names], Settings())

    assert error.problem == f"{len(names)} workloads could be meant, but a sidecar serves one"
    assert f"REPLICATOR_WORKLOAD to one of: {', '.join(names) or 'none'}" in error.fix


def test_device_serves_all_or_none():
    """In device mode several workloads are normal, and so is none yet."""
    settings = Settings.model_validate(DEVICE)

    assert len(served([workload(name="one"), workload(name="two")], settings)) == 2
    assert served([], settings) == []


def test_absent_workload_is_refused(refusal):
    """A name that fits nothing lists what there is."""
    error = refusal(served, [workload(name="one")], Settings(workload="two"))

    assert error.problem == "there is no workload 'two' for this device"
    assert error.fix == "Set REPLICATOR_WORKLOAD to one of: one"


def test_two_workloads_of_one_name_are_refused(refusal):
    """They would share a directory and every id."""
    error = refusal(served, [workload(name="one"), workload(name="one")], Settings.model_validate(DEVICE))

    assert error.problem == "two workloads have one name, among one, one"


@pytest.mark.fault("D4")
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0", "a\n", ".replicator", "x" * 256])
@pytest.mark.parametrize("mode", [{}, DEVICE])
def test_workload_name_is_a_plain_name(name, mode, refusal):
    """The name is a directory beneath the volumes directory: nothing that leads elsewhere."""
    settings = Settings.model_validate(mode)

    assert "cannot be a workload's name" in refusal(served, [workload(name=name)], settings).problem
    assert "cannot be a workload's name" in refusal(targets_of, workload([("a", "b")], name=name), **mode).problem


# Options


def test_settings_are_the_common_options():
    """Every target has the options of the settings."""
    (found,) = targets_of(
        workload([("a", "p")]),
        include="*.csv",
        exclude="*.tmp",
        hard_links="allow",
        open_files="snapshot",
        restore_deleted="no",
        ingress_marker="_manifest",
        ingress_audit_s="60",
        quota_bytes="5",
        order="pattern",
        order_patterns="a*,b*",
        priority="7",
        delete_after_upload="yes",
    )

    assert found.options == TargetOptions(
        include=("*.csv",),
        exclude=("*.tmp",),
        hard_links="allow",
        open_files="snapshot",
        restore_deleted=False,
        ingress_marker="_manifest",
        ingress_audit_s=60,
        quota_bytes=5,
        order="pattern",
        order_patterns=("a*", "b*"),
        priority=7,
        delete_after_upload=True,
    )


def test_patterns_change_the_options_of_targets_that_fit():
    """A pattern changes only what it names, later patterns win, other targets keep theirs."""
    one, two = targets_of(
        workload([("a", "p"), ("b", "q")]),
        include="*.csv",
        target_options={
            "*/egress/*": {"quota_bytes": 1, "hard_links": "allow"},
            "w/egress/q": {"quota_bytes": 2, "include": [], "restore_deleted": None},
            "w/egress/p": {"priority": -1, "order": "newest", "delete_after_upload": True},
        },
    )

    assert one.options == TargetOptions(
        include=("*.csv",), quota_bytes=1, hard_links="allow", priority=-1, order="newest", delete_after_upload=True
    )
    assert two.options == TargetOptions(include=(), quota_bytes=2, hard_links="allow")


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ({"order": "pattern"}, "w/egress/p"),
        ({"target_options": {"w/egress/q": {"order": "pattern"}}}, "w/egress/q"),
        ({"order": "pattern", "order_patterns": "a", "target_options": {"*/q": {"order_patterns": []}}}, "w/egress/q"),
    ],
)
def test_order_by_pattern_needs_patterns(words, target, refusal):
    """A target whose order has nothing to go by is named."""
    error = refusal(targets_of, workload([("a", "p"), ("b", "q")]), **words)

    assert (error.where, error.problem) == (f"order of {target}", "is pattern, but there are no patterns")


def test_generations_land_in_a_directory_of_their_own():
    """The target's files land beneath `.incoming`, so that its rows are not those of the other mode."""
    options = {"ingress_marker": "_set", "ingress_publish": "generation"}
    named, top, egress = targets_of(
        workload([("out", "o")], [("p", "a/b")], name="one"),
        workload([], [("p", ".")], name="two"),
        **DEVICE,
        target_options={"*/ingress/*": options},
    )[1:] + targets_of(workload([("out", "o")]), **options)
    (files,) = targets_of(workload([], [("p", "a/b")], name="one"), **DEVICE)

    assert (named.subdir, top.subdir, egress.subdir) == ("a/b/.incoming", ".incoming", "out")
    assert named.has_generations
    assert not egress.has_generations
    assert named.identity != files.identity


def test_generations_need_a_manifest(refusal):
    """Nothing else names the files of a set."""
    error = refusal(targets_of, workload([], [("p", "in")]), ingress_publish="generation")

    assert error.where == "ingress_publish of w/ingress/p"
    assert "REPLICATOR_INGRESS_MARKER" in error.fix


@pytest.mark.parametrize("source", [".", "in", "in/sub"])
def test_egress_of_generations_is_refused(source, refusal):
    """It would send what lands there, and every set once more."""
    options = {"ingress_marker": "_set", "ingress_publish": "generation"}

    error = refusal(targets_of, workload([(source, "o")], [("p", "in")]), **options)

    assert "publishes generations" in error.problem
    assert targets_of(workload([("into", "o")], [("p", "in")]), **options)


def test_pattern_that_fits_nothing_is_refused(refusal):
    """A misspelt pattern would be a silent default: the ids there are are listed."""
    error = refusal(targets_of, workload([("a", "p")], [("q", "b")]), target_options={"w/egres/*": {"quota_bytes": 1}})

    assert (error.where, error.problem) == ("target_options: w/egres/*", "fits no target")
    assert error.fix == "There are: w/egress/p, w/ingress/q"


# Anything at all

NAMES = st.sampled_from(["a", "b", "..", ".", "", "/", "export", ".replicator", "\0", "a\n", "...", "~", "%2e%2e", "ä"])
PATHS = st.one_of(st.text(max_size=20), st.lists(NAMES, max_size=5).map("/".join))
PAIRS = st.lists(st.tuples(PATHS, PATHS), max_size=3)


@pytest.mark.fault("D4")
@given(egress=PAIRS, ingress=PAIRS, name=PATHS | st.just("w"), settings=st.sampled_from([{}, DEVICE]))
def test_no_mapping_ever_escapes(egress, ingress, name, settings):
    """Whatever a manifest says, a target's directory lies in its root and its prefix is a clean one."""
    try:
        found = targets_of(workload(egress, ingress, name), **settings)
    except ConfigError as error:
        assert error.fix  # noqa: PT017 -- both outcomes are right
        return

    for target in found:
        root = PurePosixPath(target.root)
        assert root == PurePosixPath("/export") or root.parent == PurePosixPath("/volumes")
        assert root.name not in ("", "..")
        for path in (target.subdir, target.prefix.text.removesuffix("/")):
            assert not path.startswith("/")
            assert path.isprintable()
            assert {"..", ".", ".replicator"}.isdisjoint(path.split("/"))
            assert path == "" or "" not in path.split("/")
        assert target.prefix.text == "" or target.prefix.text.endswith("/")


@pytest.mark.fault("D3")
@given(
    egress=st.lists(st.tuples(*[st.sampled_from([".", "a", "a/b", "b", "b/a"])] * 2), max_size=3),
    ingress=st.lists(st.tuples(*[st.sampled_from([".", "a", "a/b", "b", "b/a"])] * 2), max_size=3),
)
def test_accepted_mappings_neither_loop_nor_collide(egress, ingress):
    """Played through on files: no key has two files, no file two objects, and nothing sent is fetched."""
    try:
        found = targets_of(workload(egress, ingress))
    except ConfigError:
        return

    files = [f"{directory}x" for directory in ("", "a/", "b/", "a/b/", "b/a/", "a/b/c/")]
    sent: dict[str, str] = {}
    for target in (one for one in found if one.direction is Direction.EGRESS):
        for file in files:
            beneath = f"{target.subdir}/" if target.subdir else ""
            if file.startswith(beneath):
                key = target.prefix.text + file.removeprefix(beneath)
                assert sent.setdefault(key, file) == file
    fetched: dict[str, str] = {}
    for target in (one for one in found if one.direction is Direction.INGRESS):
        for key in {*files, *sent}:
            if key.startswith(target.prefix.text):
                assert key not in sent
                file = f"{target.subdir}/{key.removeprefix(target.prefix.text)}"
                assert fetched.setdefault(file, key) == key
