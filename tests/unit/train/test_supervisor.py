"""Attempts from end to end, with ranks that act out scripts (actor.py) and a folder as the store."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.records import Export, PreparedData, read_record
from sftjob.train.processes import descendants
from sftjob.train.publish import Publisher
from sftjob.train.verdict import Verdict

Stage = Any  # of conftest.py, which cannot be imported
TERM = int(signal.SIGTERM)
INT = int(signal.SIGINT)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_run_ends_with_a_commit_metrics_an_export_and_a_release(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = stage.play(["say", "hello"], ["save", 1], ["metric", 1], ["environment"], ["done"])

    assert verdict == Verdict(ExitCode.DONE, step=1)
    store = stage.store
    assert stage.commits == [1]
    assert {entry.path for entry in stage.commit(1).files} == {"state-0.bin", "state.json"}
    assert store.get_bytes(keys.metrics(1, 0)) == b'{"step": 1}\n'
    export = read_record(Export, store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    assert (export.attempt, export.step, export.method, export.adapter) == (1, 1, "full", False)
    assert [entry.path for entry in export.files] == ["config.json", "weights.bin"]
    data = read_record(PreparedData, store.get_bytes(keys.attempt_data(1)), "data")
    assert store.get_bytes(f"data/{data.digest}/1/manifest.json") == data.to_json()
    assert store.get_bytes(keys.log_tail(1, 0)) == b"hello\n"
    assert stage.result().exit_code == 0
    for key in (keys.SPEC, keys.pod(1, 0), keys.lease(1), keys.released(1), keys.environment(1, 0)):
        assert stage.has(key), key
    assert not stage.has(keys.FAILED)
    assert "hello\n" in capsys.readouterr().out


def test_a_run_that_is_done_is_not_claimed_again(stage: Stage) -> None:
    stage.play(["save", 1], ["done"])
    assert stage.play(["kill", 9]) == Verdict(ExitCode.DONE)
    assert not stage.has(keys.claim(2))


@pytest.mark.parametrize("number", [9, 11])
def test_a_killed_rank_is_a_crash_that_can_be_tried_again(stage: Stage, number: int) -> None:
    verdict = stage.play(["save", 1], ["kill", number])
    assert verdict.code is ExitCode.CRASH
    assert f"was killed by signal {number}" in verdict.reason
    assert stage.result().reason == verdict.reason
    assert stage.commits == [1]
    assert stage.has(keys.released(1))
    assert not stage.has(keys.FAILED)


def test_the_next_attempt_continues_from_the_newest_commit_that_is_whole(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.play(["note_resume"], ["save", 1], ["wait_for", "store/*/commits/*1.json"], ["save", 2], ["kill", 9])
    assert json.loads((stage.folder / "resumed").read_text()) is None
    assert stage.commits == [1, 2]

    stage.play(["note_resume"], ["kill", 9])
    assert json.loads((stage.folder / "resumed").read_text()) == 2

    next((stage.folder / "store").glob("*/checkpoints/0000000002/1/state-0.bin")).write_text("weightz 2")
    verdict = stage.play(["note_resume"], ["save", 2], ["done"])
    assert json.loads((stage.folder / "resumed").read_text()) == 1
    assert "step 2 is damaged" in capsys.readouterr().out
    assert verdict.code is ExitCode.DONE
    assert stage.commit(2).attempt == 3


def test_a_run_goes_on_whose_spec_an_older_version_has_stored(stage: Stage) -> None:
    """Its fields are fewer, and every COMMIT carries the hash of its bytes."""
    assert stage.play(["save", 1], ["kill", 9]).code is ExitCode.CRASH
    stored = json.loads(stage.store.get_bytes(keys.SPEC))
    del stored["training"]["adam_beta1"], stored["launch"]["offload_param"]
    older = json.dumps(stored).encode()
    stage.store.put_bytes(keys.SPEC, older)
    commit = stage.commit(1)
    rewritten = commit.model_copy(update={"spec_sha256": hashlib.sha256(older).hexdigest()})
    stage.store.put_bytes(keys.commit(1), rewritten.to_json())
    assert stage.play(["note_resume"], ["save", 2], ["done"]).code is ExitCode.DONE
    assert json.loads((stage.folder / "resumed").read_text()) == 1
    assert stage.commit(2).spec_sha256 == hashlib.sha256(older).hexdigest()


def test_prepared_data_are_made_once(stage: Stage) -> None:
    stage.play(["kill", 9])
    stage.play(["kill", 9])
    assert (stage.folder / "prepared").read_text() == "1\n"
    assert stage.store.get_bytes(keys.attempt_data(2)) == stage.store.get_bytes(keys.attempt_data(1))
    next((stage.folder / "store").glob("*/data/*/1/train.arrow")).write_text("damaged")
    stage.play(["kill", 9])
    assert (stage.folder / "prepared").read_text() == "1\n3\n"


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_request_to_stop_is_saved_committed_and_75(stage: Stage, number: int) -> None:
    verdict = stage.play(
        ["save", 1],
        ["signal_supervisor", number],
        ["wait_for", "work/preempt"],
        ["save", 3],
        ["result", 75, "interrupted, step 3 is saved"],
    )
    assert verdict == Verdict(ExitCode.INTERRUPTED, "interrupted, step 3 is saved", 3)
    assert stage.commits[-1] == 3
    assert stage.has(keys.released(1))
    assert not stage.has(keys.FAILED)


def test_saved_is_not_said_when_the_last_step_cannot_be_committed(stage: Stage) -> None:
    verdict = stage.play(
        ["signal_supervisor", TERM],
        ["wait_for", "work/preempt"],
        ["save_broken", 3, "model.safetensors", "cut"],
        ["result", 75, "interrupted, step 3 is saved"],
    )
    assert verdict.code is ExitCode.INTERRUPTED_UNSAVED
    assert "step 3 did not reach the store" in verdict.reason
    assert stage.commits == []


def test_a_rank_that_does_not_stop_is_killed_before_the_grace_period_ends(stage: Stage) -> None:
    verdict = stage.but(grace_seconds=0.9).play(["save", 1], ["signal_supervisor", TERM], ["hang"])
    assert verdict.code is ExitCode.INTERRUPTED_UNSAVED
    assert stage.commits == [1]


def test_a_second_ctrl_c_does_not_wait_for_the_save(stage: Stage) -> None:
    script = [["signal_supervisor", INT], ["wait_for", "work/preempt"], ["signal_supervisor", INT], ["hang"]]
    assert stage.play(*script).code is ExitCode.INTERRUPTED_UNSAVED


def test_a_request_to_stop_while_data_are_prepared_ends_at_once(stage: Stage) -> None:
    verdict = stage.play(["say", "never"], prepare="interrupt")
    assert verdict == Verdict(ExitCode.INTERRUPTED_UNSAVED, "stopped before training began")
    assert stage.has(keys.released(1))
    assert not stage.has(keys.log_tail(1, 0))


def test_a_newer_attempt_ends_this_one_before_its_next_commit(stage: Stage) -> None:
    verdict = stage.play(
        ["save", 1],
        ["wait_for", "store/*/commits/*1.json"],
        ["claim", 2, "local"],
        ["save", 2],
        ["hang"],
    )
    assert verdict.code is ExitCode.SUPERSEDED
    assert "attempt 2 (owner local) has taken over" in verdict.reason
    assert stage.commits == [1]
    assert not stage.has(keys.FAILED)


def test_a_newer_attempt_keeps_this_one_from_finishing(stage: Stage) -> None:
    assert stage.play(["claim", 2, "local"], ["done"]).code is ExitCode.SUPERSEDED
    assert not stage.has(keys.SUCCESS)


def test_nothing_that_ranks_leave_behind_outlives_the_attempt(stage: Stage) -> None:
    verdict = stage.play(["orphan"], ["save", 1], ["done"])
    assert verdict.code is ExitCode.DONE
    assert not alive(int((stage.folder / "orphan").read_text()))


def test_nobody_writes_any_more_when_the_last_files_are_published(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, seen = Publisher.drain, []

    def look(publisher: Publisher, *checks: Callable[[], None]) -> None:
        seen.append(alive(int((stage.folder / "orphan").read_text())))
        drain(publisher, *checks)

    monkeypatch.setattr(Publisher, "drain", look)
    assert stage.play(["orphan"], ["save", 1], ["done"]).code is ExitCode.DONE
    assert seen == [False]


def test_a_preparation_that_is_left_behind_is_gone_before_the_run_is_released(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("sftjob.train.supervisor.record_end", lambda *_: seen.append(descendants(os.getpid())))
    before = descendants(os.getpid())
    assert stage.play(prepare="interrupt").code is ExitCode.INTERRUPTED_UNSAVED
    assert seen == [before]


@pytest.mark.parametrize(
    ("script", "failed"),
    [
        ([["result", 80, "the loss is nan"]], True),
        ([["result", 78, "no"]], True),
        ([["result", 70, "oops"]], False),
        ([["result", 82, "no step for an hour"]], False),
        ([["say", "no result"]], False),
    ],
)
def test_only_a_failure_that_ends_the_job_is_left_as_failed(stage: Stage, script: list[object], failed: bool) -> None:
    verdict = stage.play(*script)
    assert verdict.code is not ExitCode.DONE
    assert stage.has(keys.FAILED) is failed
    assert stage.result().exit_code == verdict.code


def test_wrong_data_are_named_as_the_child_named_them(stage: Stage) -> None:
    verdict = stage.play(prepare="refuse")
    assert verdict == Verdict(ExitCode.DATA, "train.jsonl:3: not JSON; repair the line")
    assert stage.has(keys.FAILED)


def test_a_killed_preparation_is_a_crash(stage: Stage) -> None:
    verdict = stage.play(prepare="die")
    assert verdict.code is ExitCode.CRASH
    assert verdict.reason.startswith("preparing data was killed by signal 9 (out of memory?)")


def test_marks_of_an_earlier_attempt_are_not_taken_for_this_one_s(stage: Stage) -> None:
    stage.play(["save", 5], ["metric", 5], ["export"], ["environment"], ["kill", 9])
    (stage.settings.work / "preempt").touch()
    verdict = stage.play(["save", 6], ["result", 0])
    assert verdict.reason == "the ranks ended without an export; see the log"
    assert not stage.has(keys.metrics(2, 0))
    assert not stage.has(keys.environment(2, 0))


def test_the_last_part_of_the_log_is_kept(stage: Stage) -> None:
    stage.play(["say", "first " + "x" * 70_000], ["say", "last"], ["kill", 9])
    tail = stage.store.get_bytes(keys.log_tail(1, 0))
    assert len(tail) == 2**16
    assert tail.endswith(b"x\nlast\n")


def test_several_nodes_that_do_not_know_where_to_meet_are_refused_before_anything_is_claimed(stage: Stage) -> None:
    stage.spec(launch={"gpus_per_node": 0, "nodes": 2})
    verdict = stage.play()
    assert verdict.code is ExitCode.CONFIGURATION
    assert verdict.reason.startswith("MASTER_ADDR: the spec asks for 2 nodes")
    assert not list((stage.folder / "store").glob("*/attempts"))


def test_a_stored_spec_of_another_run_is_refused(stage: Stage) -> None:
    stage.play(["kill", 9])
    stored = stage.store.get_bytes(keys.SPEC)
    stage.store.put_bytes(keys.SPEC, stored.replace(b'"run_id":"demo-', b'"run_id":"other-'))
    verdict = stage.play()
    assert verdict.code is ExitCode.CONFIGURATION
    assert "belongs to run other-" in verdict.reason
    assert not stage.has(keys.claim(2))


def test_a_missing_spec_names_the_file(stage: Stage) -> None:
    verdict = stage.but(spec=stage.folder / "nowhere.json").play()
    assert verdict.code is ExitCode.INPUT
    assert "nowhere.json" in verdict.reason


def test_a_spec_without_a_store_takes_the_platform_s(stage: Stage) -> None:
    stage.spec(storage={})
    assert stage.play().reason.startswith("storage.uri: no store is named")
    elsewhere = stage.but(storage_uri=str(stage.folder / "store"))
    assert elsewhere.play(["save", 1], ["done"]).code is ExitCode.DONE


def test_a_full_disk_is_seen_before_ranks_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000, "total": 2000, "used": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    verdict = stage.play()
    assert verdict.code is ExitCode.DISK_FULL
    assert str(stage.settings.work) in verdict.reason


def test_a_work_folder_that_cannot_be_made_is_named(stage: Stage) -> None:
    (stage.folder / "file").touch()
    verdict = stage.but(work=stage.folder / "file" / "work").play()
    assert verdict.code is ExitCode.STORAGE
    assert verdict.reason == f"{stage.folder}/file/work: Not a directory"


def test_nobody_reads_what_it_says(stage: Stage) -> None:
    code = FIRST.replace("sys.exit(", "import os; os._exit(")
    script = json.dumps([["save", 1], ["say", "x"], ["done"]])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(stage.folder), script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")


def test_a_second_local_run_names_the_first(stage: Stage) -> None:
    script = [["wait_for", "work/go"], ["save", 1], ["done"]]
    first = subprocess.Popen([sys.executable, "-c", FIRST, str(stage.folder), json.dumps(script)])
    try:
        wait_for_lock(stage.settings.work / "lock")
        verdict = stage.play()
        assert verdict.code is ExitCode.HELD
        assert f"process {first.pid} is running this already" in verdict.reason
    finally:
        (stage.settings.work / "go").touch()
        assert first.wait(timeout=60) == 0


FIRST = f"""
import json, sys
from pathlib import Path
from sftjob.train.settings import Settings
from sftjob.train.supervisor import Programs, supervise
folder, script = Path(sys.argv[1]), sys.argv[2]
settings = Settings(spec=folder / "spec.json", work=folder / "work", inputs={{}})
python = (sys.executable, "-S", "-E")
here = Path({str(Path(__file__).parent)!r})
programs = Programs(worker=(*python, here / "actor.py", script), prepare=(*python, here / "preparer.py", "well"))
sys.exit(supervise(settings, programs).code)
"""


def wait_for_lock(path: Path) -> None:
    for _ in range(3000):
        if path.exists() and path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError("the first run did not begin")
