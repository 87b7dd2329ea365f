"""Two nodes on one machine: two supervisors with a work folder each, real ranks, and a folder as the store."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.records import Result, read_record
from sftjob.storage import list_commits, read_commit
from sftjob.train.launcher import NodePlace, torchrun
from tests.train.test_supervisor_e2e import Place, place

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

STEPS = 240
TRAINING = {"num_train_epochs": STEPS // 6, "save_steps": 20, "save_total_limit": 4}


@dataclass(frozen=True)
class Nodes(Place):
    """A place whose spec asks for two nodes."""

    port: int

    def begin_node(self, index: int, *, fault: str = "") -> "subprocess.Popen[str]":
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "JOB_COMPLETION_INDEX": str(index)}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **meeting}
        return subprocess.Popen(
            [sys.executable, "-m", "sftjob.train", "--spec", self.folder / "spec.json", "--work", self.work(index)],
            env={**environment, "SFTJOB_FAULT": fault} if fault else environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begin_both(self, *, fault: str = "") -> "list[subprocess.Popen[str]]":
        return [self.begin_node(index, fault=fault) for index in (0, 1)]

    def work(self, index: int) -> Path:
        return self.folder / f"work-{index}"

    def wait_for_saved(self, process: "subprocess.Popen[str]", step: int) -> None:
        """Until node 1 has saved this step or a later one; its COMMIT comes seconds later."""
        deadline = time.monotonic() + 240
        while max(map(step_of_mark, self.work(1).glob("checkpoints/saved-*")), default=0) < step:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def result_of(self, attempt: int, index: int) -> Result:
        return read_record(Result, self.store.get_bytes(keys.result(attempt, index)), "result")


def step_of_mark(path: Path) -> int:
    return int(path.name.split("-")[1])


def end(processes: "list[subprocess.Popen[str]]") -> list[str]:
    """What each printed."""
    try:
        return [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def two_nodes(folder: Path) -> Nodes:
    """The spec of `place` with two processes, on two nodes instead of one."""
    one = place(folder, processes=2, **TRAINING)
    spec = json.loads((one.folder / "spec.json").read_text())
    spec["launch"] = {"gpus_per_node": 0, "nodes": 2}
    (one.folder / "spec.json").write_text(json.dumps(spec))
    return Nodes(one.folder, free_port())


def test_killed_then_interrupted_two_nodes_end_with_the_bits_of_one(tmp_path: Path) -> None:
    one, nodes = place(tmp_path / "one", processes=2, **TRAINING), two_nodes(tmp_path / "nodes")
    reference = one.begin()

    # Node 1 is killed in a step, when two checkpoints are committed: node 0 waits in a collective then.
    both = nodes.begin_both(fault="saved:sleep:2:1")
    nodes.wait_for_commit(both[0], 40)
    both[1].send_signal(signal.SIGKILL)
    outputs = end(both)
    assert both[0].returncode == ExitCode.CRASH, outputs
    assert "error: node 0: another rank is gone" in outputs[0]
    assert list_commits(nodes.store) == [20, 40]
    assert {entry.path: "/nodes/1/" in entry.key for entry in read_commit(nodes.store, 40).files}.items() >= {
        ("rng_state_0.pth", False),
        ("rng_state_1.pth", True),
        ("optimizer.pt", False),
    }

    # One of them is asked to stop.
    both = nodes.begin_both()
    nodes.wait_for_saved(both[1], 60)
    both[1].send_signal(signal.SIGTERM)
    outputs = end(both)
    assert [process.returncode for process in both] == [ExitCode.INTERRUPTED] * 2, outputs
    assert all("continuing from step 40 (attempt 1)" in output for output in outputs)
    step = list_commits(nodes.store)[-1]
    assert [nodes.result_of(2, index).step for index in (0, 1)] == [step, step]
    assert step < STEPS

    both = nodes.begin_both()
    outputs = end(both)
    assert [process.returncode for process in both] == [ExitCode.DONE] * 2, outputs
    assert all(f"continuing from step {step} (attempt 2)" in output for output in outputs)
    assert not nodes.alive()

    assert reference.wait(timeout=240) == ExitCode.DONE
    assert list(nodes.losses) == list(range(1, STEPS + 1))
    assert nodes.losses == one.losses
    assert weights(nodes) == weights(one)


def weights(of: Place) -> list[str]:
    return [entry.sha256 for entry in of.export.files if entry.path.endswith(".safetensors")]


def test_torchruns_of_two_nodes_give_each_rank_its_place(tmp_path: Path) -> None:
    script = "echo $RANK $LOCAL_RANK $GROUP_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT > $0/$RANK"
    port = free_port()
    launched = [
        subprocess.Popen(
            torchrun(
                ["sh", "-c", script, str(tmp_path)],
                processes=2,
                ends=tmp_path / "ends.json",
                parent=os.getpid(),
                place=NodePlace(index, 2, "127.0.0.1", port),
            )
        )
        for index in (1, 0)
    ]
    assert [process.wait(timeout=240) for process in launched] == [0, 0]
    told = [(tmp_path / str(rank)).read_text().split() for rank in range(4)]
    assert told == [[str(rank), str(rank % 2), str(rank // 2), "4", "127.0.0.1", str(port)] for rank in range(4)]
