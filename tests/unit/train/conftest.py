import json
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sftjob.contract import keys
from sftjob.plan import model_facts
from sftjob.records import Commit, Result, read_record
from sftjob.resolve import resolve
from sftjob.spec.load import parse_spec_json
from sftjob.storage import FolderStore, ObjectStore, list_commits, read_commit
from sftjob.train.attempt import Attempt
from sftjob.train.settings import Settings
from sftjob.train.supervisor import Programs, supervise
from sftjob.train.verdict import Verdict
from sftjob.train.workdir import WorkDir

HERE = Path(__file__).parent
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 4,
    "num_hidden_layers": 1,
}


@dataclass(frozen=True)
class Stage:
    """A run with a store of its own, whose ranks act out scripts."""

    folder: Path
    settings: Settings

    def play(self, *script: object, prepare: str = "well") -> Verdict:
        """One attempt."""
        return supervise(self.settings, self.programs(*script, prepare=prepare))

    def programs(self, *script: object, prepare: str = "well") -> Programs:
        python = (sys.executable, "-S", "-E")
        return Programs(
            worker=(*python, str(HERE / "actor.py"), json.dumps(script)),
            prepare=(*python, str(HERE / "preparer.py"), prepare),
        )

    def spec(self, **changes: object) -> None:
        """Rewrites the spec with some of its blocks replaced."""
        spec = json.loads(self.settings.spec.read_text())
        self.settings.spec.write_text(json.dumps({**spec, **changes}))

    def but(self, **changes: object) -> "Stage":
        return replace(self, settings=replace(self.settings, **changes))  # type: ignore[arg-type]

    @property
    def store(self) -> ObjectStore:
        """At the run."""
        (run,) = (self.folder / "store").glob("demo-*")
        return FolderStore(run)

    @property
    def commits(self) -> list[int]:
        return list_commits(self.store)

    def commit(self, step: int) -> Commit:
        return read_commit(self.store, step)

    def result(self, attempt: int = 1) -> Result:
        key = keys.result(attempt, 0)
        return read_record(Result, self.store.get_bytes(key), key)

    def has(self, key: str) -> bool:
        return any(info.key == key for info in self.store.list())


@pytest.fixture
def attempt(stage: Stage) -> Attempt:
    """Attempt 1 of a run, claimed by nobody, with a store that holds its spec alone and empty folders for its ranks."""
    job = resolve(parse_spec_json(stage.settings.spec.read_bytes(), "spec.json"), model_facts(CONFIG))
    work = WorkDir(stage.settings.work)
    work.checkpoints.mkdir(parents=True)
    store = FolderStore(stage.folder / "store" / job.run_id)
    store.put_bytes(keys.SPEC, job.to_json())
    return Attempt(1, "local", 0, job, store, work)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    data = tmp_path / "train.jsonl"
    data.write_text('{"messages": []}\n')
    spec = tmp_path / "spec.json"
    written = {
        "name": "demo",
        "model": {"path": str(model)},
        "data": {"train": [{"path": str(data)}]},
        "method": {"type": "full"},
        "launch": {"gpus_per_node": 0},
        "training": {"save_total_limit": 2},
        "storage": {"uri": str(tmp_path / "store")},
    }
    spec.write_text(json.dumps(written))
    settings = Settings(spec=spec, work=tmp_path / "work", inputs={}, grace_seconds=600)
    return Stage(tmp_path, settings)
