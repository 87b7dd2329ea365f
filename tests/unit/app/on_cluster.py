"""A run on a cluster in memory and in a folder store, for the client's commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftjob.app.run_target import Target
from sftjob.cluster.kinds import Kind
from sftjob.contract import keys
from sftjob.records import Claim, Commit, Environment, Metric, Result
from sftjob.spec import Profile
from sftjob.storage import FolderStore
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import REVISION, RUN

TIME = "2026-11-24T10:00:00Z"


def target(cluster: FakeCluster, **more: Any) -> Target:
    return Target(run_id=RUN, cluster=cluster, profile=Profile(), **more)  # type: ignore[arg-type]


def authored(cluster: FakeCluster, spec: dict[str, Any]) -> None:
    """Puts the run's ConfigMap into the cluster."""
    cluster.put(
        Kind.CONFIG_MAP, {"metadata": {"name": f"{RUN}-{REVISION}-spec"}, "data": {"spec.json": json.dumps(spec)}}
    )


def trained_to(
    folder: Path, step: int, *, steps: int = 1000, committed: tuple[int, ...] = (), attempt: int = 1
) -> FolderStore:
    """The store of a run that has logged every tenth step up to `step`, two seconds each."""
    store = FolderStore(folder).at(RUN)
    for number in range(1, attempt + 1):
        store.put_bytes(keys.claim(number), Claim(attempt=number, owner="o", time=TIME).to_json())
    lines = [metric(each, attempt) for each in range(10, step + 1, 10)]
    lines += [metric(step, attempt, kind="eval", loss=1.5)] if step else []
    store.put_bytes(keys.metrics(attempt, 0), b"\n".join(each.to_json() for each in lines) + b"\nbroken\n")
    environment = Environment(
        attempt=attempt, versions={}, device="cpu", device_count=0, asked={}, ran={"steps": steps}
    )
    store.put_bytes(keys.environment(attempt, 0), environment.to_json())
    for each in committed:
        made = Commit(run_id=RUN, attempt=attempt, step=each, spec_sha256="0" * 64, world_size=1, files=())
        store.put_bytes(keys.commit(each), made.to_json())
    return store


def metric(step: int, attempt: int, *, kind: Any = "train", loss: float = 2.0) -> Metric:
    return Metric(
        kind=kind,
        attempt=attempt,
        step=step,
        epoch=0.1,
        loss=loss,
        loss_hex=loss.hex(),
        seconds=None if kind == "eval" else 2.0 * step,
        time=TIME,
    )


def failed(store: FolderStore, code: int, reason: str) -> None:
    """Leaves `_FAILED`."""
    store.put_bytes(keys.FAILED, Result(attempt=1, owner="o", exit_code=code, reason=reason, time=TIME).to_json())


class Lines(list[str]):
    """Collects what is said; `then` runs when a line begins so."""

    def __init__(self) -> None:
        super().__init__()
        self._then: dict[str, Callable[[], None]] = {}

    def then(self, beginning: str, do: Callable[[], None]) -> None:
        self._then[beginning] = do

    def __call__(self, line: str) -> None:
        self.append(line)
        for beginning in [each for each in self._then if line.startswith(each)]:
            self._then.pop(beginning)()
