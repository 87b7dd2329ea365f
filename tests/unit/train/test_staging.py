from dataclasses import replace

import pytest

from sftjob.contract import keys
from sftjob.records import Start
from sftjob.train.attempt import Attempt
from sftjob.train.publish import publish_checkpoint
from sftjob.train.staging import _restore_as_told


@pytest.mark.parametrize("step", [1, 2, None])
def test_peers_restore_what_pod_0_has_named_and_not_the_newest(attempt: Attempt, step: int | None) -> None:
    for saved in (1, 2):
        attempt.work.checkpoint(saved).mkdir()
        (attempt.work.checkpoint(saved) / "weights.bin").write_text(f"weights {saved}")
        publish_checkpoint(attempt, saved)
    attempt.store.put_bytes(keys.start(1), Start(attempt=1, step=step).to_json())

    commit = _restore_as_told(replace(attempt, index=1), look_seconds=0.01)

    assert (commit.step if commit else None) == step
    assert attempt.work.resume.exists() is (step is not None)
