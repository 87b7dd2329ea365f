"""Attempts of two pods: two supervisors with a work folder each over one store, and ranks that act out scripts."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.records import PodClaim, Result, Start, read_record
from sftjob.train.verdict import Verdict
from sftjob.train.workdir import RankInput

Stage = Any  # of conftest.py, which cannot be imported
POD = Path(__file__).parent / "pod.py"
COMMIT_1 = ["wait_for", "store/*/commits/*1.json"]
COMMIT_2 = ["wait_for", "store/*/commits/*2.json"]
DONE = [["save", 1], COMMIT_1, ["save", 2], ["done"]]
PEER_DONE = [["save", 1], COMMIT_1, ["save", 2], ["result", 0]]


@dataclass
class Pods:
    """Pods of one run."""

    stage: Stage
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def begin(self, index: int, *script: object, prepare: str = "well", **settings: object) -> "subprocess.Popen[str]":
        given = {
            "spec": str(self.stage.settings.spec),
            "work": str(self.work(index)),
            "index": index,
            "master_addr": "127.0.0.1",
            "look_seconds": 0.02,
            "patience_seconds": 60,
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, str(POD), json.dumps(given), json.dumps(script), prepare],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def play(self, *scripts: list[object], **settings: object) -> list[Verdict]:
        """One attempt of all pods."""
        return [
            end(process) for process in [self.begin(index, *each, **settings) for index, each in enumerate(scripts)]
        ]

    def work(self, index: int) -> Path:
        return Path(self.stage.folder / f"work-{index}")

    def resumed(self, index: int) -> int | None:
        """The step that a pod's ranks were given to continue from."""
        given = RankInput.model_validate_json((self.work(index) / "rank_input.json").read_bytes())
        return None if given.resume is None else int(json.loads((given.resume / "state.json").read_text())["step"])

    def result(self, attempt: int, index: int) -> Result:
        key = keys.result(attempt, index)
        return read_record(Result, self.stage.store.get_bytes(key), key)

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 30
        while not list(self.stage.folder.glob(pattern)):
            assert time.monotonic() < deadline, pattern
            time.sleep(0.01)


def end(process: "subprocess.Popen[str]") -> Verdict:
    output, _ = process.communicate(timeout=120)
    print(output)  # pytest shows it where a test fails
    told = json.loads(output.splitlines()[-1])
    assert process.returncode == told["code"], output
    return Verdict(ExitCode(told["code"]), told["reason"], told["step"])


@pytest.fixture
def pods(stage: Stage) -> Iterator[Pods]:
    stage.spec(launch={"gpus_per_node": 0, "nodes": 2})
    made = Pods(stage)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_two_pods_train_commit_and_end_together(pods: Pods) -> None:
    assert pods.play(DONE, PEER_DONE) == [Verdict(ExitCode.DONE, step=2)] * 2

    stage = pods.stage
    assert stage.commits == [1, 2]
    commit = stage.commit(2)
    assert commit.world_size == 2
    assert {entry.path: entry.key for entry in commit.files} == {
        "state-0.bin": keys.checkpoint(2, 1, "state-0.bin"),
        "state-1.bin": keys.checkpoint(2, 1, "nodes/1/state-1.bin"),
        "state.json": keys.checkpoint(2, 1, "state.json"),
    }
    for index in (0, 1):
        assert pods.result(1, index).exit_code == 0
        assert list(pods.work(index).glob("checkpoints/*")) == []
    for key in (keys.SUCCESS, keys.released(1), keys.pod(1, 1), keys.start(1), keys.ready(1, 1)):
        assert stage.has(key), key
    assert (stage.folder / "prepared").read_text() == "1\n"
    assert (pods.work(1) / "data" / "train.arrow").read_bytes() == (pods.work(0) / "data" / "train.arrow").read_bytes()


