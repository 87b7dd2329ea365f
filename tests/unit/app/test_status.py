import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.app.run_progress import read_progress
from sftjob.app.run_target import evaluation_is_ours, open_run_store
from sftjob.app.status import read_status, status_json
from sftjob.app.status_text import status_lines
from sftjob.cluster.kinds import Kind
from sftjob.cluster.phase import Phase
from sftjob.cluster.runs import load_run
from sftjob.contract import Env, keys
from sftjob.errors import InputMissing, ObjectMissing
from sftjob.spec import JobSpec
from sftjob.storage import FolderStore
from tests.unit.app.on_cluster import Lines, authored, failed, target, trained_to
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, event, job, pod

POD = f"{RUN}-9f3e-train-0-x7k2p"
SPEC = {
    "name": "demo",
    "model": {"hub": "a/b", "revision": "0" * 40},
    "data": {"train": [{"uri": "s3://bucket/rows.jsonl"}]},
    "method": {"type": "lora"},
}


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    """One pod trains; the platform says where results go."""
    made = FakeCluster()
    made.put(Kind.JOB, job(env={Env.STORAGE_URI.value: str(tmp_path)}), job("eval", suspend=True), job("gate"))
    made.put(Kind.POD, pod())
    return made


class TestProgress:
    def test_the_newest_of_everything(self, tmp_path: Path) -> None:
        progress = read_progress(trained_to(tmp_path, 300, committed=(100, 200), attempt=3))

        assert (progress.step, progress.steps, progress.loss) == (300, 1000, 2.0)
        assert (progress.held_out_loss, progress.held_out_step) == (1.5, 300)
        assert (progress.committed, progress.restarts) == (200, 2)
        assert progress.committed_at is not None
        assert progress.seconds_left == 1400
        assert not progress.trained

    def test_nothing_yet(self, tmp_path: Path) -> None:
        progress = read_progress(FolderStore(tmp_path).at(RUN))

        assert (progress.attempt, progress.step, progress.steps, progress.committed) == (0, None, None, None)
        assert progress.seconds_left is None

    def test_an_attempt_that_has_logged_nothing_yet_shows_what_the_one_before_did(self, tmp_path: Path) -> None:
        trained_to(tmp_path, 300)
        store = FolderStore(tmp_path).at(RUN)
        store.put_bytes(keys.claim(2), b"{}")

        progress = read_progress(store)
        assert (progress.attempt, progress.step, progress.steps) == (2, 300, 1000)

    def test_only_the_last_segments_tell_the_speed(self, tmp_path: Path) -> None:
        store = trained_to(tmp_path, 10)
        for segment in range(1, 9):
            store.put_bytes(keys.metrics(1, segment), store.get_bytes(keys.metrics(1, 0)))

        assert read_progress(store).step == 10

    def test_an_evaluation_counts_when_it_is_whole(self, tmp_path: Path) -> None:
        store = trained_to(tmp_path, 10)
        store.put_bytes(keys.SUCCESS, b"{}")
        store.put_bytes(keys.evaluation("e", "shards/x"), b"{}")
        assert not read_progress(store).evaluated

        store.put_bytes(keys.evaluation("e", keys.SUCCESS), b"{}")
        assert read_progress(store).evaluated

    def test_a_failure_counts_until_there_is_a_success(self, tmp_path: Path) -> None:
        store = trained_to(tmp_path, 10)
        failed(store, 80, "diverged")
        found = read_progress(store).failed
        assert found is not None
        assert found.exit_code == 80

        store.put_bytes(keys.SUCCESS, b"{}")
        assert read_progress(store).failed is None


class TestStore:
    def test_the_specs_own_comes_before_the_platforms(self, cluster: FakeCluster, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        authored(cluster, {"storage": {"uri": str(tmp_path / "own")}})

        store = open_run_store(target(cluster), load_run(cluster, RUN))  # type: ignore[arg-type]
        assert store.uri == f"file://{tmp_path}/own/{RUN}"

    def test_a_dollar_of_the_uri_stands_doubled_in_manifests(self, tmp_path: Path) -> None:
        (tmp_path / "$x").mkdir()
        made = FakeCluster()
        made.put(Kind.JOB, job(env={Env.STORAGE_URI.value: f"{tmp_path}/$$x"}))

        assert open_run_store(target(made), load_run(made, RUN)).uri.endswith(f"/%24x/{RUN}")  # type: ignore[arg-type]

    def test_nobody_knows_where(self) -> None:
        made = FakeCluster()
        made.put(Kind.JOB, job())

        with pytest.raises(InputMissing, match=r"where the results of demo-.* are; name the run by its spec file"):
            open_run_store(target(made), load_run(made, RUN))  # type: ignore[arg-type]

    def test_a_spec_that_is_no_json_is_passed_over(self, cluster: FakeCluster) -> None:
        cluster.put(Kind.CONFIG_MAP, {"metadata": {"name": f"{RUN}-9f3e-spec"}, "data": {"spec.json": "{"}})

        assert open_run_store(target(cluster), load_run(cluster, RUN)).uri.endswith(RUN)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("trigger", "ours"), [("cli", True), ("gate", False), (None, False)])
    def test_who_starts_the_evaluation(self, cluster: FakeCluster, trigger: str | None, ours: bool) -> None:
        authored(cluster, {"kubernetes": {"evaluation": trigger}} if trigger else {})

        assert evaluation_is_ours(cluster, load_run(cluster, RUN)) is ours  # type: ignore[arg-type]


