import sys
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from sftjob.cluster import credentials
from sftjob.cluster.api import Kind, connect
from sftjob.errors import ClusterUnavailable, Denied
from tests.unit.cluster.api_server import Answer, ApiServer, api_server, page, write_kubeconfig

PLUGIN = """\
import json, sys
if sys.argv[1] == "fails":
    sys.exit("no session; log in")
version = "client.authentication.k8s.io/v1"
print(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": "from-plugin"}}))
"""


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kubeconfig of whoever runs the tests, and no pod around them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


def plugin(tmp_path: Path, argument: str) -> dict[str, object]:
    script = tmp_path / "plugin.py"
    script.write_text(PLUGIN)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(script), argument]}}


def test_no_cluster_is_one_line() -> None:
    with pytest.raises(
        ClusterUnavailable, match=r"^no cluster is configured: there is no ~/\.kube/config; set KUBECONFIG"
    ):
        connect()


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    with pytest.raises(ClusterUnavailable, match=r"there is no .*/absent"):
        connect()


@pytest.mark.parametrize("text", ["", "[1, 2", "a: b", "- 1", "current-context: x\ncontexts: 5"])
def test_a_file_that_is_no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    with pytest.raises(ClusterUnavailable, match="kubectl config") as raised:
        connect()
    assert "\n" not in str(raised.value)


def test_a_context_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))

    with pytest.raises(ClusterUnavailable, match=r"there.*kubectl config get-contexts"):
        connect(context="there")


def test_the_namespace_is_the_contexts_unless_one_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1", namespace="research")
    monkeypatch.setenv("KUBECONFIG", str(file))

    assert connect().namespace == "research"
    assert connect(context="here").namespace == "research"
    assert connect(namespace="other").namespace == "other"


def test_without_any_it_is_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1", namespace="")))

    assert connect().namespace == "default"


def test_the_home_folders_file_is_found(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", "http://127.0.0.1:1", namespace="home")

    assert connect().namespace == "home"


def test_several_files_are_merged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1", namespace="second")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{file}")

    assert connect().namespace == "second"


def test_a_credential_plugin_gives_the_token(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write_kubeconfig(tmp_path / "config", server.url, user=plugin(tmp_path, "works"))
    monkeypatch.setenv("KUBECONFIG", str(file))
    server.says("/api/v1/nodes", page())

    assert list(connect().find(Kind.NODE)) == []
    assert server.asked[0].headers["authorization"] == "Bearer from-plugin"


def test_a_credential_plugin_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1", user=plugin(tmp_path, "fails"))
    monkeypatch.setenv("KUBECONFIG", str(file))

    with pytest.raises(Denied, match=r"credential plugin failed: .*no session; log in"):
        connect()


def test_a_proxy_of_the_kubeconfig_is_used(server: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proxied = {"proxy-url": server.url}
    file = write_kubeconfig(tmp_path / "config", "http://cluster.invalid", cluster=proxied)
    monkeypatch.setenv("KUBECONFIG", str(file))
    server.says("/api/v1/nodes", page())

    assert list(connect().find(Kind.NODE)) == []
    assert server.asked[0].headers["Host"] == "cluster.invalid"


def test_in_a_pod_the_service_account_is_used(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-the-pod")
    (tmp_path / "namespace").write_text("pods\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate[0]))
    monkeypatch.setattr(credentials, "_IN_CLUSTER_NAMESPACE", tmp_path / "namespace")
    with api_server(certificate) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
        server.says("/apis/batch/v1/namespaces/pods/jobs/a", Answer(body={}))

        assert connect().get(Kind.JOB, "a") == {}
        assert server.asked[0].headers["authorization"] == "bearer of-the-pod"


def test_a_pod_without_a_token_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")

    with pytest.raises(
        ClusterUnavailable, match=r"no cluster is configured: .*token.*; give the pod a service account"
    ):
        connect()