def test_ranks_are_told_their_place_and_where_they_meet(pods: Pods) -> None:
    script = [["environment_variables", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]]
    pods.play([*script, *DONE], [*script, *PEER_DONE], master_addr="localhost", master_port=4000)
    told = [json.loads((pods.stage.folder / f"variables-{index}").read_text()) for index in (0, 1)]
    assert told == [["0", "0", "2", "localhost", "4000"], ["1", "0", "2", "localhost", "4000"]]


def test_the_next_attempt_restores_the_union_of_the_parts_on_each_node(pods: Pods) -> None:
    crash = [["save", 1], COMMIT_1, ["kill", 9]]
    assert [verdict.code for verdict in pods.play(crash, crash)] == [ExitCode.CRASH] * 2

    assert [verdict.code for verdict in pods.play([["save", 2], ["done"]], [["save", 2], ["result", 0]])] == [0, 0]
    start = read_record(Start, pods.stage.store.get_bytes(keys.start(2)), "start")
    assert start.step == 1
    for index in (0, 1):
        assert pods.resumed(index) == 1
        restored = {path.name: path.read_text() for path in (pods.work(index) / "resume").glob("*.bin")}
        assert restored == {"state-0.bin": "weights 1", "state-1.bin": "weights 1"}


def test_all_continue_from_the_step_that_pod_0_found_whole(pods: Pods) -> None:
    pods.play(
        [["save", 1], COMMIT_1, ["save", 2], COMMIT_2, ["kill", 9]], [["save", 1], COMMIT_1, ["save", 2], ["hang"]]
    )
    next((pods.stage.folder / "store").glob("*/checkpoints/0000000002/1/nodes/1/state-1.bin")).write_text("weightz 2")
    pods.play([["kill", 9]], [["hang"]])
    assert [pods.resumed(0), pods.resumed(1)] == [1, 1]


def test_a_step_that_one_node_never_saves_is_never_committed(pods: Pods) -> None:
    verdicts = pods.play([["save", 1], COMMIT_1, ["save", 2], ["hang"]], [["save", 1], COMMIT_1, ["result", 80, "nan"]])
    assert [verdict.code for verdict in verdicts] == [ExitCode.DIVERGED] * 2
    assert pods.stage.commits == [1]


def test_nodes_that_save_at_their_own_pace_upload_the_same_steps(pods: Pods) -> None:
    """Node 1 has saved ten steps before node 0 has saved one, and node 0 skips most of them."""
    ahead = [["save", step] for step in range(1, 11)]
    behind = [["wait_for", "work-1/checkpoints/saved-10-0"], *[["save", step] for step in (1, 2, 3, 10)]]
    assert [verdict.code for verdict in pods.play([*behind, ["done"]], [*ahead, ["result", 0]])] == [0, 0]
    assert pods.stage.commits[-1] == 10
    wanted = {path.parts[-4] for path in pods.stage.folder.glob("store/*/checkpoints/*/1/parts/wanted.json")}
    parts = {path.parts[-4] for path in pods.stage.folder.glob("store/*/checkpoints/*/1/parts/1.json")}
    assert wanted == parts


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_fails_ends_all_pods_with_its_reason(pods: Pods, failing: int) -> None:
    scripts: list[list[object]] = [[["save", 1], COMMIT_1, ["hang"]], [["save", 1], COMMIT_1, ["hang"]]]
    scripts[failing][-1] = ["result", 70, "oops"]
    verdicts = pods.play(*scripts)
    assert {verdict.code for verdict in verdicts} == {ExitCode.CRASH}
    assert all(verdict.reason.startswith(f"node {failing}: oops") for verdict in verdicts), verdicts
    assert [pods.result(1, index).exit_code for index in (0, 1)] == [70, 70]
    assert not pods.stage.has(keys.FAILED)
    assert pods.stage.has(keys.released(1))