class TestStatus:
    def test_of_a_training(self, cluster: FakeCluster, tmp_path: Path) -> None:
        trained_to(tmp_path, 250, committed=(200,), attempt=2)
        lines = list(status_lines(read_status(target(cluster))))

        assert lines[0] == f"run      {RUN} (revision 9f3e, namespace ns)"
        assert lines[1] == "phase    training"
        assert lines[2] == "step     250 of 1,000 (25.0 %), 25 min left"
        assert lines[3] == "loss     2.0000; held out 1.5000 at step 250"
        assert lines[4].startswith("saved    step 200, ")
        assert lines[5:] == [
            "restarts 1",
            f"store    file://{tmp_path}/{RUN}",
            f"pod      {POD}  running on worker",
        ]

    def test_before_the_first_checkpoint(self, cluster: FakeCluster, tmp_path: Path) -> None:
        trained_to(tmp_path, 0)

        assert "saved    no checkpoint yet" in status_lines(read_status(target(cluster)))

    def test_a_pending_pod_comes_with_reason_and_command(self, cluster: FakeCluster, tmp_path: Path) -> None:
        cluster.put(Kind.POD, pod(phase="Pending"))
        cluster.put(Kind.EVENT, event("FailedMount", 'secret "s" not found', POD) | {"metadata": {"name": "e"}})
        lines = list(status_lines(read_status(target(cluster))))

        assert f"why      {POD} needs Secret s, which is not in namespace ns" in lines
        assert "next     kubectl create secret generic s -n ns --from-file=…" in lines

    @pytest.mark.parametrize(
        ("gate", "pods", "why"),
        [
            ([], [], "no gate is there to start it"),
            ([job("gate", ended="Failed")], [], "the gate has ended without starting it"),
            ([job("gate")], [pod("gate", waiting="ErrImagePull", message="not found")], "it is not in the registry"),
            ([job("gate")], [pod("gate")], None),
        ],
        ids=["no gate", "ended", "pending", "at work"],
    )
    def test_why_a_trained_run_is_not_evaluated(self, gate: list[Any], pods: list[Any], why: str | None) -> None:
        made = FakeCluster()
        made.put(Kind.JOB, job(ended="Complete"), job("eval", suspend=True), *gate)
        made.put(Kind.POD, *pods)
        found = read_status(target(made))

        assert found.state.phase is Phase.TRAINED
        assert (why is None and found.why is None) or (why or "") in str(found.why)

    def test_without_the_store_the_clusters_half_is_shown(self) -> None:
        made, notes = FakeCluster(), Lines()
        made.put(Kind.JOB, job(ended="Failed", reason="PodFailurePolicy"))
        made.put(Kind.POD, pod(exit_code=65, left='{"reason": "row 7: no messages"}'))
        lines = list(status_lines(read_status(target(made), warn=notes)))

        assert lines[1] == "phase    failed (65): row 7: no messages"
        assert lines[2] == f"pod      {POD}  ended with 65: row 7: no messages on worker"
        assert notes[0].startswith("note: without step, loss and checkpoints: nothing in namespace ns tells")

    def test_a_stale_failure_in_the_store_says_nothing_of_a_run_that_trains(
        self, cluster: FakeCluster, tmp_path: Path
    ) -> None:
        failed(trained_to(tmp_path, 10), 80, "diverged")

        assert read_status(target(cluster)).state.phase is Phase.TRAINING

    def test_nothing_anywhere(self) -> None:
        with pytest.raises(ObjectMissing, match="no run demo-0a1b2c3d in namespace ns; sftjob submit starts it"):
            read_status(target(FakeCluster()))

    @pytest.mark.parametrize(
        ("ended", "phase"),
        [("", Phase.STOPPED), ("failed", Phase.FAILED), ("trained", Phase.TRAINED), ("evaluated", Phase.DONE)],
    )
    def test_of_a_run_whose_jobs_are_gone_the_store_tells(self, tmp_path: Path, ended: str, phase: Phase) -> None:
        store = trained_to(tmp_path, 10)
        if ended == "failed":
            failed(store, 80, "diverged")
        elif ended:
            store.put_bytes(keys.SUCCESS, b"{}")
        if ended == "evaluated":
            store.put_bytes(keys.evaluation("e", keys.SUCCESS), b"{}")
        spec = JobSpec.model_validate_json(json.dumps(SPEC | {"storage": {"uri": str(tmp_path)}}))

        assert read_status(target(FakeCluster(), spec=spec)).state.phase is phase

    def test_as_json(self, cluster: FakeCluster, tmp_path: Path) -> None:
        trained_to(tmp_path, 250, committed=(200,))
        shown = json.loads(json.dumps(status_json(read_status(target(cluster)))))

        assert (shown["phase"], shown["nodes"], shown["restarts"]) == ("training", 1, 0)
        assert shown["progress"]["seconds_left"] == 1500
        assert shown["progress"]["committed_seconds_ago"] >= 0
        assert shown["pods"][0] == {
            "name": POD,
            "component": "train",
            "index": 0,
            "phase": "Running",
            "node": "worker",
            "exit_code": None,
            "reason": None,
        }

    def test_of_many_pods_only_those_are_shown_that_need_a_look(self, cluster: FakeCluster) -> None:
        cluster.put(Kind.JOB, job(pods=40))
        cluster.put(Kind.POD, *(pod(index=index) for index in range(39)), pod(index=39, phase="Pending"))
        lines = list(status_lines(read_status(target(cluster))))

        assert lines[1] == "phase    starting, 39 of 40 pods run"
        assert [line for line in lines if line.startswith("pod")] == [
            f"pod      {RUN}-9f3e-train-39-x7k2p  has not started on worker",
            "pods     39 more",
        ]
