"""A cluster of two Jobs that records what the gate asks of it, and a clock that its sleeps move."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sftjob.cluster.kinds import Kind
from sftjob.contract import keys
from sftjob.errors import ObjectMissing, SftjobError
from sftjob.gate.loop import Ending, Surroundings, watch
from sftjob.gate.settings import Settings
from sftjob.records import Result
from sftjob.storage import FolderStore, ObjectStore

TRAIN, EVAL = "run-0000-train", "run-0000-eval"
Step = Callable[["World"], None]


@dataclass
class World:
    """What the gate sees. Between two looks the next step of a script changes it."""

    store: ObjectStore
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    """Everything but reading."""
    reads: int = 0
    refuse: SftjobError | None = None
    """Raised by every request while it is set."""
    refuse_changes: SftjobError | None = None
    """The same for all but reading."""
    lines: list[str] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    now: float = 0.0

    def get(self, kind: Kind, name: str) -> dict[str, Any]:
        self.reads += 1
        return copy.deepcopy(self._find(kind, name))

    def patch(self, kind: Kind, name: str, patch: dict[str, Any]) -> object:
        self.calls.append(f"patch {kind.plural}/{name} {patch}")
        found = self._changed(kind, name)
        found["spec"].update(patch.get("spec", {}))
        found["metadata"]["labels"].update(patch.get("metadata", {}).get("labels", {}))
        return found

    def delete(self, kind: Kind, name: str, *, propagation: str = "Foreground") -> None:
        self.calls.append(f"delete {kind.plural}/{name} {propagation}")
        self._changed(kind, name)
        del self.objects[f"{kind.plural}/{name}"]

    def _changed(self, kind: Kind, name: str) -> dict[str, Any]:
        if self.refuse_changes:
            raise self.refuse_changes
        return self._find(kind, name)

    def _find(self, kind: Kind, name: str) -> dict[str, Any]:
        if self.refuse:
            raise self.refuse
        if f"{kind.plural}/{name}" not in self.objects:
            raise ObjectMissing(f"{name} is not there")
        return self.objects[f"{kind.plural}/{name}"]

    # What happens to it.

    def train(self, *conditions: str, uid: str = "u1", plural: str = "jobs", **status: Any) -> None:
        self._put(plural, TRAIN, conditions, status, uid=uid)

    def evaluation(self, *conditions: str, suspend: bool = True, uid: str = "e1") -> None:
        self._put("jobs", EVAL, conditions, {}, suspend=suspend, uid=uid)

    def gone(self, name: str) -> None:
        self.objects.pop(f"jobs/{name}", None)

    def success(self) -> None:
        self.store.put_bytes(keys.SUCCESS, b"{}")

    def failure(self, owner: str) -> None:
        result = Result(attempt=1, owner=owner, exit_code=80, reason="the loss is nan", time="2026-01-01T00:00:00Z")
        self.store.put_bytes(keys.FAILED, result.to_json())

    def _put(
        self, plural: str, name: str, conditions: tuple[str, ...], status: Any, *, uid: str, suspend: bool = False
    ) -> None:
        self.objects[f"{plural}/{name}"] = {
            "metadata": {"name": name, "uid": uid, "labels": {}},
            "spec": {"parallelism": 1, "suspend": suspend},
            "status": {"conditions": [{"type": each, "status": "True"} for each in conditions], **status},
        }


@dataclass
class Play:
    """Runs the gate over a script; one that does not end fails the test."""

    world: World
    settings: Settings

    def __call__(self, *steps: Step, most: int = 300) -> Ending:
        script = self._script(steps, most)
        around = Surroundings(
            clock=lambda: self.world.now, sleep=lambda seconds: self._pass(seconds, script), say=self.world.lines.append
        )
        return watch(self.settings, self.world, self.world.store, around)

    def _script(self, steps: tuple[Step, ...], most: int) -> Iterator[None]:
        for count in range(most):
            if count < len(steps):
                steps[count](self.world)
            yield
        pytest.fail(f"the gate does not end: {self.world.lines}")

    def _pass(self, seconds: float, script: Iterator[None]) -> None:
        self.world.sleeps.append(seconds)
        self.world.now += seconds
        next(script)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Training runs, the evaluation is suspended, and the store is empty."""
    world = World(FolderStore(tmp_path / "run"))
    world.train(ready=1)
    world.evaluation()
    return world


@pytest.fixture
def play(world: World, tmp_path: Path) -> Play:
    spec = tmp_path / "spec.json"
    return Play(world, Settings(spec=spec, engine="job", train=TRAIN, evaluation=EVAL, namespace="ml"))
