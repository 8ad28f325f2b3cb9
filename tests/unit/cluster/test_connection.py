"""What a connection to the API server bears: slow, endless, foreign and refused answers, and how each is told."""

import asyncio

import pytest

from replicator.cluster import connection
from replicator.cluster.access import Access, Pem
from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CONFIG_MAP
from replicator.errors import ClusterError, Conflict, Forbidden, Gone, Invalid, Unreachable
from tests.apiserver.server import ApiServer
from tests.certificates import issue

LIST = b'{"metadata":{"resourceVersion":"1"},"items":null}'


@pytest.fixture
async def stubbed(stub_s3):
    """A cluster that is a stub."""
    async with Cluster(Access(server=stub_s3.endpoint)) as one:
        yield one


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ClusterError),
        (401, Forbidden),
        (403, Forbidden),
        (404, ClusterError),
        (408, Unreachable),
        (409, Conflict),
        (410, Gone),
        (415, ClusterError),
        (422, Invalid),
        (429, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
async def test_a_bad_answer_is_one_of_our_errors(server, cluster, status, error):
    """Each status is the error that says what to do, with the server's words, its reason and the status."""
    server.answer(status, plural="configmaps", reason="Because", message="as the server says")

    with pytest.raises(ClusterError, match=f"as the server says .{status}.") as caught:
        await cluster.list(CONFIG_MAP)

    assert type(caught.value) is error
    assert (caught.value.status, caught.value.reason) == (status, "Because")


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"{", b'{"items":[3]}', b'{"metadata":{},"items":[{}]}'])
async def test_an_answer_that_is_not_kubernetes_is_refused(stubbed, stub_s3, reply, body):
    """A gateway's page with status 200 is no empty list."""
    stub_s3.default = reply(body=body)

    with pytest.raises(Unreachable):
        await stubbed.list(CONFIG_MAP)


async def test_items_may_be_null(stubbed, stub_s3, reply):
    """An empty list whose items are null is an empty list."""
    stub_s3.default = reply(body=LIST)

    assert await stubbed.list(CONFIG_MAP) == ([], "1")


async def test_a_redirect_is_not_followed(stubbed, stub_s3, reply):
    """Credentials go to one host; a redirect is an error, and the second host hears nothing."""
    stub_s3.default = reply(status=307, headers={"Location": f"{stub_s3.endpoint}/elsewhere"})

    with pytest.raises(ClusterError) as caught:
        await stubbed.list(CONFIG_MAP)

    assert caught.value.status == 307
    assert len(stub_s3.requests) == 1


async def test_an_answer_of_any_size_is_cut(stubbed, stub_s3, reply, monkeypatch):
    """An answer above the cap is an error, and not memory."""
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1000)
    stub_s3.default = reply(body=b"x" * 100_000)

    with pytest.raises(ClusterError, match="more than 1000 bytes"):
        await stubbed.list(CONFIG_MAP)


async def test_an_event_of_any_size_is_cut(stubbed, stub_s3, reply, monkeypatch):
    """A watch whose event never ends is ended."""
    monkeypatch.setattr(connection, "MAX_EVENT_BYTES", 1000)
    stub_s3.default = reply(body=b"x" * 100_000)

    with pytest.raises(ClusterError, match="more than 1000 bytes"):
        await anext(stubbed.watch(CONFIG_MAP))


async def test_a_slow_answer_is_given_up(stub_s3, reply):
    """A server that takes the request and says nothing is Unreachable after the deadline."""
    stub_s3.default = reply(body=LIST, delay_s=30)

    async with Cluster(Access(server=stub_s3.endpoint), answer_s=0.05) as cluster:
        with pytest.raises(Unreachable, match="no answer in time"):
            await cluster.list(CONFIG_MAP)


async def test_a_silent_watch_is_given_up(stub_s3, reply, monkeypatch):
    """A watch that stays silent beyond the time at which the server should have ended it is Unreachable."""
    monkeypatch.setattr("replicator.cluster.client.WATCH_S", 0)
    stub_s3.default = reply(body=LIST, delay_s=30)

    async with Cluster(Access(server=stub_s3.endpoint), answer_s=0.05) as cluster:
        with pytest.raises(Unreachable, match="no answer in time"):
            await anext(cluster.watch(CONFIG_MAP))


@pytest.mark.parametrize("cut_at", [0, 10, 40])
async def test_a_cut_answer_is_told(stubbed, stub_s3, reply, cut_at):
    """Half a list is no list."""
    stub_s3.default = reply(body=LIST, cut_at=cut_at)

    with pytest.raises(Unreachable):
        await stubbed.list(CONFIG_MAP)


async def test_a_cut_event_is_left_to_the_next_watch(stubbed, stub_s3, reply):
    """Whole events before the cut count, the torn one does not."""
    whole = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'
    stub_s3.default = reply(body=whole + whole, cut_at=len(whole) + 20)
    told = []

    with pytest.raises(Unreachable):  # noqa: PT012 -- the events before it are the point
        async for event in stubbed.watch(CONFIG_MAP):
            told += [event.type]

    assert told == ["ADDED"]


async def test_nobody_there_is_told():
    """A closed port is Unreachable, with the address."""
    with ApiServer() as server:
        access = server.access()
    async with Cluster(access) as cluster:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await cluster.list(CONFIG_MAP)


async def test_a_token_that_is_replaced_on_disk_is_used(tmp_path):
    """The token file is read for each request: a kubelet renews it while we run."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with ApiServer(tokens=("first",)) as server:
        async with Cluster(server.access(token_file=token)) as cluster:
            await cluster.list(CONFIG_MAP)
            server.tokens = {"second"}
            with pytest.raises(Forbidden):
                await cluster.list(CONFIG_MAP)

            token.write_text("second\n")
            await cluster.list(CONFIG_MAP)


async def test_a_token_that_is_gone_is_told_without_its_value(tmp_path):
    """An unreadable token file is Forbidden with the path and the fix."""
    with ApiServer() as server:
        async with Cluster(server.access(token_file=tmp_path / "token")) as cluster:
            with pytest.raises(Forbidden, match=r"token: cannot be read: .*Check the path"):
                await cluster.list(CONFIG_MAP)


async def test_the_server_proves_itself(tmp_path):
    """TLS by the cluster's authority; another authority's server is refused, and a new authority is used at once."""
    right, wrong = issue("right", is_authority=True), issue("wrong", is_authority=True)
    authority = tmp_path / "ca.crt"
    authority.write_text(wrong.pem)
    with ApiServer(tls=issue("server", by=right).server_context(tmp_path)) as server:
        async with Cluster(server.access(authority=Pem(path=authority))) as cluster:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await cluster.list(CONFIG_MAP)

            authority.write_text(right.pem)
            await cluster.list(CONFIG_MAP)


async def test_no_proxy_of_the_environment_is_used(server, cluster, monkeypatch):
    """The API server is asked directly, whatever proxy the environment names."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert (await cluster.list(CONFIG_MAP)).items == []


async def test_requests_go_on_beside_many_watches(server, cluster, until):
    """However many watches hold a connection, a request finds one."""

    async def watch():
        async for _ in cluster.watch(CONFIG_MAP, version="1"):
            pass

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch()) for _ in range(150)]
        await until(lambda: server.watching("configmaps") == 150)
        assert (await cluster.list(CONFIG_MAP)).items == []
        for task in tasks:
            task.cancel()
