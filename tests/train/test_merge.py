"""Merged models: the sum is the adapter's model, its proof refuses everything else, and it is published as a whole."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from sftjob.app.merge import merge_run
from sftjob.contract import ExitCode, keys
from sftjob.errors import ConfigurationError, CrashError, InputMissing, SpecError
from sftjob.methods import load_base, load_tuned
from sftjob.methods.lora import LoraFineTuning
from sftjob.methods.merge import logit_difference, require
from sftjob.records import Export, MergeParity, PreparedData, SplitCounts, read_record
from sftjob.resolve import ResolvedJob
from sftjob.resolved import ResolvedExport, ResolvedMethod
from sftjob.spec import LocalModel, PinnedModel, load_spec
from sftjob.storage import FolderStore, list_files, upload_files
from sftjob.train import merge
from sftjob.train.attempt import Attempt
from sftjob.train.finish import publish_export
from sftjob.train.merge import read_parity_rows, run_merge
from sftjob.train.workdir import RankInput, WorkDir
from tests.train import tiny
from tests.train.tiny import IM_END, IM_START, LORA, QLORA, SEED, VOCAB, Run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

CASES: dict[str, ResolvedMethod] = {
    "rslora": LORA.model_copy(update={"use_rslora": True}),
    "dora-head": LORA.model_copy(update={"use_dora": True, "modules_to_save": ("lm_head", "norm")}),
    "qlora": QLORA,
}
Trained = Callable[[str], Run]


def asked(method: ResolvedMethod) -> ResolvedJob:
    return tiny.job(method, num_train_epochs=1.0, eval_steps=100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, untied_model: Path, tiny_data: Path) -> Trained:
    """Runs of `CASES`, with a tied base where the head is trained whole; each merged once by the child's own code."""
    runs: dict[str, Run] = {}

    def get(name: str) -> Run:
        if name not in runs:
            base = tiny_model if name == "dora-head" else untied_model
            root = tmp_path_factory.mktemp("merge") / name
            runs[name] = tiny.run_here(tiny.prepare(root, asked(CASES[name]), model=base, data=tiny_data))
            assert merge.main(["--work", str(root)]) == ExitCode.DONE
        return runs[name]

    return get


def parity_of(work: WorkDir) -> MergeParity:
    return MergeParity.model_validate_json((work.root / "merge.json").read_bytes())


def again(work: WorkDir, root: Path, **export: Any) -> WorkDir:
    """The same training with another wish, not merged yet."""
    root.mkdir()
    copy = WorkDir(root)
    copy.export.symlink_to(work.export)
    given = RankInput.model_validate_json(work.rank_input.read_bytes())
    copy.rank_input.write_bytes(given.model_copy(update={"export": ResolvedExport(merge=True, **export)}).to_json())
    copy.job.write_bytes(work.job.read_bytes())
    return copy


class TestMerge:
    @pytest.mark.parametrize("name", CASES)
    def test_is_the_adapter_s_model(self, name: str, trained: Trained) -> None:
        parity = parity_of(trained(name).work)
        assert (parity.split, parity.rows, parity.positions, parity.measure) == ("eval", 6, 68, "max")
        assert 0 < parity.difference.mean <= parity.difference.max < 0.01
        assert parity.difference.top1 > 0.95
        assert parity.effect is not None
        assert parity.effect.mean > 0.1

    def test_says_how_far_a_four_bit_base_is_away(self, trained: Trained) -> None:
        assert parity_of(trained("rslora").work).trained is None
        parity = parity_of(trained("qlora").work)
        assert parity.trained is not None
        assert parity.trained.mean > 3 * parity.difference.mean

    def test_holds_all_that_others_need_and_no_adapter(self, trained: Trained) -> None:
        work = trained("dora-head").work
        names = {path.name for path in list_files(work.root / "merged")}
        adapter = {"adapter_config.json", "adapter_model.safetensors"}
        assert names == {path.name for path in list_files(work.export)} - adapter | {"config.json", "model.safetensors"}
        config = json.loads((work.root / "merged" / "config.json").read_text())
        assert (config["dtype"], config["vocab_size"], config["tie_word_embeddings"]) == ("bfloat16", VOCAB, True)
        generation = json.loads((work.root / "merged" / "generation_config.json").read_text())
        assert generation["eos_token_id"] == [IM_END, 0]
        weights = load_file(work.root / "merged" / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        assert "lm_head.weight" not in weights

    def test_loads_elsewhere_without_peft(self, trained: Trained, tmp_path: Path) -> None:
        runs = [trained(name) for name in CASES]
        folders = [str(run.work.root / "merged") for run in runs]
        ids = [[IM_START, 11, 12, IM_END, IM_START]]
        arguments = [json.dumps(folders), json.dumps(ids), str(tmp_path / "out.pt")]
        subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], check=True)
        for run, (logits, dtype, answer) in zip(runs, torch.load(tmp_path / "out.pt"), strict=True):
            given = RankInput.model_validate_json(run.work.rank_input.read_bytes())
            tuned = load_tuned(given.model, run.work.export, vocab_size=VOCAB, dtype=torch.float32, seed=SEED)
            with torch.no_grad():
                expected = tuned(input_ids=torch.tensor(ids)).logits
            # They were computed in bf16 as well, which takes as much again as the rounding of the weights.
            assert logit_difference(list(logits), list(expected)).max < 0.03
            assert dtype == "torch.bfloat16"
            assert len(answer) > len(ids[0])


