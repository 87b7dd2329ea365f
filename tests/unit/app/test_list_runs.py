from datetime import UTC, datetime, timedelta

import pytest

from sftjob.app.list_runs import list_json, list_lines, list_runs, table_age
from sftjob.cluster.kinds import Kind
from sftjob.cluster.phase import Phase
from sftjob.errors import ObjectMissing
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, job, jobset


def cluster(*jobs: dict[str, object]) -> FakeCluster:
    made = FakeCluster()
    made.put(Kind.JOB, *jobs)  # type: ignore[arg-type]
    return made


def test_a_line_for_each_run_newest_first() -> None:
    runs = list_runs(cluster(job(run="old-1", minute=1, pods=2, gpus=8), job(run="new-1", minute=9, failed=2)))  # type: ignore[arg-type]
    lines = list(list_lines(runs, namespaces=False))

    assert lines[0].split() == ["RUN", "PHASE", "AGE", "NODES", "GPUS", "RESTARTS", "REVISION"]
    assert [line.split()[0] for line in lines[1:]] == ["new-1", "old-1"]
    assert lines[1].split()[3:] == ["1", "0", "2", "9f3e"]
    assert lines[2].split()[3:] == ["2", "16", "0", "9f3e"]


def test_namespaces_are_shown_where_there_are_several() -> None:
    lines = list(list_lines(list_runs(cluster(job()), all_namespaces=True), namespaces=True))  # type: ignore[arg-type]

    assert lines[0].startswith("NAMESPACE  RUN")
    assert lines[1].startswith(f"ns         {RUN}")


@pytest.mark.parametrize(
    ("train", "evaluation", "phase"),
    [
        (job(), job("eval", suspend=True), Phase.PENDING),
        (job(ready=1), job("eval", suspend=True), Phase.TRAINING),
        (job(ended="Failed"), job("eval", suspend=True), Phase.FAILED),
        (job(ended="Complete"), None, Phase.DONE),
        (job(ended="Complete"), job("eval", suspend=True), Phase.TRAINED),
        (job(ended="Complete"), job("eval", ready=1), Phase.EVALUATING),
        (job(ended="Complete"), job("eval", ended="Complete"), Phase.DONE),
        (job(ended="Complete"), job("eval", ended="Failed"), Phase.FAILED),
        (None, job("eval", ended="Complete"), Phase.DONE),
    ],
)
def test_a_run_is_one_line_whatever_it_is_made_of(
    train: dict[str, object] | None, evaluation: dict[str, object] | None, phase: Phase
) -> None:
    runs = list_runs(cluster(*(each for each in (train, evaluation) if each)))  # type: ignore[arg-type]

    assert [(each.run_id, each.phase) for each in runs] == [(RUN, phase)]


def test_revisions_of_a_run_are_lines_of_their_own() -> None:
    runs = list_runs(cluster(job(revision="0000"), job(revision="1111", ended="Complete")))  # type: ignore[arg-type]

    assert sorted((each.revision, each.phase) for each in runs) == [("0000", Phase.PENDING), ("1111", Phase.DONE)]


def test_jobsets_are_among_them() -> None:
    made = cluster(job(run="batch-1"))
    made.unknown = set()
    made.put(Kind.JOBSET, jobset(restarts=3, ready=1))
    found = {each.run_id: each for each in list_runs(made)}  # type: ignore[arg-type]

    assert (found[RUN].phase, found[RUN].restarts, found[RUN].gpus) == (Phase.TRAINING, 3, 16)
    assert "batch-1" in found


def test_an_empty_namespace_is_told_from_one_that_is_not_there() -> None:
    assert list_runs(cluster()) == []  # type: ignore[arg-type]
    made = cluster()
    made.get = FakeCluster(namespace="other").get  # type: ignore[method-assign]

    with pytest.raises(ObjectMissing, match="namespace ns is not in the cluster"):
        list_runs(made)  # type: ignore[arg-type]


def test_as_json() -> None:
    shown = list_json(list_runs(cluster(job(minute=3))))  # type: ignore[arg-type]

    assert shown[0]["created"] == "2026-11-24T10:03:00+00:00"
    assert shown[0]["phase"] == "pending"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5s"), (119, "119s"), (130, "2m"), (7300, "2h"), (180_000, "2d"), (-9, "0s")]
)
def test_ages_as_kubectl_writes_them(seconds: int, shown: str) -> None:
    assert table_age(datetime.now(UTC) - timedelta(seconds=seconds)) == shown


def test_an_age_that_is_not_known() -> None:
    assert table_age(None) == "?"
