"""One run from manifests to report, and runs that must not get that far."""

import subprocess
import sys
from pathlib import Path

import pytest

from sftjob.contract import Component, ExitCode
from sftjob.storage import list_commits
from tests.e2e.conftest import MakeRun, Proved, Weights
from tests.e2e.kubectl import ended, exit_code
from tests.e2e.runs import ClusterRun
from tests.s3_server import S3Server

pytestmark = pytest.mark.e2e

STEPS = 800


def test_lora_is_trained_evaluated_and_fetched_while_it_is_applied_twice(
    make_run: MakeRun, s3: S3Server, weights: Weights, proved: Proved, tmp_path: Path
) -> None:
    run = make_run("lora")
    run.apply()

    step = run.until_committed()
    assert run.export is None
    assert not ended(run.job())
    assert run.job(Component.EVAL)["spec"]["suspend"]
    proved(f"checkpoints are in the bucket while it trains: step {step} of {STEPS} was committed first")

    assert _type(run.until_ended()) == "Complete"
    assert run.export
    assert (run.export.step, max(list_commits(run.store))) == (STEPS, STEPS)
    weights["lora", "undisturbed"] = run.weights

    run.until_running(Component.EVAL)
    proved("the gate lets the evaluation start when training is durable")
    begun = run.job(Component.EVAL)["status"]["startTime"]
    assert f"{run.name(Component.EVAL)} configured" in run.apply()
    evaluation = run.until_ended(Component.EVAL)
    assert _type(evaluation) == "Complete"
    assert evaluation["status"]["startTime"] > begun  # Kubernetes sets it anew when a Job is resumed
    proved("`kubectl apply` again, which suspends the running evaluation: the gate resumes it")
    assert _type(run.until_ended(Component.GATE)) == "Complete"

    report = _fetch(run, s3, tmp_path / "fetched")
    assert run.run_id in report
    proved("the report was fetched, and every file was verified")


def test_a_bad_configuration_fails_at_once_and_its_evaluation_never_starts(make_run: MakeRun, proved: Proved) -> None:
    # Only the model's config.json says that its head is its embedding, which an adapter would part.
    run = make_run("lora", 'method.target_modules=["lm_head"]')
    run.apply()

    train = run.until_ended()
    (pod,) = run.pods()
    assert exit_code(pod) == ExitCode.SPEC
    assert _reason(train) == "PodFailurePolicy"
    assert train["status"]["failed"] == 1
    assert "method.target_modules" in _message(pod)
    assert not list_commits(run.store)
    proved("a bad configuration fails with exit 64, without a retry, and its message names the field")

    evaluation = run.name(Component.EVAL)
    run.until("jobs", Component.EVAL, lambda jobs: evaluation not in jobs, what="the gate to delete the evaluation")
    assert _type(run.until_ended(Component.GATE)) == "Complete"
    assert not run.pods(Component.EVAL)
    proved("when training has failed, the gate deletes the evaluation, which never had a pod")


def test_runs_of_one_spec_give_the_same_bits_however_often_they_were_interrupted(
    weights: Weights, proved: Proved
) -> None:
    ways = {spec: [way for name, way in weights if name == spec] for spec, _ in weights}
    if not ways or min(map(len, ways.values())) < 2:
        pytest.skip("runs after the tests that train: pytest -m e2e tests/e2e")
    for spec, those in ways.items():
        hashes = {way: weights[spec, way] for way in those}
        assert all(each == hashes[those[0]] for each in hashes.values()), hashes
        proved(f"{spec}: the same weights, bit for bit, from runs that were {', '.join(those)}")


def _fetch(run: ClusterRun, s3: S3Server, into: Path) -> str:
    """`sftjob fetch`, and the report that it brought."""
    command = [sys.executable, "-m", "sftjob.cli", "fetch", run.store.uri, "--output", str(into)]
    done = subprocess.run([*command, "--endpoint-url", s3.endpoint_url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (report,) = into.rglob("report.md")
    return report.read_text()


def _type(job: dict) -> str:
    return str(ended(job)["type"])


def _reason(job: dict) -> str:
    return str(ended(job)["reason"])


def _message(pod: dict) -> str:
    """What PID 1 has left (terminationMessagePath)."""
    return str(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