def test_what_only_followed_from_a_failure_is_told_after_it(pods: Pods) -> None:
    follows = [["save", 1], COMMIT_1, ["result", 70, "another rank is gone: reset"]]
    verdicts = pods.play(follows, [["save", 1], COMMIT_1, ["result", 70, "oops"]])
    for verdict in verdicts:
        assert verdict.reason.startswith("node 1: oops"), verdicts


def test_a_permanent_failure_of_a_peer_is_that_of_the_run(pods: Pods) -> None:
    verdicts = pods.play([["save", 1], COMMIT_1, ["result", 70, "lost"]], [["save", 1], COMMIT_1, ["result", 78, "no"]])
    assert [verdict.code for verdict in verdicts] == [ExitCode.CONFIGURATION] * 2
    failed = read_record(Result, pods.stage.store.get_bytes(keys.FAILED), "failed")
    assert (failed.exit_code, failed.index) == (78, 0)


def test_wrong_data_end_the_pods_that_wait_for_them(pods: Pods) -> None:
    verdicts = pods.play([], [], prepare="refuse when node 1 is there")
    assert [verdict.code for verdict in verdicts] == [ExitCode.DATA] * 2
    assert verdicts[1].reason == "node 0: train.jsonl:3: not JSON; repair the line"


@pytest.mark.parametrize("asked", [0, 1])
def test_a_request_to_stop_one_pod_is_75_for_all(pods: Pods, asked: int) -> None:
    agreed = ["wait_for", f"work-{asked}/preempt"]
    rest = [agreed, ["save", 3], ["result", 75, "interrupted, step 3 is saved"]]
    scripts: list[list[object]] = [[["save", 1], COMMIT_1, *rest] for _ in range(2)]
    scripts[asked].insert(2, ["signal_supervisor", int(signal.SIGTERM)])
    verdicts = pods.play(*scripts)
    assert [(verdict.code, verdict.step) for verdict in verdicts] == [(ExitCode.INTERRUPTED, 3)] * 2
    assert pods.stage.commits[-1] == 3
    assert not pods.stage.has(keys.FAILED)


def test_saved_is_not_said_where_a_part_is_missing(pods: Pods) -> None:
    stop = ["wait_for", "work-0/preempt"]
    verdicts = pods.play(
        [["signal_supervisor", int(signal.SIGTERM)], stop, ["save", 3], ["result", 75, "interrupted, step 3 is saved"]],
        [stop, ["save_broken", 3, "model.safetensors", "cut"], ["result", 75, "interrupted, step 3 is saved"]],
    )
    assert [verdict.code for verdict in verdicts] == [ExitCode.INTERRUPTED_UNSAVED] * 2
    assert pods.stage.commits == []


def test_a_killed_pod_and_its_successor(pods: Pods) -> None:
    """The others stop when the successor says that its place is empty; the next attempt is theirs."""
    first = pods.begin(0, ["save", 1], COMMIT_1, ["hang"])
    second = pods.begin(1, ["save", 1], COMMIT_1, ["hang"])
    pods.wait_for("store/*/commits/*1.json")
    second.kill()
    second.wait()
    successor = pods.begin(1, ["save", 2], ["result", 0])
    pods.wait_for("store/*/attempts/1/results/1.json")
    lost = pods.result(1, 1)
    assert (lost.exit_code, lost.reason) == (76, "node 1: was lost without a result; its successor is there")
    # The ranks of node 0 may be saving: they get half a minute. Here they are told at once.
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGINT)
    time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    assert end(first).code is ExitCode.INTERRUPTED_UNSAVED

    again = pods.begin(0, ["save", 2], ["done"])
    assert [end(again).code, end(successor).code] == [0, 0]
    assert [pods.resumed(0), pods.resumed(1)] == [1, 1]
    assert read_record(PodClaim, pods.stage.store.get_bytes(keys.pod(2, 1)), "pod").index == 1


