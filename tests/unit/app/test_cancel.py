import json
from pathlib import Path

import pytest

from sftjob.app import cancel as cancelling
from sftjob.app.cancel import cancel
from sftjob.cluster import run_watch
from sftjob.cluster.kinds import Kind
from sftjob.contract import Env, keys
from sftjob.errors import Denied, ObjectMissing
from sftjob.spec import JobSpec
from tests.unit.app.on_cluster import Lines, target, trained_to
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, job, jobset, pod

TRAIN, EVAL, GATE = (f"{RUN}-9f3e-{each}" for each in ("train", "eval", "gate"))
POD = f"{TRAIN}-0-x7k2p"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(run_watch, "_SETTLE_SECONDS", 0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    made = FakeCluster()
    made.put(Kind.JOB, job(env={Env.STORAGE_URI.value: str(tmp_path)}), job("eval", suspend=True), job("gate"))
    made.put(Kind.POD, pod())
    return made


def vanishing(made: FakeCluster, lines: Lines) -> None:
    """What was deleted goes away when its pods have ended."""
    lines.then(f"delete   {GATE}", lambda: made.remove(Kind.JOB, GATE))
    lines.then(f"delete   {EVAL}", lambda: made.remove(Kind.JOB, EVAL))

    def ended() -> None:
        made.remove(Kind.POD, POD)
        made.remove(Kind.JOB, TRAIN)

    lines.then("stopping", ended)


def test_deletes_the_gate_first_and_the_training_last(cluster: FakeCluster, tmp_path: Path) -> None:
    lines = Lines()
    vanishing(cluster, lines)
    trained_to(tmp_path, 100, committed=(50,))
    cancel(target(cluster), lines)

    assert [(verb, name) for verb, _, name, _ in cluster.done] == [
        ("delete", GATE),
        ("delete", EVAL),
        ("delete", TRAIN),
    ]
    told = {"uid"}
    assert all(options.keys() == told for *_, options in cluster.done), "in the foreground, with the pods' own grace"
    assert [options["uid"] for *_, options in cluster.done] == [f"uid-{name}" for name in (GATE, EVAL, TRAIN)]
    assert lines[2] == f"delete   {TRAIN}: its pods save a checkpoint before they end"
    assert lines[3].startswith("stopping 1 pod left")
    assert lines[4] == f"stopped  {RUN}; submitted again, it continues"
    assert lines[5].startswith("saved    step 50, ")
    assert not lines[5].endswith("on leaving")


def test_says_when_the_checkpoint_was_made_on_leaving(cluster: FakeCluster, tmp_path: Path) -> None:
    lines = Lines()
    vanishing(cluster, lines)
    store = trained_to(tmp_path, 100, committed=(50,))
    lines.then(f"delete   {TRAIN}", lambda: store.put_bytes(keys.commit(60), b"{}"))
    cancel(target(cluster), lines)

    assert lines[-1].startswith("saved    step 60, ")
    assert lines[-1].endswith(", on leaving")


def test_says_that_nothing_was_saved(cluster: FakeCluster) -> None:
    lines = Lines()
    vanishing(cluster, lines)
    cancel(target(cluster), lines)

    assert lines[-1] == "saved    nothing: there was no checkpoint yet"


def test_without_the_store_it_cancels_all_the_same() -> None:
    made, lines = FakeCluster(), Lines()
    made.put(Kind.JOB, job())
    lines.then("delete", lambda: made.remove(Kind.JOB, TRAIN))
    cancel(target(made), lines)

    assert lines[0].startswith("note: it cannot be seen what is saved: ")
    assert lines[-1].startswith("stopped")


def test_waits_for_pods_that_outlive_their_job(cluster: FakeCluster) -> None:
    lines = Lines()
    vanishing(cluster, lines)
    lines.then(f"delete   {TRAIN}", lambda: cluster.remove(Kind.JOB, TRAIN))
    lines.then("stopping", lambda: cluster.remove(Kind.POD, POD))
    cancel(target(cluster), lines)

    assert any(line.startswith("stopping 1 pod left") for line in lines)


def test_somebody_else_is_quicker(cluster: FakeCluster) -> None:
    lines = Lines()
    vanishing(cluster, lines)

    def both() -> None:
        cluster.remove(Kind.JOB, GATE)
        cluster.remove(Kind.JOB, EVAL)

    lines.then(f"delete   {GATE}", both)
    cancel(target(cluster), lines)

    assert lines[-2].startswith("stopped")


def test_a_jobset_is_deleted_as_one() -> None:
    made, lines = FakeCluster(unknown=set()), Lines()
    made.put(Kind.JOBSET, jobset())
    lines.then("delete", lambda: made.remove(Kind.JOBSET, TRAIN))
    cancel(target(made), lines)

    assert [(kind, name) for _, kind, name, _ in made.done] == [(Kind.JOBSET, TRAIN)]


def test_what_is_over_stays() -> None:
    made, lines = FakeCluster(), Lines()
    made.put(Kind.JOB, job(ended="Complete"))
    cancel(target(made), lines)

    assert (lines, made.done) == ([f"nothing to cancel: {RUN} is over (done)"], [])


def test_no_such_run() -> None:
    with pytest.raises(ObjectMissing, match=f"no run {RUN} in namespace ns; sftjob list"):
        cancel(target(FakeCluster()), Lines())


def test_a_second_time_there_is_nothing_to_cancel(tmp_path: Path) -> None:
    trained_to(tmp_path, 100, committed=(50,))
    lines = Lines()
    spec = JobSpec.model_validate_json(
        json.dumps(
            {
                "name": "demo",
                "model": {"uri": "s3://models/tiny"},
                "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
                "method": {"type": "lora"},
                "storage": {"uri": str(tmp_path)},
            }
        )
    )

    cancel(target(FakeCluster(), spec=spec), lines)

    assert lines == [f"nothing to cancel: {RUN} is over; saved: step 50"]


def test_no_permission(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Denied("cannot delete jobs")

    monkeypatch.setattr(cluster, "delete", refuse)

    with pytest.raises(Denied):
        cancel(target(cluster), Lines())
