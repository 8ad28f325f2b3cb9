"""Where the API server is found, with which credentials, and what is refused."""

import base64
import ssl
from pathlib import Path

import pytest
import yaml

from replicator.cluster.access import find, from_kubeconfig
from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CONFIG_MAP, EDGE_DEVICE, is_older
from replicator.errors import ConfigError
from tests.apiserver.server import ApiServer
from tests.certificates import issue


@pytest.fixture
def account(tmp_path):
    """A Pod's service account directory."""
    place = tmp_path / "serviceaccount"
    place.mkdir()
    (place / "token").write_text("word-of-the-pod")
    (place / "ca.crt").write_text(issue("ca", is_authority=True).pem)
    (place / "namespace").write_text("fleet")
    return place


POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.fixture
def write(tmp_path):
    """Write a kubeconfig; words replace those of its cluster, user and context."""

    def write_one(cluster=None, user=None, context=None, **words) -> Path:
        cluster = {"server": "https://api.example:6443"} if cluster is None else cluster
        whole = {
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user or {}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"} | (context or {})}],
        } | words
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(whole))
        return path

    return write_one


def test_in_a_pod_it_is_the_service_account(account):
    """Address by the environment, token, authority and namespace by the mounted files."""
    access = find(POD, service_account=account)

    assert (access.server, access.namespace) == ("https://10.0.0.1:6443", "fleet")
    assert access.token().get_secret_value() == "word-of-the-pod"
    assert access.tls().verify_mode is ssl.CERT_REQUIRED


def test_an_ipv6_service_address_is_bracketed(account):
    """On an IPv6 cluster the address is a URL all the same."""
    assert (
        find(POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account=account).server == "https://[fd00::1]:6443"
    )


def test_a_named_kubeconfig_comes_first(account, write):
    """Who sets KUBECONFIG means it, also in a Pod."""
    path = write(context={"namespace": "mine"})

    access = find(POD | {"KUBECONFIG": str(path)}, service_account=account)

    assert (access.server, access.namespace) == ("https://api.example:6443", "mine")


def test_the_usual_kubeconfig_comes_last(tmp_path, write):
    """Outside a Pod and without KUBECONFIG it is ~/.kube/config."""
    usual = tmp_path / "home" / ".kube" / "config"
    usual.parent.mkdir(parents=True)
    usual.write_text(write().read_text())

    assert find({"HOME": str(tmp_path / "home")}, service_account=tmp_path).server == "https://api.example:6443"


def test_nothing_found_is_told_with_all_places(tmp_path):
    """Without any of the three the error names them."""
    with pytest.raises(ConfigError, match=r"no KUBECONFIG, no service account and no ~/.kube/config"):
        find({"HOME": str(tmp_path)}, service_account=tmp_path)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"cluster": {"server": "https://a", "insecure-skip-tls-verify": True}}, "asks for unverified TLS"),
        ({"user": {"exec": {"command": "aws"}}}, "logs in by `exec`"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "logs in by `auth-provider`"),
        ({"user": {"username": "me", "password": "canary-word"}}, "logs in by `username`"),
        ({"current-context": "there"}, "has no context called 'there'"),
        ({"clusters": None}, "has no cluster called 'c'"),
        ({"clusters": [3]}, "has no cluster called 'c'"),
        ({"cluster": {"server": ""}}, "no URL"),
        ({"cluster": {"server": "file:///etc/passwd"}}, "no URL"),
        ({"cluster": {"server": "https://me:canary-word@api"}}, "no URL"),
        ({"cluster": {"server": "http://api.example"}, "user": {"token": "canary-word"}}, "unencrypted to api.example"),
        ({"cluster": {"server": "https://a", "certificate-authority-data": "%%"}}, "not base64 of PEM"),
        ({"cluster": {"server": "https://a", "certificate-authority": "gone.pem"}}, "cannot be read"),
        (
            {"user": {"client-certificate-data": base64.b64encode(b"canary-word").decode()}},
            "certificates cannot be used",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused(write, words, problem):
    """Each fault is one sentence with the place and the fix, and shows no secret."""
    with pytest.raises(ConfigError) as caught:
        from_kubeconfig(write(**words))

    assert problem in str(caught.value)
    assert "canary-word" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("content", ["- a", "{", "%", "\0"])
def test_what_is_no_kubeconfig_is_refused(tmp_path, content):
    """Any other file in its place is a ConfigError."""
    path = tmp_path / "kubeconfig"
    path.write_text(content)

    with pytest.raises(ConfigError, match="kubeconfig"):
        from_kubeconfig(path)


def test_a_list_of_kubeconfigs_is_refused(tmp_path):
    """Several files in KUBECONFIG are not merged in silence."""
    with pytest.raises(ConfigError, match="names several files"):
        from_kubeconfig(Path(f"{tmp_path}/a:{tmp_path}/b"))


def test_a_huge_file_is_refused(tmp_path):
    """A file above a MiB is not read."""
    path = tmp_path / "kubeconfig"
    path.write_bytes(b"a" * (2**20 + 1))

    with pytest.raises(ConfigError, match="is larger than"):
        from_kubeconfig(path)


@pytest.mark.parametrize("as_file", [True, False])
async def test_a_client_certificate_is_shown(tmp_path, write, as_file):
    """A certificate and its key, as files beside the kubeconfig or in it, are what the API server sees."""
    authority = issue("ca", is_authority=True)
    us = issue("system:replicator", by=authority)
    context = issue("server", by=authority).server_context(tmp_path)
    (tmp_path / "ca.pem").write_text(authority.pem)
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    words = {}
    for name, text in (("client-certificate", us.pem), ("client-key", us.key_pem)):
        if as_file:
            (tmp_path / name).write_text(text)
            words[name] = name
        else:
            words[f"{name}-data"] = base64.b64encode(text.encode()).decode()

    with ApiServer(tls=context) as server:
        access = from_kubeconfig(write({"server": server.url, "certificate-authority": "ca.pem"}, words))
        async with Cluster(access) as cluster:
            assert (await cluster.list(CONFIG_MAP)).items == []


def test_no_secret_is_shown(write):
    """What a log or a traceback may show of an access holds neither token nor key."""
    us = issue("us")
    words = {"token": "canary-word", "client-certificate-data": us.pem, "client-key-data": us.key_pem}
    encoded = {
        name: base64.b64encode(word.encode()).decode() if "-data" in name else word for name, word in words.items()
    }

    shown = repr(from_kubeconfig(write(user=encoded)))

    assert "canary-word" not in shown
    assert "PRIVATE KEY" not in shown


def test_paths_are_those_of_kubernetes():
    """The core lies beneath /api/v1, other groups beneath /apis, names are quoted."""
    assert CONFIG_MAP.path("ns", "a") == "/api/v1/namespaces/ns/configmaps/a"
    assert CONFIG_MAP.path() == "/api/v1/configmaps"
    assert EDGE_DEVICE.path("ns", "d", "status").endswith("v1alpha1/namespaces/ns/edgedevices/d/status")
    assert CONFIG_MAP.path("ns", "../../secrets") == "/api/v1/namespaces/ns/configmaps/..%2F..%2Fsecrets"


def test_versions_are_compared_as_numbers():
    """9 came before 10; what is no number is never called older."""
    assert is_older("9", "10")
    assert not is_older("10", "9")
    assert not is_older("", "9")
    assert not is_older("a", "b")
