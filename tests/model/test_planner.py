"""The decisions alone, ten thousand times over: they end, they agree with both sides, and they lose nothing."""

import contextlib

import pytest

from replicator.errors import KeyUnsafe
from replicator.model import Action
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import is_marker, key_of, relpath_of
from tests.model.planner import HOSTILE, NAMES, OPTIONS, PREFIX, Cut, Plan, correlated

FEW, MANY = 10_000, 1_000_000

_CALM_ROUNDS = 6


def play(plan: Plan) -> None:
    """Some rounds in which anything may fail, then calm ones until nothing is done."""
    plan.chance = plan.rng.choice([0.0, 0.1, 0.3])
    for _ in range(plan.rng.randint(0, 4)):
        with contextlib.suppress(Cut):
            plan.round()
    plan.chance = 0.0
    for _ in range(_CALM_ROUNDS):
        before = len(plan.acts)
        plan.round()
        if len(plan.acts) == before and not plan._absent:
            return
    raise AssertionError(f"it does not come to rest: {plan.acts}")


def check(plan: Plan, before: Plan) -> None:
    """Nothing is gone, both sides are in step, and one more round does nothing."""
    assert plan.local.contents.keys() >= before.local.contents.keys(), "a file was deleted"
    assert plan.remote.contents.keys() >= before.remote.contents.keys(), "an object was deleted"
    if plan.is_egress:
        check_egress(plan, before)
    else:
        check_ingress(plan, before)
    done = len(plan.acts)
    plan.round()
    assert len(plan.acts) == done, "a round without a cause did something"


def check_egress(plan: Plan, before: Plan) -> None:
    assert plan.local == before.local, "egress changed a file"
    for name, content in plan.local.contents.items():
        key = PREFIX.text + name
        try:
            key_of(PREFIX, name)
        except KeyUnsafe:
            assert key not in plan.remote.contents
            continue
        was_touched = (plan.remote.contents.get(key), plan.remote.versions.get(key)) != (
            before.remote.contents.get(key),
            before.remote.versions.get(key),
        )
        is_left_alone = not is_included(name, OPTIONS) or plan.local.versions[name] < 0
        assert not (is_left_alone and was_touched), f"{name!r} was sent though it is not to be"
        is_known = name in plan.rows and plan.rows[name].checksum == str(content)
        assert is_left_alone or is_known, f"{name!r} is not in step"
        if was_touched:
            assert plan.remote.contents[key] == content


def check_ingress(plan: Plan, before: Plan) -> None:
    assert plan.remote == before.remote, "ingress changed an object"
    for key, content in plan.remote.contents.items():
        try:
            name = relpath_of(PREFIX, key, subdir="")
        except KeyUnsafe:
            name = key.removeprefix(PREFIX.text)
            assert plan.local.contents.get(name) == before.local.contents.get(name), f"{key!r} was fetched"
            continue
        if is_marker(key) or not is_included(name, OPTIONS):
            continue
        row = plan.rows.get(name)
        is_known = row is not None and row.etag == plan.etag(key)
        assert is_known, f"{name!r} was not fetched"
        found = plan.local.contents.get(name)
        stands = found == before.local.contents.get(name)  # an edit, or a removal that is not to be undone
        assert found == content or stands, f"{name!r} is neither its object nor what the workload left"
        assert found is not None or not plan.restores
    for name, content in before.local.contents.items():
        is_ours = name in before.rows and before.rows[name].fingerprint == before.file(name).fingerprint
        is_kept = plan.local.contents[name] == content or content in plan.kept
        assert is_ours or is_kept, f"what the workload left at {name!r} is lost"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_decisions_end_agree_and_lose_nothing(is_long):
    """Whatever failed before: the calm rounds end, both sides are in step, nothing was deleted, and no edit is lost."""
    for seed in range(MANY if is_long else FEW):
        plan = correlated(seed)
        before = correlated(seed)
        try:
            play(plan)
            check(plan, before)
        except AssertionError as error:
            error.add_note(f"the story is correlated({seed})")
            raise


def test_no_two_names_share_a_key():
    """Names become keys and back without a loss, so that two files never meet in one object."""
    keys = {}
    for name in NAMES:
        with contextlib.suppress(KeyUnsafe):
            keys[key_of(PREFIX, name)] = name
    assert len(keys) == len(NAMES) - 1  # one is not UTF-8

    for key, name in keys.items():
        with contextlib.suppress(KeyUnsafe):
            assert relpath_of(PREFIX, key, subdir="") == name
    for hostile in HOSTILE:
        if not is_marker(hostile):
            with pytest.raises(KeyUnsafe):
                relpath_of(PREFIX, PREFIX.text + hostile, subdir="")


def test_planner_is_not_idle():
    """Each action that a decision can lead to was led to, in each direction."""
    acts: dict[bool, set[Action]] = {True: set(), False: set()}
    for seed in range(300):
        plan = correlated(seed)
        play(plan)
        acts[plan.is_egress] |= {action for action, _ in plan.acts}

    assert acts[True] == acts[False] == {Action.COPY, Action.ADOPT, Action.FORGET}
