"""Whatever stands in a manifest: it is a configuration, or one error that says where, what and what to do."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.config.manifests import Secret, parse
from replicator.errors import ConfigError

WORDS = st.sampled_from(
    [
        "spec",
        "data",
        "egress",
        "ingress",
        "source",
        "target",
        "metadata",
        "name",
        "kind",
        "List",
        "items",
        "..",
        "/",
        "a",
    ]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KIND = st.fixed_dictionaries(
    {"kind": st.sampled_from(["EdgeWorkload", "EdgeDevice", "ConfigMap", "Secret", "List"])},
    optional={
        "apiVersion": st.sampled_from(["management.project-flotta.io/v1alpha1", "v1"]) | ANY,
        "metadata": st.fixed_dictionaries({"name": st.just("n") | ANY}, optional={"labels": ANY, "namespace": ANY})
        | ANY,
        "spec": st.fixed_dictionaries(
            {"data": st.fixed_dictionaries({}, optional={"egress": ANY, "ingress": ANY}) | ANY},
            optional={"deviceSelector": ANY, "storage": ANY},
        )
        | ANY,
        "data": ANY,
        "items": ANY,
    },
)


@pytest.mark.fault("D1")
@settings(max_examples=60)
@given(st.lists(KIND | ANY, min_size=1, max_size=3))
def test_any_structure_is_manifests_or_a_config_error(documents):
    """Wrong types, kinds and fields anywhere lead to no traceback, and what is taken can be read."""
    text = "\n---\n".join(json.dumps(document) for document in documents)
    try:
        for manifest in parse(text, where="f"):
            if isinstance(manifest, Secret):
                for key in manifest.data:
                    manifest.decoded(key)
    except ConfigError as error:
        assert error.where  # noqa: PT017 -- both outcomes are right
        assert error.fix  # noqa: PT017


@pytest.mark.fault("D1")
@given(st.text(st.sampled_from("ab:-?&*!|>'\"%@`{}[],# \t\n0."), max_size=60))
def test_any_text_is_manifests_or_a_config_error(text):
    """What is nearly YAML leads to no traceback either."""
    try:
        parse(text, where="f")
    except ConfigError as error:
        assert error.where.startswith("f")  # noqa: PT017 -- both outcomes are right
