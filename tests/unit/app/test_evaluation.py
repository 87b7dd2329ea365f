"""The eval container before torch: what it reads, what it refuses, and which evaluation it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftjob.app import evaluation
from sftjob.app.evaluation_inputs import HeldOut, held_out_digest
from sftjob.app.evaluation_record import evaluation_record, read_metrics, read_shard, shard_bytes
from sftjob.app.subject import Subject, find_subject
from sftjob.contract import Env, ExitCode, keys
from sftjob.data.masks import Encoded
from sftjob.data.messages import Message
from sftjob.errors import InputMissing, StorageError
from sftjob.evaluate.questions import HeldOutRow, questions
from sftjob.plan import ModelFacts
from sftjob.records import Answer, Environment, Export, FileEntry, Metric, PreparedData, ShardHeader, SplitCounts
from sftjob.resolve import resolve
from sftjob.spec import JobSpec, canonical_spec, run_id
from sftjob.storage import FolderStore

FACTS = ModelFacts(
    architecture="LlamaForCausalLM", model_type="llama", vocab_size=64, hidden_size=8, num_hidden_layers=1
)
REVISION = "c" * 40


def make_spec(**blocks: Any) -> JobSpec:
    value = {
        "name": "tiny",
        "model": {"hub": "someone/tiny", "revision": REVISION},
        "data": {"train": [{"uri": "s3://bucket/train.jsonl"}]},
        "method": {"type": "lora"},
        **blocks,
    }
    return JobSpec.model_validate_json(json.dumps(value))


def make_subject(store: FolderStore, *, weights: str = "1", data: str = "2", **blocks: Any) -> Subject:
    spec = make_spec(**blocks)
    return Subject(
        spec=spec,
        job=resolve(spec, FACTS),
        export=Export(
            run_id=run_id(spec),
            attempt=2,
            step=10,
            method="lora",
            adapter=True,
            files=(FileEntry(path="a.safetensors", key="export/2/a.safetensors", size=1, sha256=weights * 64),),
            time="",
        ),
        prepared=PreparedData(
            digest=data * 64,
            attempt=2,
            template_sha256="3" * 64,
            vocab_size=64,
            splits={"train": SplitCounts(rows=1, kept=1)},
            files=(),
        ),
        store=store,
    )


class TestMain:
    def run(self, folder: Path, spec: JobSpec) -> int:
        (folder / "spec.json").write_bytes(canonical_spec(spec))
        return evaluation.main(["--spec", str(folder / "spec.json"), "--work", str(folder / "work")])

    def test_before_training_has_finished(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, make_spec(storage={"uri": str(tmp_path / "store")})) == ExitCode.INPUT
        message = capsys.readouterr().err
        assert "training has not finished; evaluate when the train Job is done" in message
        assert message.count("\n") == 1
        assert not (tmp_path / "work").exists()

    def test_the_store_may_come_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path, make_spec()) == ExitCode.SPEC
        assert "storage.uri" in capsys.readouterr().err
        monkeypatch.setenv(Env.STORAGE_URI, str(tmp_path / "store"))
        assert self.run(tmp_path, make_spec()) == ExitCode.INPUT

    def test_a_missing_spec_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert evaluation.main(["--spec", str(tmp_path / "none.json")]) == ExitCode.INPUT
        assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none.json'}: the spec cannot be read")

    def test_a_bug_keeps_its_traceback_and_gets_the_table_s_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(evaluation, "evaluate_run", lambda *_, **__: 1 / 0)
        assert self.run(tmp_path, make_spec()) == ExitCode.CRASH
        assert "ZeroDivisionError" in capsys.readouterr().err

    def test_finished_training_is_found_without_torch(self, tmp_path: Path) -> None:
        code = "import sys, sftjob.app.evaluation\nprint(*{'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.strip() == ""


class TestSubject:
    def test_is_read_from_the_store(self, tmp_path: Path) -> None:
        root = FolderStore(tmp_path)
        made = make_subject(root.at(run_id(make_spec())))
        with pytest.raises(InputMissing):
            find_subject(made.spec, root)
        made.store.put_bytes(keys.SUCCESS, made.export.to_json())
        made.store.put_bytes(keys.SPEC, made.job.to_json())
        made.store.put_bytes(keys.attempt_data(2), made.prepared.to_json())
        found = find_subject(made.spec, root)
        assert (found.job, found.export, found.prepared) == (made.job, made.export, made.prepared)

    def test_evaluation_is_known_by_all_that_has_a_say_in_it(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        first = make_subject(store).eval_id
        assert len(first) == 16
        assert first == make_subject(store, evaluation={"batch_size": 8}).eval_id, "a default, written out"
        others = [
            make_subject(store, weights="4"),
            make_subject(store, data="5"),
            make_subject(store, evaluation={"max_rows": 3}),
            make_subject(store, evaluation={"generation": {"prompts": ["Hello?"]}}),
        ]
        assert len({first, *(other.eval_id for other in others)}) == 5
        assert make_subject(store, resources={"cpu": "8"}).eval_id == first


class TestRecord:
    def test_the_latest_attempt_s_line_wins(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        for attempt, step, kind, loss in (
            (10, 2, "train", 3.5),
            (9, 1, "train", 5.0),
            (9, 2, "train", 4.0),
            (9, 2, "eval", 4.5),
            (10, 3, "train", 3.0),
        ):
            line = Metric(kind=kind, attempt=attempt, step=step, epoch=0, loss=loss, loss_hex="", time="")
            store.put_bytes(keys.metrics(attempt, step * 2 + (kind == "eval")), line.to_json() + b"\n")
        read = [(line.step, line.kind, line.loss) for line in read_metrics(store)]
        assert read == [(1, "train", 5.0), (2, "eval", 4.5), (2, "train", 3.5), (3, "train", 3.0)]

    def test_a_segment_that_is_none_is_named(self, tmp_path: Path) -> None:
        FolderStore(tmp_path).put_bytes(keys.metrics(1, 7), b'{"step": "x"}\n')
        with pytest.raises(StorageError, match=r"metrics/1/000007\.jsonl"):
            read_metrics(FolderStore(tmp_path))

    def test_shards_come_back_as_they_were(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        answers = (
            Answer(id="1", model="base", prompt_format="plain", prompt="a\nb\u2028c", answer="\r\x85", match=True),
            Answer(id="2", model="base", prompt_format="plain", prompt="", answer=""),
        )
        store.put_bytes("shard", shard_bytes(ShardHeader(model="base", prompt_format="plain"), answers))
        assert read_shard(store, "shard") == (None, answers)

    def test_without_an_environment_there_are_no_parameters(self, tmp_path: Path) -> None:
        record = evaluation_record(make_subject(FolderStore(tmp_path)), [], held_out_digest="d")
        assert (record.trainable_parameters, record.total_parameters) == (0, 0)
        assert record.base_model == "someone/tiny"
        assert record.base_identity == f"someone/tiny@{REVISION}"

    @pytest.mark.parametrize(
        ("kind", "estimate", "told"), [("device", 300, 300), ("resident", 300, None), ("device", 0, None)]
    )
    def test_a_peak_has_the_estimate_beside_it_where_the_two_compare(
        self, kind: str, estimate: int, told: int | None, tmp_path: Path
    ) -> None:
        subject = make_subject(FolderStore(tmp_path))
        for step, peak in ((1, 100), (2, 250), (3, None)):
            line = Metric(
                attempt=1, step=step, epoch=0, loss=1, loss_hex="", time="", memory_bytes=peak, memory_kind=kind
            )
            subject.store.put_bytes(keys.metrics(1, step), line.to_json() + b"\n")
        asked = {"memory_bytes": estimate} if estimate else {}
        environment = Environment(
            attempt=1, index=0, versions={}, device="", device_count=1, asked=asked, ran={"trainable_parameters": 7}
        )
        # Of the attempt before: the one that exported may have had nothing left to train.
        subject.store.put_bytes(keys.environment(1, 0), environment.to_json())
        record = evaluation_record(subject, [], held_out_digest="d")
        assert (record.peak_memory_bytes, record.peak_memory_kind) == (250, kind)
        assert record.estimated_memory_bytes == told
        assert record.trainable_parameters == 7

    def test_settings_are_the_resolved_spec_in_dotted_paths(self, tmp_path: Path) -> None:
        subject = make_subject(
            FolderStore(tmp_path),
            method={"type": "lora", "target_modules": ["q_proj", "v_proj"]},
            evaluation={"generation": {"prompts": ["Hello?"], "answer_pattern": "(x)"}},
        )
        settings = evaluation_record(subject, [], held_out_digest="d").settings
        assert settings["method.target_modules"] == "q_proj, v_proj"
        assert settings["training.learning_rate"] == 2e-4
        assert settings["evaluation.generation.answer_pattern"] == "(x)"
        assert not [name for name in settings if "prompts" in name]


class TestHeldOutDigest:
    ROW = HeldOutRow("eval.jsonl:1", (Message("user", "2 + 2?"), Message("assistant", "4")))

    def digest(self, ids: list[int], labels: list[int], *rows: HeldOutRow) -> str:
        held_out = HeldOut(encoded=(Encoded(input_ids=ids, labels=labels),), rows=rows)
        return held_out_digest(held_out, questions(["Hello?"], rows))

    def test_covers_tokens_labels_and_references(self) -> None:
        other = HeldOutRow("eval.jsonl:1", (self.ROW.messages[0], Message("assistant", "5")))
        digests = [
            self.digest([1, 2], [-100, 2], self.ROW),
            self.digest([1, 3], [-100, 2], self.ROW),
            self.digest([1, 2], [-100, -100], self.ROW),
            self.digest([1, 2], [-100, 2], other),
            self.digest([1, 2], [-100, 2]),
        ]
        assert len(set(digests)) == len(digests)

    def test_a_person_s_own_prompts_do_not_count(self) -> None:
        held_out = HeldOut(encoded=(), rows=(self.ROW,))
        assert held_out_digest(held_out, questions(["a"], [self.ROW])) == held_out_digest(
            held_out, questions(["b", "c"], [self.ROW])
        )
