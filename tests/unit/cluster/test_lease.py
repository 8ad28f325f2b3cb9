"""Two replicas and one Lease: who holds it, when it passes on, and that it is never held by both."""

import asyncio

import pytest

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import LEASE
from replicator.cluster.lease import Lease, Timing, held
from replicator.errors import Conflict, LeaseLost, Unreachable

QUICK = Timing(duration_s=15, renew_within_s=10, retry_s=0.01)


class Clock:
    """Monotonic seconds that pass when the test says."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def candidate(cluster, clock):
    return lambda holder: Lease(cluster, "ns", "operator", holder=holder, timing=QUICK, clock=clock)


def spec(server):
    return server.get("leases", "ns", "operator")["spec"]


@pytest.mark.fault("E6")
async def test_one_of_two_holds_it(server, candidate):
    """The first takes it, the second does not, and the Lease says who."""
    one, two = candidate("one"), candidate("two")

    assert await one.try_to_hold()
    assert not await two.try_to_hold()
    assert await one.try_to_hold(), "the holder renews"

    assert (spec(server)["holderIdentity"], spec(server)["leaseDurationSeconds"]) == ("one", 15)
    assert spec(server)["leaseTransitions"] == 0


@pytest.mark.fault("E6")
async def test_it_passes_on_when_nobody_renews_it(server, candidate, clock):
    """A Lease that did not change for its duration, by the clock of who waits, is free; not a moment before."""
    one, two = candidate("one"), candidate("two")
    await one.try_to_hold()
    assert not await two.try_to_hold()

    clock.now += 14.9
    assert not await two.try_to_hold()
    clock.now += 0.1
    assert await two.try_to_hold()

    assert (spec(server)["holderIdentity"], spec(server)["leaseTransitions"]) == ("two", 1)
    assert not await one.try_to_hold()


@pytest.mark.fault("E6")
async def test_each_renewal_begins_the_wait_anew(candidate, clock):
    """As long as it is renewed nobody else gets it, however long that is."""
    one, two = candidate("one"), candidate("two")
    for _ in range(5):
        assert await one.try_to_hold()
        assert not await two.try_to_hold()
        clock.now += 10


@pytest.mark.fault("E6")
async def test_times_of_other_machines_are_not_believed(server, candidate, clock):
    """A renewTime of the past, as of a holder whose clock is off, frees nothing."""
    one, two = candidate("one"), candidate("two")
    await one.try_to_hold()
    server.edit("leases", "ns", "operator", {"spec": {"renewTime": "2001-01-01T00:00:00.000000Z"}})

    assert not await two.try_to_hold()


@pytest.mark.fault("E6")
async def test_of_two_that_reach_for_it_one_gets_it(server, cluster, candidate, clock):
    """Both saw it expire; the write of the later one is a conflict, and it does not hold it."""
    one, two, three = candidate("one"), candidate("two"), candidate("three")
    await one.try_to_hold()
    assert not await two.try_to_hold()
    assert not await three.try_to_hold()
    clock.now += 15

    got = await asyncio.gather(two.try_to_hold(), three.try_to_hold())

    assert sorted(got) == [False, True]
    assert spec(server)["holderIdentity"] == ("two" if got[0] else "three")


@pytest.mark.fault("E6")
async def test_of_two_that_make_it_one_does(candidate):
    """With no Lease there yet, one of two holds it."""
    got = await asyncio.gather(*(candidate(name).try_to_hold() for name in ("one", "two", "three")))

    assert sorted(got) == [False, False, True]


@pytest.mark.fault("E6")
async def test_a_stale_update_is_refused(cluster, candidate):
    """Who writes a Lease as it was before another took it gets a conflict, and changes nothing."""
    await candidate("one").try_to_hold()
    stale = await cluster.get(LEASE, "ns", "operator")
    await candidate("one").try_to_hold()

    with pytest.raises(Conflict):
        await cluster.replace(LEASE, stale | {"spec": {"holderIdentity": "two"}})


@pytest.mark.fault("E6")
async def test_what_is_inside_ends_when_it_is_lost(server, candidate):
    """The work of a replica whose Lease another holds is cancelled at once, and LeaseLost is raised."""
    ended = []

    with pytest.raises(LeaseLost, match="held by another"):  # noqa: PT012 -- what happens inside is the point
        async with held(candidate("one")):
            server.edit("leases", "ns", "operator", {"spec": {"holderIdentity": "two"}})
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(True)

    assert ended
    assert spec(server)["holderIdentity"] == "two", "what is another's is not given back"


@pytest.mark.fault("E6")
async def test_it_is_lost_before_another_can_have_it(server, candidate, clock, until):
    """Away for less than the deadline, the API server costs nothing; then the work ends, before the Lease does."""
    lease = candidate("one")
    with pytest.raises(LeaseLost, match="was not renewed in time"):  # noqa: PT012 -- the order of it is the point
        async with held(lease):
            server.stop()
            clock.now += 9.9
            await asyncio.sleep(0.1)
            clock.now += 0.1
            await asyncio.sleep(30)

    assert clock.now - lease._renewed_at < QUICK.duration_s
    server.start()


@pytest.mark.fault("E6")
async def test_an_outage_that_ends_in_time_costs_nothing(server, candidate, until):
    """Refused renewals are tried again; the work goes on."""
    async with held(candidate("one")):
        server.answer(500, plural="leases", times=5)
        server.answer(409, plural="leases", verb="update", times=2)
        before = spec(server)["renewTime"]
        await until(lambda: spec(server)["renewTime"] > before)


async def test_it_is_given_back_at_the_end(server, candidate):
    """After an orderly end the next one need not wait."""
    async with held(candidate("one")):
        pass
    assert spec(server)["holderIdentity"] == ""

    assert await candidate("two").try_to_hold()


async def test_it_is_given_back_although_it_moved(server, candidate):
    """A renewal that was cancelled but done all the same does not keep it from being given back."""
    lease = candidate("one")
    await lease.try_to_hold()
    server.edit("leases", "ns", "operator", {"spec": {"renewTime": "2030-01-01T00:00:00.000000Z"}})

    await lease.give_back()

    assert spec(server)["holderIdentity"] == ""


async def test_whoever_waits_gets_it_next(server, candidate, until):
    """The second begins its work once the first has ended its own."""
    order = []

    async def work(name):
        async with held(candidate(name)):
            order.append(f"{name} begins")
            await asyncio.sleep(0.05)
            order.append(f"{name} ends")

    await asyncio.gather(work("one"), work("two"))

    assert len(order) == 4
    assert order[1].split()[0] == order[0].split()[0]


async def test_it_waits_while_nobody_answers(server, candidate, until):
    """An API server that is away at the start is asked again."""
    server.answer(503, plural="leases", times=3)

    async with held(candidate("one")):
        assert spec(server)["holderIdentity"] == "one"


async def test_an_error_of_the_work_is_raised_as_it_is(candidate):
    """What the work raises is not wrapped."""
    with pytest.raises(ZeroDivisionError):
        async with held(candidate("one")):
            raise ZeroDivisionError


async def test_cancelling_the_work_is_a_cancellation(server, candidate, until):
    """SIGTERM's cancellation passes through, and the Lease is given back."""

    async def work():
        async with held(candidate("one")):
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await until(lambda: server.get("leases", "ns", "operator"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert spec(server)["holderIdentity"] == ""


async def test_an_unreachable_server_is_told(server, candidate):
    """One attempt raises what the connection says."""
    server.stop()

    with pytest.raises(Unreachable):
        await candidate("one").try_to_hold()
    server.start()


def test_the_usual_times():
    """15 s, 10 s, 2 s: as Kubernetes' own components; the holder gives up well before the Lease ends."""
    assert Timing() == Timing(duration_s=15, renew_within_s=10, retry_s=2)


async def test_without_a_session_it_is_a_mistake_of_ours(server):
    """A cluster is used inside `async with`."""
    with pytest.raises(AssertionError, match="open it first"):
        await Cluster(server.access()).list(LEASE)
