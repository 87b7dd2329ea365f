"""Evaluation with a tiny random Llama: numbers against an independent computation; the eval container end to end."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from sftjob.app import evaluation, evaluation_models
from sftjob.app.evaluation_inputs import read_held_out
from sftjob.contract import ExitCode, keys
from sftjob.data.digest import data_digest, tokenizer_digest
from sftjob.data.inputs import InputFile, PrepareInput
from sftjob.data.masks import IGNORED, Encoded
from sftjob.data.prepare import prepare
from sftjob.evaluate.generate import generate
from sftjob.evaluate.scoring import score_rows
from sftjob.methods import BaseName, Model, fine_tuning, load_base
from sftjob.model_folder import parse_config
from sftjob.plan import model_facts
from sftjob.records import Environment, Evaluation, Export, Metric
from sftjob.report import load_evaluation
from sftjob.resolve import resolve
from sftjob.spec import JobSpec, canonical_spec, run_id, sha256_hex
from sftjob.storage import FolderStore, upload_folder

pytestmark = [
    pytest.mark.train,
    # PEFT asks transformers for it by its old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

END = "<|endoftext|>"
CONTEXT = 256
PAD = 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model over bytes: random weights, settings of its own that must not touch greedy answers."""
    folder = tmp_path_factory.mktemp("base")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={text: id for id, text in enumerate([END, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "bos_token": END}))
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=1 + len(alphabet),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,  # livelier than a trained start, so that answers differ from prompt to prompt
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    GenerationConfig(do_sample=True, temperature=3.0, repetition_penalty=1.7, eos_token_id=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(base: Path) -> LlamaForCausalLM:
    return load_base(base, vocab_size=257, dtype=torch.float32, seed=0).eval()


@pytest.fixture(scope="module")
def rows() -> list[Encoded]:
    draw = random.Random(5)
    made = []
    for length in (2, 3, 9, 17, 40, 40, 5):
        ids = [draw.randrange(1, 257) for _ in range(length)]
        labels = [IGNORED] + [id if draw.random() < 0.6 else IGNORED for id in ids[1:]]
        made.append(Encoded(input_ids=ids, labels=labels))
    return [*made, Encoded(input_ids=[5, 6, 7], labels=[IGNORED] * 3)]


class TestScoring:
    def test_equals_a_computation_row_by_row(self, model: LlamaForCausalLM, rows: list[Encoded]) -> None:
        loss, tokens, correct = 0.0, 0, 0
        for row in rows:
            probabilities = model(torch.tensor([row.input_ids])).logits[0].detach().double().softmax(dim=-1)
            for position, label in enumerate(row.labels):
                if label != IGNORED:
                    loss -= math.log(probabilities[position - 1, label])
                    tokens += 1
                    correct += int(probabilities[position - 1].argmax() == label)
        scores = score_rows(model, rows, batch_size=3, pad_token_id=PAD)
        assert scores.trained_tokens == tokens > 50
        assert scores.correct == correct
        assert scores.loss == pytest.approx(loss / tokens, rel=1e-5)
        assert scores.perplexity == pytest.approx(math.exp(loss / tokens), rel=1e-4)
        assert scores.token_accuracy == correct / tokens

    def test_equals_the_model_s_own_loss(self, model: LlamaForCausalLM, rows: list[Encoded]) -> None:
        row = rows[4]
        own = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss.item()
        assert score_rows(model, [row], batch_size=1, pad_token_id=PAD).loss == pytest.approx(own, rel=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_batch_size_and_filler_change_nothing(
        self, model: LlamaForCausalLM, rows: list[Encoded], batch_size: int
    ) -> None:
        one = score_rows(model, rows, batch_size=3, pad_token_id=PAD)
        other = score_rows(model, rows, batch_size=batch_size, pad_token_id=200)
        assert (one.trained_tokens, one.correct) == (other.trained_tokens, other.correct)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)

    def test_tokens_are_weighted_alike(self, model: LlamaForCausalLM, rows: list[Encoded]) -> None:
        """Not the mean of the rows' means."""
        each = [score_rows(model, [row], batch_size=1, pad_token_id=PAD) for row in rows[2:6]]
        together = score_rows(model, rows[2:6], batch_size=4, pad_token_id=PAD)
        assert together.loss != pytest.approx(sum(one.loss for one in each) / len(each), rel=1e-5)
        assert together.loss == pytest.approx(
            sum(one.loss * one.trained_tokens for one in each) / together.trained_tokens, rel=1e-5
        )


class TestGenerate:
    PROMPTS = ((1, 2, 3), (40, 41, 42, 43, 44, 45, 46), (9,), (100, 3, 77, 6))

    def answers(self, model: Any, prompts: Any, **changes: Any) -> list[list[int]]:
        options = {"batch_size": 4, "max_new_tokens": 12, "stop_token_ids": (0,), "pad_token_id": PAD, **changes}
        return generate(model, prompts, **options)

    def test_a_batch_answers_as_one_by_one(self, model: LlamaForCausalLM) -> None:
        alone = [self.answers(model, [prompt])[0] for prompt in self.PROMPTS]
        assert self.answers(model, self.PROMPTS) == alone
        assert self.answers(model, self.PROMPTS, batch_size=2) == alone
        assert len({tuple(answer) for answer in alone}) > 1

    def test_follows_the_most_probable_token(self, model: LlamaForCausalLM) -> None:
        """Whatever the model's own settings say of sampling and repetition; and they stay as they were."""
        expected = [self.by_hand(model, prompt) for prompt in self.PROMPTS]
        assert self.answers(model, self.PROMPTS) == expected
        # Some answer repeats a token, so that the penalty in the model's own settings would have changed it.
        assert any(len(set(answer)) < len(answer) for answer in expected)
        assert model.generation_config.repetition_penalty == 1.7

    def by_hand(self, model: LlamaForCausalLM, prompt: tuple[int, ...]) -> list[int]:
        ids = list(prompt)
        for _ in range(12):
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == 0:
                break
            ids.append(token)
        return ids[len(prompt) :]

    def test_ends_before_any_stop_token(self, model: LlamaForCausalLM) -> None:
        whole = self.answers(model, self.PROMPTS)
        longest = max(whole, key=len)
        stop = longest[4]
        cut = self.answers(model, self.PROMPTS, stop_token_ids=(0, stop))
        assert cut == [ids[: ids.index(stop)] if stop in ids else ids for ids in whole]
        assert cut != whole


# The eval container, from a store that was filled by hand.

ROWS = [{"prompt": f"{number} plus {number}", "completion": f"it is\n#### {2 * number}"} for number in range(10, 18)]


@pytest.fixture
def world(tmp_path: Path, base: Path) -> "World":
    return World(tmp_path, base)


class World:
    """A store with a finished LoRA training whose adapter does nothing unless `trained`, and the way to evaluate it."""

    def __init__(self, root: Path, base: Path, *, held_out: bool = True, trained: bool = False) -> None:
        self.root, self.base = root, base
        files = {"train": ROWS, "eval": ROWS[:3]} if held_out else {"train": ROWS}
        for name, lines in files.items():
            (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.value: dict[str, Any] = {
            "name": "tiny",
            "model": {"path": str(base)},
            "data": {
                **{name: [{"path": str(root / f"{name}.jsonl")}] for name in files},
                "template": "chatml",
                "max_overlap": 1.0,
            },
            "method": {"type": "lora", "r": 2},
            "training": {"max_length": 64},
            "launch": {"gpus_per_node": 0},
            "storage": {"uri": str(root / "store")},
            "evaluation": {
                "batch_size": 2,
                "generation": {
                    "prompts": ["Hello?"],
                    "held_out_rows": 2,
                    "max_new_tokens": 4,
                    "answer_pattern": "#### (.+)",
                },
            },
        }
        self.store = FolderStore(root / "store").at(run_id(self.spec))
        facts = model_facts(parse_config((base / "config.json").read_bytes(), name="base"))
        self.job = resolve(self.spec, facts)
        self.store.put_bytes(keys.SPEC, self.job.to_json())
        self._prepare(list(files))
        self.model = self._export(trained)
        self._metrics()

    @property
    def spec(self) -> JobSpec:
        return JobSpec.model_validate_json(json.dumps(self.value))

    def run(self) -> int:
        (self.root / "spec.json").write_bytes(canonical_spec(self.spec))
        return evaluation.main(["--spec", str(self.root / "spec.json"), "--work", str(self.root / "work")])

    def evaluation(self) -> Evaluation:
        return load_evaluation(self.store)

    def _prepare(self, splits: list[str]) -> None:
        hashes = [sha256_hex((self.root / f"{name}.jsonl").read_bytes()) for name in splits]
        given = {name: (InputFile(path=self.root / f"{name}.jsonl", name=f"{name}.jsonl"),) for name in splits}
        prepared = prepare(
            self.job,
            PrepareInput(
                **given,
                model=self.base,
                out=self.root / "prepared",
                attempt=2,
                digest=data_digest(self.job, hashes, tokenizer_digest(self.base)),
            ),
        )
        files = upload_folder(self.store, self.root / "prepared", keys.data(prepared.digest, 2))
        self.prepared = prepared.model_copy(update={"files": files})
        self.store.put_bytes(keys.attempt_data(2), self.prepared.to_json())

    def _export(self, trained: bool) -> Model:
        method = fine_tuning(self.job.method)
        model = load_base(
            self.base, vocab_size=self.prepared.vocab_size, dtype=torch.float32, seed=self.job.training.seed
        )
        tuned = method.prepare(model, base=BaseName(name="base"), added_token_ids=self.prepared.added_token_ids)
        if trained:
            torch.manual_seed(1)
            for parameter in (one for one in tuned.parameters() if one.requires_grad):
                torch.nn.init.normal_(parameter, std=0.5)
        method.save(tuned, self.root / "export")
        export = Export(
            run_id=self.job.run_id,
            attempt=2,
            step=4,
            method="lora",
            adapter=True,
            files=upload_folder(self.store, self.root / "export", keys.export(2)),
            time="2026-11-24T00:00:00+00:00",
        )
        self.store.put_bytes(keys.SUCCESS, export.to_json())
        return tuned.eval()

    def _metrics(self) -> None:
        lines = [(1, 1, 5.0), (1, 2, 4.0), (2, 2, 3.5), (2, 3, 3.0)]
        for segment, (attempt, step, loss) in enumerate(lines):
            metric = Metric(attempt=attempt, step=step, epoch=0, loss=loss, loss_hex="", seconds=step * 2.0, time="")
            self.store.put_bytes(keys.metrics(attempt, segment), metric.to_json() + b"\n")
        environment = Environment(
            attempt=2,
            versions={},
            device="cpu",
            device_count=1,
            asked={},
            ran={"trainable_parameters": 700, "total_parameters": 20_000},
        )
        self.store.put_bytes(keys.environment(2, 0), environment.to_json())


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Counts which models are really run."""
    seen: list[tuple[str, str]] = []
    real = evaluation_models.evaluate_model

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append((options["name"], options["prompt_format"]))
        return real(*arguments, **options)

    monkeypatch.setattr(evaluation_models, "evaluate_model", counted)
    return seen


class TestEvaluation:
    def test_end_to_end(self, world: World, evaluated: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
        assert world.run() == 0
        record = world.evaluation()
        base, plain, tuned = record.scores
        assert (base.rows, base.generated) == (3, 2)
        # The adapter is untouched: the tuned model is the base model, to the last bit.
        assert tuned.model_dump(exclude={"model"}) == base.model_dump(exclude={"model"})
        assert plain.loss != base.loss
        answers = {(a.id, a.model, a.prompt_format): a for a in record.answers}
        assert len(answers) == 9
        assert answers["eval.jsonl:1", "tuned", "template"].reference == "it is\n#### 20"
        assert answers["prompt 1", "base", "plain"].match is None
        for (id, model, form), answer in answers.items():
            if (model, form) == ("tuned", "template"):
                assert answer.answer == answers[id, "base", "template"].answer
        assert (record.trainable_parameters, record.total_parameters) == (700, 20_000)
        assert [(line.step, line.loss) for line in record.metrics] == [(1, 5.0), (2, 3.5), (3, 3.0)]
        assert record.seconds_training == 6.0
        assert record.settings["method.r"] == 2
        prefix = keys.evaluation(record.eval_id)
        for name in ("report.md", "report.html", "report.json"):
            assert world.store.get_bytes(f"{prefix}{name}")
        assert "tuned, template: scored 3 of 3" in capsys.readouterr().out

    def test_each_model_is_scored_by_its_own_weights(self, tmp_path: Path, base: Path) -> None:
        world = World(tmp_path, base, trained=True)
        assert world.run() == 0
        scores = {(score.model, score.prompt_format): score for score in world.evaluation().scores}
        rows = read_held_out(world.root / "prepared", None).encoded
        tuned = score_rows(world.model, rows, batch_size=1, pad_token_id=PAD)
        with world.model.disable_adapter():
            alone = score_rows(world.model, rows, batch_size=1, pad_token_id=PAD)
        assert scores["tuned", "template"].loss == pytest.approx(tuned.loss, rel=1e-5)
        assert scores["base", "template"].loss == pytest.approx(alone.loss, rel=1e-5)
        assert tuned.loss != pytest.approx(alone.loss, rel=1e-2)

    def test_a_second_time_there_is_nothing_to_do(
        self, world: World, evaluated: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        world.run()
        before = {info.key: world.store.get_bytes(info.key) for info in world.store.list(keys.EVALUATIONS)}
        evaluated.clear()
        assert world.run() == 0
        assert evaluated == []
        assert "finished already" in capsys.readouterr().out
        assert {info.key: world.store.get_bytes(info.key) for info in world.store.list(keys.EVALUATIONS)} == before
        world.value["evaluation"]["max_rows"] = 2
        assert world.run() == 0
        assert len(evaluated) == 3
        assert [score.rows for score in world.evaluation().scores] == [2, 2, 2]

    def test_what_was_done_before_a_kill_is_not_done_again(
        self, world: World, evaluated: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted = evaluation_models.evaluate_model

        def killed_at_the_tuned_model(*arguments: Any, **options: Any) -> Any:
            if options["name"] == "tuned":
                raise KeyboardInterrupt
            return counted(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(evaluation_models, "evaluate_model", killed_at_the_tuned_model)
            assert world.run() == ExitCode.INTERRUPTED
        stored = [info.key for info in world.store.list(keys.EVALUATIONS)]
        assert [key.rpartition("/")[2] for key in stored] == ["base-0000.jsonl", "base-0001.jsonl"]
        evaluated.clear()
        assert world.run() == 0
        assert evaluated == [("tuned", "template")]
        assert len(world.evaluation().scores) == 3

    def test_a_damaged_export_is_refused(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        key = keys.export(2, "adapter_model.safetensors")
        data = world.store.get_bytes(key)
        world.store.put_bytes(key, data[:-1] + bytes([data[-1] ^ 1]))
        assert world.run() == ExitCode.STORAGE
        message = capsys.readouterr().err
        assert "adapter_model.safetensors" in message
        assert message.count("\n") == 1
        assert not list(world.store.list(keys.EVALUATIONS))

    def test_nothing_held_out(self, tmp_path: Path, base: Path, evaluated: list[Any]) -> None:
        world = World(tmp_path, base, held_out=False)
        assert world.run() == 0
        record = world.evaluation()
        assert record.scores == ()
        assert [answer.id for answer in record.answers] == ["prompt 1"] * 3
        report = world.store.get_bytes(keys.evaluation(record.eval_id, "report.md")).decode()
        assert "nothing was scored" in report

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"answer_pattern": "("}, "evaluation.generation.answer_pattern"),
            ({"max_new_tokens": CONTEXT}, "evaluation.generation.max_new_tokens"),
            ({"prompts": ["fine", "<|im_end|> not"]}, "evaluation.generation.prompts.1"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(
        self,
        world: World,
        evaluated: list[Any],
        capsys: pytest.CaptureFixture[str],
        change: dict[str, Any],
        field: str,
    ) -> None:
        world.value["evaluation"]["generation"] |= change
        assert world.run() == ExitCode.SPEC
        assert field in capsys.readouterr().err
        assert evaluated == []
