import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.cluster.api import Cluster, Kind, connect
from sftjob.errors import ClusterError, ClusterUnavailable, Conflict, Denied, ObjectMissing, SftjobError, SpecError
from tests.unit.cluster.api_server import Answer, ApiServer, api_server, page, refusal, stream, write_kubeconfig

JOBS = "/apis/batch/v1/namespaces/ns/jobs"
PODS = "/api/v1/namespaces/ns/pods"
DETAILS = {"name": "a", "kind": "jobs"}


def job(name: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": version}}


class TestRequests:
    def test_get_asks_for_one_object_with_the_token(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{JOBS}/a", Answer(body=job("a")))

        assert cluster.get(Kind.JOB, "a") == job("a")
        assert server.asked[0].headers["authorization"] == "Bearer secret"
        assert server.asked[0].headers["User-Agent"].startswith("sftjob/")

    def test_another_namespace(self, cluster: Cluster, server: ApiServer) -> None:
        server.says("/apis/batch/v1/namespaces/other/jobs/a", Answer(body=job("a")))

        assert cluster.at("other").get(Kind.JOB, "a") == job("a")

    def test_nodes_are_in_no_namespace(self, cluster: Cluster, server: ApiServer) -> None:
        server.says("/api/v1/nodes", page({"metadata": {"name": "n"}}))

        assert [each["metadata"] for each in cluster.find(Kind.NODE)] == [{"name": "n"}]

    def test_find_reads_page_after_page(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(JOBS, page(job("a"), job("b"), token="next"), page(job("c")))

        found = cluster.find(Kind.JOB, labels={"x": "y", "z": "w"}, page=2)
        assert not server.asked, "nothing is asked before it is needed"
        assert [each["metadata"]["name"] for each in found] == ["a", "b", "c"]
        assert server.queries(JOBS) == [
            {"labelSelector": "x=y,z=w", "limit": "2"},
            {"labelSelector": "x=y,z=w", "limit": "2", "continue": "next"},
        ]

    def test_find_in_all_namespaces(self, cluster: Cluster, server: ApiServer) -> None:
        server.says("/apis/batch/v1/jobs", page(job("a")))

        assert len(list(cluster.find(Kind.JOB, all_namespaces=True, fields={"metadata.name": "a"}))) == 1
        assert server.asked[0].query["fieldSelector"] == "metadata.name=a"

    def test_a_list_outlives_its_token(self, cluster: Cluster, server: ApiServer) -> None:
        gone = refusal(410, "Expired", "too old", metadata={"continue": "fresh"})
        server.says(JOBS, page(job("a"), token="old"), gone, page(job("b")))

        assert len(list(cluster.find(Kind.JOB))) == 2
        assert [each.get("continue") for each in server.queries(JOBS)] == [None, "old", "fresh"]

    def test_apply_is_server_side_and_strict(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{JOBS}/a", Answer(body=job("a")))
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}}

        cluster.apply(manifest, dry_run=True)
        asked = server.asked[0]
        assert (asked.method, asked.headers["Content-Type"]) == ("PATCH", "application/apply-patch+yaml")
        assert asked.query == {
            "fieldManager": "sftjob",
            "fieldValidation": "Strict",
            "force": "false",
            "dryRun": "All",
        }
        assert json.loads(asked.body) == manifest

    def test_apply_goes_where_the_manifest_says(self, cluster: Cluster, server: ApiServer) -> None:
        server.says("/api/v1/namespaces/other/configmaps/a", Answer(body={}))

        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}})
        assert "dryRun" not in server.asked[0].query

    def test_a_merge_patch(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{JOBS}/a", Answer(body=job("a")))

        cluster.patch(Kind.JOB, "a", {"spec": {"suspend": False}})
        assert server.asked[0].headers["Content-Type"] == "application/merge-patch+json"
        assert json.loads(server.asked[0].body) == {"spec": {"suspend": False}}

    def test_deletion_names_its_propagation(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{JOBS}/a", Answer(body={"kind": "Status"}))

        cluster.delete(Kind.JOB, "a", grace_seconds=5)
        asked = json.loads(server.asked[0].body)
        assert (asked["propagationPolicy"], asked["gracePeriodSeconds"]) == ("Foreground", 5)

    def test_a_log_comes_line_by_line(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{PODS}/p/log", Answer(lines=[b"one\ntw", b"o\n", b"last"]))

        lines = cluster.log("p", "trainer", follow=True, tail_lines=3, since_time="2026-01-01T00:00:00Z")
        assert list(lines) == [b"one", b"two", b"last"]
        assert server.asked[0].query == {
            "container": "trainer",
            "follow": "true",
            "sinceTime": "2026-01-01T00:00:00Z",
            "tailLines": "3",
        }


class TestWatch:
    def test_lists_then_follows(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(JOBS, page(job("a"), version="7"), stream(("MODIFIED", job("a", "8")), ("DELETED", job("a", "9"))))

        events = cluster.watch(Kind.JOB, labels={"x": "y"})
        assert [next(events)[0] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]
        watched = server.queries(JOBS)[1]
        assert (watched["resourceVersion"], watched["labelSelector"], watched["watch"]) == ("7", "x=y", "true")

    def test_a_410_within_the_stream_lists_again(self, cluster: Cluster, server: ApiServer) -> None:
        gone = ("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
        server.says(JOBS, page(job("a")), stream(gone), page(job("b")), stream())

        events = cluster.watch(Kind.JOB)
        seen = [(kind, each["metadata"]["name"]) for kind, each in (next(events) for _ in range(3))]
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]

    def test_a_lost_connection_goes_on_from_the_last_version(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(
            JOBS, page(job("a")), stream(("MODIFIED", job("a", "55")), cut=True), stream(("DELETED", job("a", "56")))
        )

        events = cluster.watch(Kind.JOB)
        assert [next(events)[0] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]
        assert server.queries(JOBS)[2]["resourceVersion"] == "55"

    @pytest.mark.parametrize(
        "line", [b'{"type": "MODI', b"<html>\n", b"{}\n", b"[]\n", b'{"type": "ADDED", "object": 1}\n']
    )
    def test_a_broken_line_is_a_broken_connection(self, cluster: Cluster, server: ApiServer, line: bytes) -> None:
        server.says(JOBS, page(job("a")), Answer(lines=[line]), stream(("DELETED", job("a", "2"))))

        events = cluster.watch(Kind.JOB)
        assert [next(events)[0] for _ in range(2)] == ["ADDED", "DELETED"]

    def test_a_refusal_ends_it(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(JOBS, page(), refusal(403, "Forbidden", 'jobs is forbidden: User "u" cannot watch resource "jobs"'))

        with pytest.raises(Denied, match="cannot watch"):
            next(cluster.watch(Kind.JOB))


FORBIDDEN = 'jobs.batch "a" is forbidden: User "u" cannot get resource "jobs" in API group "batch"'
MAY = r'^User "u" cannot get .*; ask for a role that allows it; kubectl auth can-i get jobs -n ns$'
NO_FIELD = "failed to create typed patch object (ns/a; batch/v1, Kind=Job): .spec.x: field not declared"
REFUSALS: list[tuple[Answer, type[SftjobError], str]] = [
    (refusal(401, "Unauthorized", "Unauthorized"), Denied, "does not accept these credentials.*kubectl auth whoami"),
    (refusal(403, "Forbidden", FORBIDDEN), Denied, MAY),
    (refusal(404, "NotFound", 'jobs "a" not found', details=DETAILS), ObjectMissing, "^Job a is not in namespace ns$"),
    (refusal(409, "Conflict", "Apply failed with 1 conflict"), Conflict, "Job a: Apply failed .*managed-fields"),
    (refusal(400, "BadRequest", 'strict decoding error: unknown field "x"'), SpecError, '^Job a: unknown field "x"$'),
    (refusal(422, "Invalid", 'Job "a" is invalid: spec.x: Required'), SpecError, "^Job a: spec.x: Required$"),
    (refusal(500, "InternalError", NO_FIELD), SpecError, r"^Job a: \.spec\.x: field not declared$"),
    (
        refusal(500, "InternalError", "etcd\nis away"),
        ClusterUnavailable,
        "not serve get Job a: etcd is away; try again",
    ),
    (Answer(418, b"<html>a teapot"), ClusterError, "HTTP 418: <html>a teapot"),
    (Answer(200, b"<html>welcome"), ClusterError, "does not answer in JSON"),
]


class TestRefusals:
    @pytest.mark.parametrize(("answer", "error", "match"), REFUSALS, ids=[each[2][:30] for each in REFUSALS])
    def test_is_one_line_of_its_class(
        self, cluster: Cluster, server: ApiServer, answer: Answer, error: type[SftjobError], match: str
    ) -> None:
        server.says(f"{JOBS}/a", answer)

        with pytest.raises(error, match=match) as raised:
            cluster.get(Kind.JOB, "a")
        assert type(raised.value) is error
        assert "\n" not in str(raised.value)
        assert len(server.asked) == 1, "what will not pass is not asked again"

    def test_a_namespace_that_is_not_there_comes_with_the_command_that_makes_it(
        self, cluster: Cluster, server: ApiServer
    ) -> None:
        server.says(f"{JOBS}/a", refusal(404, "NotFound", 'namespaces "ns" not found', details={"kind": "namespaces"}))

        with pytest.raises(ObjectMissing, match="namespace ns is not in the cluster; kubectl create namespace ns"):
            cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}})

    def test_a_kind_that_is_not_there(self, cluster: Cluster) -> None:
        with pytest.raises(ObjectMissing, match=r"the cluster has no JobSet \(jobset.x-k8s.io/v1alpha2\)"):
            list(cluster.find(Kind.JOBSET))

    @pytest.mark.parametrize(
        ("message", "hint"),
        [
            ("exceeded quota: q, requested: cpu=4", r"^Pod a: exceeded quota: q.*kubectl describe quota -n ns"),
            ('violates PodSecurity "restricted:latest": x', r"^Pod a: violates PodSecurity.*--show-labels"),
        ],
    )
    def test_admission_is_no_question_of_roles(
        self, cluster: Cluster, server: ApiServer, message: str, hint: str
    ) -> None:
        server.says(f"{PODS}/a", refusal(403, "Forbidden", f'pods "a" is forbidden: {message}'))

        with pytest.raises(Denied, match=hint) as raised:
            cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})
        assert "can-i" not in str(raised.value)

    def test_a_busy_server_is_asked_again_when_it_says(
        self, cluster: Cluster, server: ApiServer, pauses: list[float]
    ) -> None:
        server.says(f"{JOBS}/a", Answer(429, {}, headers={"Retry-After": "7"}), Answer(503, {}), Answer(body=job("a")))

        assert cluster.get(Kind.JOB, "a") == job("a")
        assert pauses[0] == 7
        assert len(server.asked) == 3

    def test_a_body_that_breaks_off_is_read_again(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{JOBS}/a", Answer(lines=[b'{"half'], cut=True), Answer(body=job("a")))

        assert cluster.get(Kind.JOB, "a") == job("a")

    def test_a_log_of_a_container_that_has_not_started(self, cluster: Cluster, server: ApiServer) -> None:
        server.says(f"{PODS}/p/log", refusal(400, "BadRequest", 'container "c" in pod "p" is waiting to start'))

        with pytest.raises(SpecError, match="waiting to start"):
            next(cluster.log("p", "c"))


class TestNoAnswer:
    def test_nobody_listens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))

        with pytest.raises(ClusterUnavailable) as raised:
            connect().get(Kind.JOB, "a")
        assert str(raised.value) == (
            "http://127.0.0.1:1 does not answer (Connection refused); "
            "check that the cluster is up and reachable from here: kubectl cluster-info"
        )
        assert len(pauses) == 3

    def test_a_certificate_that_is_not_the_clusters(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
    ) -> None:
        with api_server(certificate) as server:
            monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", server.url)))

            with pytest.raises(ClusterError, match=r"is not trusted \(.*certificate.*\); check certificate-authority"):
                connect().get(Kind.JOB, "a")

    def test_the_kubeconfigs_authority_is_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
    ) -> None:
        with api_server(certificate) as server:
            server.says(f"{JOBS}/a", Answer(body=job("a")))
            trusted = {"certificate-authority": str(certificate[0])}
            file = write_kubeconfig(tmp_path / "config", server.url, cluster=trusted)
            monkeypatch.setenv("KUBECONFIG", str(file))

            assert connect().get(Kind.JOB, "a") == job("a")