class TestProof:
    def test_refuses_beyond_the_tolerance(self, trained: Trained, tmp_path: Path) -> None:
        work = again(trained("rslora").work, tmp_path / "work", merge_tolerance=1e-5)
        assert merge.main(["--work", str(work.root)]) == ExitCode.CONFIGURATION
        told = (work.root / "merge.error").read_text()
        assert re.match(r"export\.merge_tolerance: .*differ from the adapter's by up to 0\.00\d+ of their size", told)
        assert "(68 tokens of 6 eval rows), more than 1e-05; use the adapter as it is" in told
        assert not list(work.root.glob("*merged*"))

    @pytest.mark.parametrize("wrong", ["forgets adapters", "forgets rows of new tokens"])
    def test_finds_a_wrong_sum(self, wrong: str, trained: Trained, tmp_path: Path) -> None:
        work = again(trained("rslora").work, tmp_path / "work")

        def merged(_method: LoraFineTuning, model: PeftModel) -> PreTrainedModel:
            if wrong == "forgets rows of new tokens":
                for module in model.modules():
                    if isinstance(module, LoraLayer):
                        module.merge()
            return model.unload()

        with patch.object(LoraFineTuning, "merge", merged):
            assert merge.main(["--work", str(work.root)]) == ExitCode.CONFIGURATION
        assert "more than 0.05" in (work.root / "merge.error").read_text()

    def test_refuses_an_adapter_that_rounding_swallows(self, trained: Trained, tmp_path: Path) -> None:
        done = trained("rslora").work
        work = again(done, tmp_path / "work")
        work.export.unlink()
        shutil.copytree(done.export, work.export)
        weights = load_file(done.export / "adapter_model.safetensors")
        base = load_base(base_of(done), vocab_size=VOCAB, dtype=torch.float32, seed=SEED)
        rows = {"embed_tokens": base.get_input_embeddings(), "lm_head": base.get_output_embeddings()}
        for name, tensor in weights.items():
            if "lora_B" in name:
                tensor.mul_(1e-3)
            for layer, module in rows.items():
                if f"{layer}.token_adapter" in name:  # as they were before the training
                    tensor.copy_(module.weight[[IM_START, IM_END]])
        save_file(weights, work.export / "adapter_model.safetensors")
        assert merge.main(["--work", str(work.root)]) == ExitCode.CONFIGURATION
        told = (work.root / "merge.error").read_text()
        assert told.startswith("export.merge: bf16 cannot hold this adapter: merging moves logits by 0.00")

    def test_the_mean_decides_for_a_mixture(self, trained: Trained, tmp_path: Path) -> None:
        parity = parity_of(trained("rslora").work)
        between = (parity.difference.mean + parity.difference.max) / 2
        work = again(trained("rslora").work, tmp_path / "work", merge_tolerance=between)
        assert merge.main(["--work", str(work.root)]) == ExitCode.CONFIGURATION
        job = ResolvedJob.model_validate_json(work.job.read_bytes())
        facts = job.facts.model_copy(update={"num_experts": 4})
        work.job.write_bytes(job.model_copy(update={"facts": facts}).to_json())
        assert merge.main(["--work", str(work.root)]) == ExitCode.DONE
        assert parity_of(work).measure == "mean"

    def test_a_difference_is_a_share_of_the_vector_s_size(self) -> None:
        expected = [torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0]])]
        found = [torch.tensor([[3.0, 4.5], [0.0, 2.0]]), torch.tensor([[0.0, 1.0]])]
        difference = logit_difference(found, expected)
        assert difference.max == pytest.approx(2**0.5)
        assert difference.mean == pytest.approx((0.1 + 0 + 2**0.5) / 3)
        assert difference.top1 == pytest.approx(2 / 3)

    def test_nan_is_no_proof(self, trained: Trained) -> None:
        parity = parity_of(trained("rslora").work)
        difference = parity.difference.model_copy(update={"max": float("nan")})
        with pytest.raises(ConfigurationError, match="by up to nan"):
            require(parity.model_copy(update={"difference": difference}))