def test_a_successor_of_pod_0_takes_over_and_the_others_leave(pods: Pods) -> None:
    first = pods.begin(0, ["save", 1], COMMIT_1, ["hang"])
    second = pods.begin(1, ["save", 1], COMMIT_1, ["hang"])
    pods.wait_for("store/*/commits/*1.json")
    first.kill()
    first.wait()
    again = pods.begin(0, ["save", 2], ["done"])
    gone = end(second)
    assert gone.code is ExitCode.SUPERSEDED
    assert pods.result(1, 0).reason == "node 0: was lost without a result; its successor is there"
    successor = pods.begin(1, ["save", 2], ["result", 0])
    assert [end(again).code, end(successor).code] == [0, 0]
    assert pods.stage.commit(2).attempt == 2


def test_a_pod_that_waits_for_a_commit_sees_that_pod_0_has_a_successor(pods: Pods) -> None:
    first = pods.begin(0, ["hang"])
    second = pods.begin(1, ["save", 3], ["result", 75, "interrupted, step 3 is saved"])
    pods.wait_for("work-1/results/1.json")
    first.kill()
    first.wait()
    pods.begin(0, ["hang"])
    assert end(second).code is ExitCode.SUPERSEDED


def test_pods_without_a_sign_of_life_of_pod_0_end(pods: Pods) -> None:
    first = pods.begin(0, ["save", 1], COMMIT_1, ["hang"])
    second = pods.begin(1, ["save", 1], COMMIT_1, ["hang"], lease_lost_seconds=3, agree_seconds=0.1)
    pods.wait_for("store/*/commits/*1.json")
    first.send_signal(signal.SIGSTOP)
    verdict = end(second)
    assert verdict.code is ExitCode.INTERRUPTED_UNSAVED
    assert verdict.reason == "node 1: node 0 has given no sign of life for 3 s"


def test_pod_0_names_the_pod_that_did_not_come(pods: Pods) -> None:
    verdict = end(pods.begin(0, patience_seconds=0.3))
    assert verdict.code is ExitCode.HANG
    assert verdict.reason.startswith("node 0: node 1 of 2 did not join attempt 1 in 0 s")
    assert pods.stage.has(keys.released(1))


def test_a_pod_does_not_wait_for_pod_0_for_ever(pods: Pods) -> None:
    verdict = end(pods.begin(1, patience_seconds=0.3))
    assert verdict.code is ExitCode.HANG
    assert verdict.reason.startswith("node 0 has claimed no attempt that node 1 could join within 0 s")


def test_a_pod_that_comes_after_the_end_finds_the_run_done(pods: Pods) -> None:
    pods.play(DONE, PEER_DONE)
    assert end(pods.begin(1)) == Verdict(ExitCode.DONE)


def test_peers_do_not_end_well_before_the_export_is_durable(pods: Pods) -> None:
    """Pod 0 crashes after the last step; a pod that had ended with 0 would never come back."""
    verdicts = pods.play([["save", 1], COMMIT_1, ["result", 0]], [["save", 1], COMMIT_1, ["result", 0]])
    assert [verdict.code for verdict in verdicts] == [ExitCode.CRASH] * 2
    assert verdicts[1].reason == "node 0: the ranks ended without an export; see the log"
    assert not pods.stage.has(keys.SUCCESS)


def test_a_pod_without_a_place_is_refused(pods: Pods) -> None:
    verdict = end(pods.begin(2))
    assert verdict.code is ExitCode.CONFIGURATION
    assert verdict.reason.startswith("launch.nodes: this is pod 2, the spec asks for 2 nodes")


def test_the_attempt_of_another_job_is_not_joined(pods: Pods) -> None:
    pods.begin(0, ["hang"], owner="theirs")
    pods.wait_for("store/*/attempts/1/claim.json")
    assert end(pods.begin(1, patience_seconds=1, owner="ours")).code is ExitCode.HANG
    assert not pods.stage.has(keys.pod(1, 1))
