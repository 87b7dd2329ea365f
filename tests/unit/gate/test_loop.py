"""Whole lives of a gate, against a cluster that records what is asked of it."""

from dataclasses import replace
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.errors import ClusterUnavailable, Denied, SpecError, Unavailable
from sftjob.gate.loop import Ending
from sftjob.storage import FolderStore

World = Any  # of conftest.py, which cannot be imported
Play = Any
EVAL, TRAIN = "run-0000-eval", "run-0000-train"
RESUMED = f"patch jobs/{EVAL} {{'spec': {{'suspend': False}}}}"
DELETED = f"delete jobs/{EVAL} Background"


def nothing(world: World) -> None:
    """A look at which nothing has changed."""


def done(world: World) -> None:
    world.success()
    world.train("Complete")


def evaluated(world: World) -> None:
    world.evaluation("Complete", suspend=False)


class TestTheUsualWay:
    def test_training_then_evaluation_then_the_end(self, world: World, play: Play) -> None:
        ending = play(nothing, nothing, done, nothing, nothing, evaluated)

        assert ending == Ending(ExitCode.DONE, "the evaluation is complete")
        assert world.calls == [RESUMED]
        assert world.lines == [
            "training: 1 of 1 pods run",
            "training is done (_SUCCESS is there); the eval Job is suspended: it is resumed",
            "training is done (_SUCCESS is there); the evaluation is under way",
            "the evaluation is complete",
        ]

    def test_success_counts_before_the_job_is_complete(self, world: World, play: Play) -> None:
        play(lambda world: world.success(), nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_an_evaluation_that_fails_ends_the_gate_as_well(self, world: World, play: Play) -> None:
        ending = play(done, nothing, lambda world: world.evaluation("Failed", suspend=False))

        assert ending == Ending(ExitCode.DONE, "the evaluation is failed")

    def test_every_apply_while_the_evaluation_runs_is_made_good(self, world: World, play: Play) -> None:
        again = world.evaluation

        play(done, nothing, lambda _: again(), nothing, lambda _: again(), nothing, evaluated)

        assert world.calls == [RESUMED] * 3

    def test_under_kueue_the_eval_job_gets_its_label_once(self, world: World, play: Play) -> None:
        play.settings = replace(play.settings, queue="team")

        play(done, nothing, nothing, lambda world: world.evaluation(suspend=False), nothing, evaluated)

        assert world.calls == [
            f"patch jobs/{EVAL} {{'metadata': {{'labels': {{'kueue.x-k8s.io/queue-name': 'team'}}}}}}"
        ]

    def test_a_jobset_is_looked_at_as_one(self, world: World, play: Play) -> None:
        play.settings = replace(play.settings, engine="jobset")
        world.gone(TRAIN)
        world.train("FailureTarget", plural="jobsets")

        ending = play(nothing, lambda world: world.train("Failed", plural="jobsets"))

        assert ending.code is ExitCode.DONE
        assert world.calls == [DELETED]

    def test_the_store_is_not_asked_again_after_success(self, world: World, play: Play) -> None:
        def withdrawn(world: World) -> None:
            world.store.delete(keys.SUCCESS)

        def again(world: World) -> None:
            world.evaluation()

        play(done, withdrawn, again, nothing, evaluated)

        assert world.calls == [RESUMED] * 2

    def test_what_is_done_is_said_each_time(self, world: World, play: Play) -> None:
        def again(world: World) -> None:
            world.evaluation()

        play(done, again, again, evaluated)

        assert world.calls == [RESUMED] * 3
        assert sum("it is resumed" in line for line in world.lines) == 3


class TestFailures:
    def test_a_failed_job_takes_the_eval_job_along_at_once(self, world: World, play: Play) -> None:
        ending = play(nothing, lambda world: world.train("Failed"))

        assert ending.code is ExitCode.DONE
        assert ending.reason.startswith("training has failed")
        assert world.calls == [DELETED]
        assert len(world.sleeps) == 2

    def test_the_store_tells_of_a_failure_first(self, world: World, play: Play) -> None:
        assert "the loss is nan" in play(lambda world: world.failure("u1")).reason
        assert world.calls == [DELETED]

    def test_the_failure_of_an_earlier_job_is_none(self, world: World, play: Play) -> None:
        world.failure("u0")

        play(nothing, done, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_an_unreadable_failure_is_left_to_the_job(self, world: World, play: Play) -> None:
        world.store.put_bytes(keys.FAILED, b"no JSON")

        assert play(nothing, lambda world: world.train("Failed")).code is ExitCode.DONE
        assert world.calls == [DELETED]

    def test_complete_without_success_is_told_after_a_minute(self, world: World, play: Play) -> None:
        world.train("Complete")

        ending = play()

        assert ending.code is ExitCode.INPUT
        assert "_SUCCESS is not in the store" in ending.reason
        assert 40 <= world.now <= 72
        assert world.calls == [DELETED]

    def test_an_eval_job_that_somebody_else_deletes_meanwhile_is_no_error(self, world: World, play: Play) -> None:
        def failed(world: World) -> None:
            world.train("Failed")
            world.gone(EVAL)

        assert play(failed).code is ExitCode.DONE


class TestObjectsThatComeAndGo:
    def test_objects_may_be_applied_in_any_order(self, world: World, play: Play) -> None:
        world.objects.clear()

        def train(world: World) -> None:
            world.train()

        def evaluation(world: World) -> None:
            world.evaluation()

        play(nothing, nothing, train, nothing, evaluation, done, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_a_deleted_training_ends_the_gate(self, world: World, play: Play) -> None:
        ending = play(nothing, lambda world: world.gone(TRAIN))

        assert ending.code is ExitCode.DONE
        assert world.calls == [DELETED]

    def test_training_that_is_deleted_and_applied_again_goes_on(self, world: World, play: Play) -> None:
        play(lambda world: world.gone(TRAIN), nothing, lambda world: world.train(uid="u2"), done, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_a_finished_training_may_be_deleted(self, world: World, play: Play) -> None:
        """By its TTL, for instance."""

        def success_and_gone(world: World) -> None:
            world.success()
            world.gone(TRAIN)

        play(success_and_gone, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_nothing_at_all_is_told_after_two_minutes(self, world: World, play: Play) -> None:
        world.objects.clear()

        assert play().code is ExitCode.INPUT
        assert 120 <= world.now <= 140

    def test_an_eval_job_that_is_deleted_and_applied_again_is_resumed(self, world: World, play: Play) -> None:
        def applied(world: World) -> None:
            world.evaluation(uid="e2")

        play(*[nothing] * 10, lambda world: world.gone(EVAL), nothing, applied, done, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_a_deleted_eval_job_ends_the_gate(self, world: World, play: Play) -> None:
        assert play(nothing, lambda world: world.gone(EVAL)).code is ExitCode.DONE
        assert not world.calls


class TestOutages:
    def test_of_the_api_server_are_waited_out_and_told_once(self, world: World, play: Play) -> None:
        def out(world: World) -> None:
            world.refuse = ClusterUnavailable(f"no answer (try {world.now})")

        def back(world: World) -> None:
            world.refuse = None

        ending = play(nothing, out, *[out] * 20, back, done, nothing, evaluated)

        assert ending.code is ExitCode.DONE
        told = [line for line in world.lines if "no answer" in line]
        assert len(told) == 1
        assert world.lines.count("the outage is over") == 1
        assert world.calls == [RESUMED]

    def test_make_looks_rarer_up_to_two_minutes(self, world: World, play: Play) -> None:
        world.refuse = ClusterUnavailable("no answer")

        with pytest.raises(pytest.fail.Exception, match="does not end"):
            play(most=30)

        assert world.sleeps[0] <= 10 * 2 * 1.2
        assert 120 * 0.8 <= world.sleeps[-1] <= 120 * 1.2

    def test_of_the_store_are_waited_out(self, world: World, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        def unavailable(*_: object) -> None:
            raise Unavailable("the store does not answer")

        def out(world: World) -> None:
            monkeypatch.setattr(FolderStore, "head", unavailable)

        def back(world: World) -> None:
            monkeypatch.undo()
            done(world)

        play(out, nothing, nothing, back, nothing, evaluated)

        assert world.calls == [RESUMED]
        assert "asking again: the store does not answer" in world.lines

    @pytest.mark.parametrize("error", [Denied, SpecError])
    def test_a_refusal_may_last_until_the_rights_are_there(
        self, world: World, play: Play, error: type[Denied] | type[SpecError]
    ) -> None:
        world.refuse = error("no")

        def allowed(world: World) -> None:
            world.refuse = None

        play(nothing, allowed, done, nothing, evaluated)

        assert world.calls == [RESUMED]

    def test_a_lasting_refusal_names_the_rights_that_are_needed(self, world: World, play: Play) -> None:
        world.refuse = Denied("jobs.batch is forbidden")

        with pytest.raises(Denied) as caught:
            play()

        assert str(caught.value) == (
            "jobs.batch is forbidden; the gate's Role in namespace ml has to allow get of job/run-0000-train, "
            "and get, patch and delete of job/run-0000-eval"
        )
        assert 120 <= world.now <= 360

    @pytest.mark.parametrize("ended", ["Complete", "Failed"])
    def test_a_change_that_is_refused_is_not_said_to_be_done(self, world: World, play: Play, ended: str) -> None:
        world.refuse_changes = Denied("jobs.batch is forbidden")
        world.train(ended)
        if ended == "Complete":
            world.success()

        with pytest.raises(Denied):
            play()

        assert len(world.lines) == 1
        assert world.lines[0].startswith("asking again: jobs.batch is forbidden")
        assert 120 <= world.now <= 360

    def test_a_change_that_fails_once_is_made_later(self, world: World, play: Play) -> None:
        world.refuse_changes = ClusterUnavailable("no answer")
        world.success()

        def back(world: World) -> None:
            world.refuse_changes = None

        play(nothing, back, nothing, evaluated)

        assert world.calls == [RESUMED] * 3
        assert world.lines[0] == "asking again: no answer"
        assert world.lines[1] == "the outage is over"
        assert "it is resumed" in world.lines[2]

    def test_looks_are_spread(self, world: World, play: Play) -> None:
        play(*[nothing] * 40, done, nothing, evaluated)

        assert min(world.sleeps) >= 8
        assert max(world.sleeps) <= 12
        assert len(set(world.sleeps)) > 20