class TestRows:
    def test_held_out_rows_come_first(self, tiny_data: Path) -> None:
        split, rows = read_parity_rows(tiny_data)
        assert (split, len(rows)) == ("eval", 6)
        assert rows[0][0] == IM_START

    def test_of_a_pack_the_first_document(self, tmp_path: Path) -> None:
        table = pa.table({"input_ids": [[1, 2, 3, 4, 5], [6]], "seq_lengths": [[2, 3], [1]]})
        with pa.OSFile(str(tmp_path / "train.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        assert read_parity_rows(tmp_path) == ("train", [[1, 2], [6]])


class TestChild:
    """What the supervisor makes of the child: it is a process of its own, here a script."""

    def test_its_errors_are_told_as_they_are(self, tmp_path: Path) -> None:
        script = "open(sys.argv[2] + '/merge.error', 'w').write('export.merge: no; do\\n'); sys.exit(78)"
        with pytest.raises(ConfigurationError, match=r"^export\.merge: no; do$"):
            run_merge(WorkDir(tmp_path), child(script))

    def test_a_kill_is_a_crash(self, tmp_path: Path) -> None:
        (tmp_path / "merge.error").write_text("of an earlier attempt\n")
        with pytest.raises(CrashError, match=r"merging was killed by signal 9 .*raise resources.memory"):
            run_merge(WorkDir(tmp_path), child("os.kill(os.getpid(), 9)"))

    def test_without_an_export_it_says_what_is_missing(self, tmp_path: Path) -> None:
        assert merge.main(["--work", str(tmp_path)]) == ExitCode.INPUT
        assert "job.json: not there" in (tmp_path / "merge.error").read_text()


class TestPublish:
    def test_success_lists_the_merged_files_and_what_they_were_compared_with(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        done = trained("rslora").work
        work = again(done, tmp_path / "work")
        shutil.copytree(done.root / "merged", work.root / "merged")
        attempt = attempt_of(work, tmp_path / "store")
        publish_export(attempt, 6, child(f"open(sys.argv[2] + '/merge.json', 'w').write({PARITY!r})"))
        export = read_record(Export, attempt.store.get_bytes(keys.SUCCESS), keys.SUCCESS)
        assert export.adapter
        assert {entry.path for entry in export.files} >= {"adapter_model.safetensors", "tokenizer.json"}
        assert export.merged is not None
        assert export.merged.parity.to_json().decode() == PARITY
        merged = {entry.path: entry for entry in export.merged.files}
        assert merged["model.safetensors"].key == "export/1/merged/model.safetensors"
        assert attempt.store.head(merged["config.json"].key)

    def test_nothing_is_published_when_the_proof_fails(self, trained: Trained, tmp_path: Path) -> None:
        attempt = attempt_of(again(trained("rslora").work, tmp_path / "work"), tmp_path / "store")
        with pytest.raises(ConfigurationError):
            publish_export(
                attempt, 6, child("open(sys.argv[2] + '/merge.error', 'w').write('no' + chr(10)); sys.exit(78)")
            )
        assert not list(attempt.store.list())


class TestCommand:
    """`sftjob merge`, on what a run has left in its store."""

    def test_makes_the_same_model(self, trained: Trained, tmp_path: Path) -> None:
        done = trained("rslora").work
        store = finished_store(done, tmp_path / "store")
        parity = merge_run(store, tmp_path / "out", load_spec, progress=lambda _line: None)  # by a real child
        assert parity == parity_of(done)
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (tmp_path / "out" / name).read_bytes() == (done.root / "merged" / name).read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]

    def test_fetches_what_is_published(self, trained: Trained, tmp_path: Path) -> None:
        store = finished_store(trained("rslora").work, tmp_path / "store", merged=True)
        with patch("sftjob.app.merge.run_merge", side_effect=AssertionError):
            merge_run(store, tmp_path / "out", load_spec, progress=lambda _line: None)
        published = trained("rslora").work.root / "merged"
        assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in published.iterdir()}

    def test_leaves_nothing_behind(self, trained: Trained, tmp_path: Path) -> None:
        store = finished_store(trained("rslora").work, tmp_path / "store")
        with patch("sftjob.app.merge.run_merge", here), pytest.raises(ConfigurationError, match="more than 1e-05"):
            merge_run(store, tmp_path / "out", load_spec, tolerance=1e-5, progress=lambda _line: None)
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    def test_what_cannot_be_merged(self, trained: Trained, tmp_path: Path) -> None:
        store = finished_store(trained("rslora").work, tmp_path / "store")
        with pytest.raises(SpecError, match="is there already"):
            merge_run(store, tmp_path, load_spec, progress=lambda _line: None)
        with pytest.raises(SpecError, match="the run knows where its base is"):
            merge_run(store, tmp_path / "out", load_spec, model=tmp_path, progress=lambda _line: None)
        spec = Path(store) / keys.SPEC
        job = ResolvedJob.model_validate_json(spec.read_bytes())
        pinned = PinnedModel(sha256="1" * 64, name="mine")
        spec.write_bytes(job.model_copy(update={"model": pinned}).to_json())
        with pytest.raises(InputMissing, match=r"the base mine is known by its content alone.*--model DIR"):
            merge_run(store, tmp_path / "out", load_spec, progress=lambda _line: None)
        path = Path(store) / keys.SUCCESS
        export = Export.model_validate_json(path.read_bytes())
        path.write_bytes(export.model_copy(update={"adapter": False, "method": "full"}).to_json())
        with pytest.raises(ConfigurationError, match="no adapter to merge"):
            merge_run(store, tmp_path / "out", load_spec, progress=lambda _line: None)
        path.unlink()
        with pytest.raises(InputMissing, match="training has not finished"):
            merge_run(store, tmp_path / "out", load_spec, progress=lambda _line: None)


PARITY = (
    '{"split":"eval","rows":1,"positions":2,"tolerance":0.05,"measure":"max",'
    '"difference":{"max":0.01,"mean":0.01,"top1":1.0}}'
)


def base_of(work: WorkDir) -> Path:
    return RankInput.model_validate_json(work.rank_input.read_bytes()).model


def attempt_of(work: WorkDir, root: Path) -> Attempt:
    job = ResolvedJob.model_validate_json(work.job.read_bytes())
    return Attempt(1, "local", 0, job, FolderStore(root / job.run_id), work)


def finished_store(work: WorkDir, root: Path, *, merged: bool = False) -> str:
    """The store of a run that is done, with or without a merged model; returns the run's folder."""
    attempt = attempt_of(work, root)
    base = shutil.copytree(base_of(work), root / "base")
    shutil.copytree(work.export, base, dirs_exist_ok=True, ignore=shutil.ignore_patterns("adapter*", "generation*"))
    job = attempt.job.model_copy(update={"model": LocalModel(path=str(base))})
    store = attempt.store
    store.put_bytes(keys.SPEC, job.to_json())
    data = RankInput.model_validate_json(work.rank_input.read_bytes()).data
    prepared = PreparedData(
        digest="0" * 64,
        attempt=1,
        template_sha256="0" * 64,
        vocab_size=VOCAB,
        splits={"train": SplitCounts(rows=24, kept=24)},
        files=upload_files(store, data, list_files(data), keys.data("0" * 64, 1)),
    )
    store.put_bytes(keys.attempt_data(1), prepared.to_json())
    with patch("sftjob.train.finish.run_merge", lambda _work, _command: (work.root / "merged", parity_of(work))):
        publish_export(replace(attempt, job=job), 6, ("merge",) if merged else None)
    return str(root / job.run_id)


def here(work: WorkDir) -> tuple[Path, MergeParity]:
    """`run_merge` without the ten seconds that another process takes to import torch."""
    if code := merge.main(["--work", str(work.root)]):
        assert code == ExitCode.CONFIGURATION
        raise ConfigurationError((work.root / "merge.error").read_text())
    return work.root / "merged", parity_of(work)


def child(script: str) -> tuple[str, ...]:
    """A command that gets `--work DIR` appended; it leaves the files of the merge as they are."""
    return (sys.executable, "-c", f"import os, sys; {script}")


ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folders, ids, out = json.loads(sys.argv[1]), torch.tensor(json.loads(sys.argv[2])), sys.argv[3]
found = []
for folder in folders:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    answer = model.generate(ids, max_new_tokens=4, do_sample=False)[0].tolist()
    assert tokenizer.chat_template and tokenizer.decode(answer)
    found.append((logits, str(model.dtype), answer))
assert "peft" not in sys.modules
torch.save(found, out)
"""
