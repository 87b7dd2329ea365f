import threading
from typing import Any

import pytest

from sftjob.cluster.kinds import Kind
from sftjob.cluster.run_watch import watch_run
from sftjob.cluster.runs import check_namespace, events_of, find_run_id, has_jobsets, load_run, workloads
from sftjob.errors import ObjectMissing, SpecError
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, event, job, jobset, pod


def cluster(*jobs: dict[str, object]) -> FakeCluster:
    made = FakeCluster()
    made.put(Kind.JOB, *jobs)  # type: ignore[arg-type]
    return made


class TestFinding:
    @pytest.mark.parametrize("reference", [RUN, "demo", "demo-0a"])
    def test_a_whole_id_or_its_beginning(self, reference: str) -> None:
        assert find_run_id(cluster(job(), job(run="other-11111111")), reference) == RUN

    def test_an_id_that_is_the_beginning_of_another(self) -> None:
        assert find_run_id(cluster(job(run="a-1"), job(run="a-11")), "a-1") == "a-1"

    def test_a_beginning_of_several_names_them(self) -> None:
        many = [job(run=f"demo-{number}") for number in range(7)]

        with pytest.raises(
            SpecError, match=r"7 runs begin with demo: demo-0, demo-1, .* and 2 more; give more of the id"
        ):
            find_run_id(cluster(*many), "demo")

    def test_a_jobset_whose_id_is_the_beginning_of_another(self) -> None:
        made = FakeCluster(unknown=set())
        first, second = jobset(), jobset()
        second["metadata"] = second["metadata"] | {"name": "x", "labels": job(run=f"{RUN}-1")["metadata"]["labels"]}
        made.put(Kind.JOBSET, second, first)

        assert find_run_id(made, RUN) == RUN

    def test_of_a_run_that_is_a_jobset(self) -> None:
        made = FakeCluster(unknown=set())
        made.put(Kind.JOBSET, jobset())

        assert find_run_id(made, "demo") == RUN

    def test_no_such_run(self) -> None:
        with pytest.raises(ObjectMissing, match="no run nope in namespace ns; sftjob list -n"):
            find_run_id(cluster(job()), "nope")

    def test_no_such_namespace(self) -> None:
        made = cluster()
        made.namespace = "other"
        made.get = lambda kind, name: FakeCluster().get(kind, name)  # type: ignore[method-assign]

        with pytest.raises(
            ObjectMissing, match="namespace other is not in the cluster; kubectl create namespace other"
        ):
            find_run_id(made, "nope")

    def test_who_may_not_see_namespaces_is_not_told_that_there_is_none(self) -> None:
        check_namespace(FakeCluster(namespace="x", refused={Kind.NAMESPACE}))

    @pytest.mark.parametrize("reference", ["a=b", "A", "x,y", "-a", "", "a" * 64])
    def test_what_can_be_no_id_is_not_asked_for(self, reference: str) -> None:
        with pytest.raises(SpecError, match="is no run id"):
            find_run_id(cluster(), reference)


class TestLoading:
    def test_sorts_a_runs_objects(self) -> None:
        made = cluster(job(), job("eval"), job("gate"), job(run="other-1"))
        made.put(Kind.POD, pod(), pod(run="other-1"))
        run = load_run(made, RUN)

        assert [each.component for each in (run.train, run.evaluation, run.gate) if each] == ["train", "eval", "gate"]
        assert len(run.pods) == 1
        assert run.pods_of(run.train) == run.pods
        assert run.pods_of(run.evaluation) == ()

    def test_the_jobs_of_a_jobset_are_not_the_training(self) -> None:
        child = job()
        child["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] = "x"
        made = cluster(child, job("eval"))
        made.unknown = set()
        made.put(Kind.JOBSET, jobset())
        run = load_run(made, RUN)

        assert run.train is not None
        assert run.train.jobset

    def test_nothing(self) -> None:
        assert load_run(cluster(), RUN).workloads == ()

    def test_all_runs(self) -> None:
        made = cluster(job(), job("eval"), job("gate"), job(run="other-1"))

        assert [(each.run_id, each.component) for each in workloads(made)] == [
            (RUN, "eval"),
            (RUN, "train"),
            ("other-1", "train"),
        ]

    def test_jobsets_where_the_cluster_knows_them(self) -> None:
        made = FakeCluster(unknown=set())
        made.put(Kind.JOBSET, jobset())

        assert has_jobsets(made)
        assert [each.jobset for each in workloads(made)] == [True]
        assert not has_jobsets(FakeCluster())
        assert not has_jobsets(FakeCluster(unknown=set(), refused={Kind.JOBSET}))

    def test_events_of_a_few(self) -> None:
        made = FakeCluster()
        for name in ("a", "b", "c"):
            made.put(Kind.EVENT, event("x", "y", name) | {"metadata": {"name": name}})

        assert [each["involvedObject"]["name"] for each in events_of(made, "a", "c")] == ["a", "c"]  # type: ignore[index, call-overload]
        assert list(events_of(FakeCluster(refused={Kind.EVENT}), "a")) == []


class TestWatching:
    def test_the_first_look_is_complete(self) -> None:
        made = cluster(job(), job("eval"))
        made.put(Kind.POD, pod())
        run = next(watch_run(made, RUN))

        assert run.train is not None
        assert run.evaluation is not None
        assert len(run.pods) == 1

    def test_the_first_look_waits_for_every_list(self) -> None:
        made = cluster(job())
        made.put(Kind.POD, pod())
        listed, watch = threading.Event(), made.watch

        def slow(kind: Kind, **options: Any) -> Any:
            if kind is Kind.POD:
                listed.wait(10)
            yield from watch(kind, **options)

        made.watch = slow  # type: ignore[method-assign]
        threading.Timer(0.5, listed.set).start()

        assert len(next(watch_run(made, RUN)).pods) == 1

    def test_every_change_is_told(self) -> None:
        made = cluster(job())
        runs = watch_run(made, RUN, every=5)
        assert next(runs).pods == ()

        made.put(Kind.POD, pod())
        assert [each.name for each in next(runs).pods] == [f"{RUN}-9f3e-train-0-x7k2p"]

        made.remove(Kind.JOB, f"{RUN}-9f3e-train")
        assert next(runs).train is None

    def test_without_a_change_it_is_told_all_the_same(self) -> None:
        runs = watch_run(cluster(job()), RUN, every=0.01)

        assert next(runs).train == next(runs).train

    def test_a_refusal_is_raised(self) -> None:
        with pytest.raises(Exception, match="cannot list pods"):
            next(watch_run(FakeCluster(refused={Kind.POD}), RUN))
