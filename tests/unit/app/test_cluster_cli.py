"""`sftjob status | logs | wait | cancel | list` from the command line, against an API over loopback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftjob import cli
from sftjob.cluster import transport
from tests.unit.cluster.api_server import Answer, ApiServer, api_server, page, refusal, write_kubeconfig
from tests.unit.cluster.made import RUN, job, pod

JOBS, PODS = "/apis/batch/v1/namespaces/ns/jobs", "/api/v1/namespaces/ns/pods"
COMMANDS = ("status", "logs", "wait", "cancel")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(transport, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with api_server() as running:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", running.url)))
        yield running


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Exit code, output and errors of a command."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["sftjob", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err.splitlines()

    return run


@pytest.mark.parametrize("command", COMMANDS)
class TestTroubles:
    def test_no_cluster(self, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

        code, _, told = call(command, RUN)
        assert (code, len(told)) == (69, 1)
        assert told[0].startswith("error: no cluster is configured: there is no ")

    def test_no_answer(self, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
        monkeypatch.setattr(transport, "time", SimpleNamespace(sleep=lambda _: None))
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))

        code, _, told = call(command, RUN)
        assert (code, len(told)) == (69, 1)
        assert "does not answer (Connection refused); check that" in told[0]

    def test_no_permission(self, server: ApiServer, call: Any, command: str) -> None:
        server.says(JOBS, refusal(403, "Forbidden", 'jobs is forbidden: User "u" cannot list resource "jobs"'))

        code, _, told = call(command, RUN)
        assert (code, len(told)) == (77, 1)
        assert told[0].startswith('error: User "u" cannot list resource "jobs"; ask for a role')
        assert told[0].endswith("kubectl auth can-i list jobs -n ns")

    def test_no_such_run(self, server: ApiServer, call: Any, command: str) -> None:
        server.says(JOBS, page())
        server.says("/api/v1/namespaces/ns", Answer(body={}))

        code, _, told = call(command, RUN)
        assert (code, told) == (
            66,
            [f"error: no run {RUN} in namespace ns; sftjob list -n NAMESPACE shows what there is; -A, all runs"],
        )

    def test_no_such_spec(self, server: ApiServer, call: Any, command: str) -> None:
        code, _, told = call(command, "absent.yaml")

        assert (code, len(told)) == (64, 1)
        assert not server.asked


def test_no_client_library() -> None:
    code = "import sys; sys.modules['kubernetes'] = None; sys.argv[1:] = ['list']; from sftjob.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stderr) == (
        78,
        "error: this needs the package kubernetes; pip install 'sftjob[k8s]'\n",
    )


def test_status_as_json(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page(job()))
    server.says(PODS, page(pod()))

    code, out, told = call("status", RUN, "--json")
    assert code == 0
    assert json.loads(out)["phase"] == "training"
    assert told[0].startswith("note: without step, loss and checkpoints: ")


def test_status_takes_four_requests_and_two_for_the_address_of_the_store(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page(job()))
    server.says(PODS, page(pod()))
    call("status", RUN)

    assert [each.path.rpartition("/")[2] for each in server.asked] == ["jobs", "jobs", "pods", f"{RUN}-9f3e-spec"]


def test_wait_ends_with_the_runs_own_code(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page(job(ended="Failed", reason="PodFailurePolicy")))
    server.says(PODS, page(pod(exit_code=65)))

    code, out, told = call("wait", RUN)
    assert (code, told) == (65, [])
    assert out == "phase    failed (65): the data are wrong\n"


def test_wait_stops_waiting(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page(job()))
    server.says(PODS, page())
    server.says("/api/v1/namespaces/ns/events", page())

    code, _, told = call("wait", RUN, "--timeout", "0")
    assert (code, told[-1]) == (75, f"note: stopped waiting; {RUN} goes on (pending)")


@pytest.mark.parametrize(
    ("command", "expected"),
    [(["wait"], (75, "", ["note: stopped waiting; the run goes on"])), (["logs", "-f"], (0, "", []))],
)
def test_a_ctrl_c_leaves_the_run_alone(
    server: ApiServer,
    call: Any,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    expected: tuple[int, str, list[str]],
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    server.says(JOBS, page(job()))
    monkeypatch.setattr("sftjob.app.wait.wait", stop)
    monkeypatch.setattr("sftjob.app.logs.follow_logs", stop)

    assert call(*command, RUN) == expected


def test_the_namespace_of_the_option_wins(server: ApiServer, call: Any, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("namespace: of-the-profile\n")
    for namespace in ("of-the-profile", "of-the-option"):
        server.says(f"/apis/batch/v1/namespaces/{namespace}/jobs", page(job()))

    assert call("list", "--profile", tmp_path / "profile.yaml")[0] == 0
    assert call("list", "--profile", tmp_path / "profile.yaml", "-n", "of-the-option")[0] == 0
    namespaces = [each.path.split("/")[5] for each in server.asked if each.path.endswith("/jobs")]
    assert namespaces == ["of-the-profile", "of-the-option"]


def test_list_is_a_page_of_jobs_and_one_of_jobsets(server: ApiServer, call: Any) -> None:
    server.says("/apis/batch/v1/jobs", page(job(), token="more"), page(job("eval", suspend=True)))
    server.says("/apis/jobset.x-k8s.io/v1alpha2/jobsets", page())

    code, out, _ = call("list", "-A")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [["NAMESPACE", "RUN", "PHASE"], ["ns", RUN, "pending"]]
    assert len(server.asked) == 3
    assert server.asked[0].query["labelSelector"] == (
        "app.kubernetes.io/name=sftjob,app.kubernetes.io/component in (train,eval),!jobset.sigs.k8s.io/jobset-name"
    )


def test_an_empty_list_is_a_note(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page())
    server.says("/api/v1/namespaces/ns", Answer(body={}))

    assert call("list") == (0, "", ["note: no runs in namespace ns"])
    assert json.loads(call("list", "--json")[1]) == []


def test_logs_of_one_component(server: ApiServer, call: Any) -> None:
    server.says(JOBS, page(job()))
    server.says(PODS, page(pod(), pod("gate")))
    server.says(f"{PODS}/{RUN}-9f3e-gate-0-x7k2p/log", Answer(lines=[b"2026-11-24T10:00:01.1Z looks\n"]))

    assert call("logs", RUN, "--component", "gate", "--tail", "5")[1] == "[gate] looks\n"
    assert call("logs", RUN, "--component", "nope")[0] == 64
