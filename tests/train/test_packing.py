"""Packs train like the rows in them: kept apart, counted right, continued bit for bit; what cannot is refused."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sftjob.contract import ExitCode
from sftjob.data.packing import best_fit_decreasing
from sftjob.errors import ConfigurationError
from sftjob.resolved import ResolvedMethod
from tests.train import tiny
from tests.train.tiny import FULL, LORA, Run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
BOTH = pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
CAPACITY = 40
VOCAB = 97
Rows = list[dict[str, list[int]]]
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
TWO_KINDS = ["sliding_attention", "full_attention"]
ISOLATED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SMALL),
    "mistral": ("MistralConfig", {**SMALL, "sliding_window": 4, "head_dim": 8}),
    "qwen3": ("Qwen3Config", {**SMALL, "head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", {**SMALL, "head_dim": 8, "sliding_window": 4, "layer_types": TWO_KINDS}),
    "phi3": ("Phi3Config", SMALL),
    "gpt2": ("GPT2Config", {**GPT2, "bos_token_id": 0, "eos_token_id": 0}),
    "mixtral": ("MixtralConfig", {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
MAMBA: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
OPT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MIXING: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", MAMBA),  # a state runs through the whole pack
    "lfm2": ("Lfm2Config", {**SMALL, "layer_types": ["conv", "full_attention"]}),  # convolutions reach back
    "opt": ("OPTConfig", OPT),  # makes its attention mask without position ids (transformers 5.23)
    "gpt_oss": (
        "GptOssConfig",
        {**SMALL, "head_dim": 8, "num_local_experts": 4, "sliding_window": 4, "layer_types": TWO_KINDS},
    ),  # the same
}


def prepared_packs(folder: Path) -> Path:
    """Packs to train on, and rows that are held out."""
    return _data(folder, _packs(), held_out=6)


def _model(kind: str, attention: str) -> Any:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(tiny.SEED)
    name, values = {**ISOLATED, **MIXING}[kind]
    config = getattr(transformers, name)(**values)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def _rows(count: int = 60) -> Rows:
    """Prompts of many lengths and their answers; the first token of each row has no label."""
    draw = random.Random(tiny.SEED)
    rows = []
    for _ in range(count):
        ids = [draw.randrange(10, 30) for _ in range(draw.randrange(3, 20))]
        rows.append({"input_ids": [*ids, *ids], "labels": [-100] * len(ids) + ids})
    return rows


def _packed(rows: Rows) -> Rows:
    return [
        {
            "input_ids": [token for index in pack for token in rows[index]["input_ids"]],
            "labels": [label for index in pack for label in rows[index]["labels"]],
            "seq_lengths": [len(rows[index]["input_ids"]) for index in pack],
        }
        for pack in best_fit_decreasing([len(row["input_ids"]) for row in rows], CAPACITY)
    ]


def _packs() -> Rows:
    """16: four steps an epoch, for one rank and for two."""
    return _packed(_rows())[:16]


def _data(folder: Path, rows: Rows, *, held_out: int = 0) -> Path:
    """Prepared data whose train.arrow holds `rows` with all their columns."""
    tiny.write_data(folder, held_out=held_out)
    (folder / "train.arrow").unlink()
    table = pa.Table.from_pylist(rows, schema=pa.schema({name: pa.list_(pa.int32()) for name in rows[0]}))
    with pa.OSFile(str(folder / "train.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return folder


class TestCollator:
    def test_of_rows_that_are_not_packed_gives_what_trls_gives(self) -> None:
        import torch  # noqa: PLC0415
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # noqa: PLC0415

        from sftjob.train.collate import Collator  # noqa: PLC0415

        ours = Collator(0)(_rows()[:8])
        theirs = DataCollatorForLanguageModeling(pad_token_id=0)(_rows()[:8])
        assert ours.pop("tokens").tolist() == theirs["attention_mask"].sum(dim=1).tolist()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


class TestIsolation:
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize("kind", ISOLATED)
    def test_holds(self, kind: str, attention: str) -> None:
        import torch  # noqa: PLC0415

        from sftjob.train.collate import Collator  # noqa: PLC0415
        from sftjob.train.isolation import check_isolation  # noqa: PLC0415

        model = _model(kind, attention).train()
        random_state = torch.get_rng_state()
        check_isolation(model, Collator(0))
        assert torch.equal(torch.get_rng_state(), random_state)
        assert all(module.training for module in model.modules())

    @pytest.mark.parametrize("kind", MIXING)
    def test_does_not_hold(self, kind: str) -> None:
        from sftjob.train.collate import Collator  # noqa: PLC0415
        from sftjob.train.isolation import check_isolation  # noqa: PLC0415

        model = _model(kind, "eager")
        with pytest.raises(ConfigurationError) as caught:
            check_isolation(model, Collator(0))
        assert str(caught.value).startswith(f"training.packing: {type(model).__name__} with eager attention lets a ")
        assert "; set training.packing: false" in str(caught.value)

    @pytest.mark.parametrize("kind", ["llama", "mixtral"])
    def test_is_lost_by_a_mask_of_ones(self, kind: str) -> None:
        import torch  # noqa: PLC0415

        from sftjob.train.collate import Collator  # noqa: PLC0415
        from sftjob.train.isolation import check_isolation  # noqa: PLC0415

        def collate(rows: Any) -> dict[str, torch.Tensor]:
            batch = Collator(0)(rows)
            return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}

        with pytest.raises(ConfigurationError, match="lets a document see its neighbour"):
            check_isolation(_model(kind, "sdpa"), collate)

    def test_a_model_that_counts_positions_itself(self) -> None:
        """Neighbours stay apart, and yet each document but the first is read at the wrong place."""
        import torch  # noqa: PLC0415

        from sftjob.train.collate import Collator  # noqa: PLC0415
        from sftjob.train.isolation import check_isolation  # noqa: PLC0415

        model = _model("gpt2", "sdpa")
        wpe = model.transformer.wpe
        wpe.forward = lambda ids: torch.nn.functional.embedding(torch.arange(ids.shape[1])[None], wpe.weight)
        with pytest.raises(ConfigurationError, match=r"otherwise than alone: its logits differ by [1-9]"):
            check_isolation(model, Collator(0))

    def test_a_model_that_takes_no_positions(self) -> None:
        from sftjob.train.collate import Collator  # noqa: PLC0415
        from sftjob.train.isolation import check_isolation  # noqa: PLC0415

        model = _model("llama", "sdpa")

        class Plain(type(model)):  # type: ignore[misc] # a class made at run time
            def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
                raise AssertionError

        model.__class__ = Plain
        with pytest.raises(ConfigurationError, match="Plain with sdpa attention takes no position_ids"):
            check_isolation(model, Collator(0))


@pytest.fixture(scope="module")
def packed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_packs(tmp_path_factory.mktemp("packed") / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, packed_data: Path) -> Callable[[Any], Run]:
    """Uninterrupted runs over packs, each done once."""
    runs: dict[str, Run] = {}

    def get(method: ResolvedMethod) -> Run:
        if method.type not in runs:
            root = tmp_path_factory.mktemp("whole") / method.type
            work = tiny.prepare(root, tiny.job(method, packing=True), model=tiny_model, data=packed_data)
            runs[method.type] = tiny.run_here(work)
        return runs[method.type]

    return get


class TestTraining:
    @BOTH
    def test_learns_and_counts_tokens_not_filler(self, method: ResolvedMethod, whole: Callable[[Any], Run]) -> None:
        run, packs = whole(method), _packs()
        assert run.result.exit_code == ExitCode.DONE, run.result.reason
        assert (run.environment.asked["packing"], run.environment.ran["packing"]) == ("on", "on")
        losses = [line.loss for line in run.metrics if line.kind == "train"]
        assert losses[-1] < losses[0]
        last = run.metrics[-1]
        assert last.tokens_seen == 2 * sum(len(pack["input_ids"]) for pack in packs)
        assert last.trained_tokens_seen == 2 * sum(label != -100 for pack in packs for label in pack["labels"])

    def test_gives_the_losses_of_rows_that_are_not_packed(self, tmp_path: Path, tiny_model: Path) -> None:
        """A step over all packs and one over all rows are the same step."""
        rows = _rows(12)
        losses = []
        for name, given in {"alone": rows, "packed": _packed(rows)}.items():
            job = tiny.job(
                packing=name == "packed", per_device_train_batch_size=len(given), max_steps=5, logging_steps=1
            )
            data = _data(tmp_path / name / "data", given)
            run = tiny.run_here(tiny.prepare(tmp_path / name / "work", job, model=tiny_model, data=data))
            assert run.result.exit_code == ExitCode.DONE, run.result.reason
            losses.append([line.loss for line in run.metrics])
        alone, packed = losses
        assert len(alone) == 5
        assert all(math.isclose(*pair, abs_tol=1e-5) for pair in zip(alone, packed, strict=True))

    @BOTH
    def test_goes_on_bit_for_bit(
        self,
        method: ResolvedMethod,
        tmp_path: Path,
        tiny_model: Path,
        packed_data: Path,
        whole: Callable[[Any], Run],
    ) -> None:
        job = tiny.job(method, packing=True)
        first = tiny.interrupted_after(
            tiny.prepare(tmp_path / "first", job, model=tiny_model, data=packed_data), crash := 5
        )
        assert (first.result.exit_code, first.result.step) == (ExitCode.CRASH, crash)
        resume = first.work.checkpoint(3)
        second = tiny.run_here(
            tiny.prepare(tmp_path / "next", job, model=tiny_model, data=packed_data, resume=resume, attempt=2)
        )
        assert second.result.exit_code == ExitCode.DONE, second.result.reason
        assert second.weights() == whole(method).weights()
        assert second.losses == [each for each in whole(method).losses if each[0] > 3]
        assert second.held_out == [each for each in whole(method).held_out if each[0] > 3]

    def test_two_ranks_take_the_step_of_one(
        self, tmp_path: Path, tiny_model: Path, packed_data: Path, whole: Callable[[Any], Run]
    ) -> None:
        """The same packs a step; sums in another order: 1e-5 over steps that learn at 1e-2."""
        job = tiny.job(processes=2, packing=True, per_device_train_batch_size=2)
        work = tiny.prepare(tmp_path / "ddp", job, model=tiny_model, data=packed_data)
        run = tiny.run_apart(work, processes=2)
        assert run.returncode == 0, run.output
        one, two = ([line for line in each.metrics if line.kind == "train"] for each in (whole(FULL), run))
        assert [line.trained_tokens_seen for line in one] == [line.trained_tokens_seen for line in two]
        assert all(math.isclose(a.loss, b.loss, abs_tol=1e-5) for a, b in zip(one, two, strict=True))


class TestLosses:
    @BOTH
    def test_of_a_document_are_those_outside_the_pack(
        self, method: ResolvedMethod, whole: Callable[[Any], Run], tiny_model: Path, packed_data: Path
    ) -> None:
        """Of the trained model, whose attention does something."""
        import torch  # noqa: PLC0415

        from sftjob.methods import load_tuned  # noqa: PLC0415
        from sftjob.train.collate import NOT_FOR_THE_MODEL, Collator  # noqa: PLC0415

        model = load_tuned(
            tiny_model, whole(method).work.export, vocab_size=tiny.VOCAB, dtype=torch.float32, seed=tiny.SEED
        )

        @torch.no_grad()
        def losses(rows: Rows) -> list[float]:
            """Of each token, 0 without a label: row by row without filler."""
            batch = Collator(0)(rows)
            given = {name: batch[name] for name in batch.keys() - NOT_FOR_THE_MODEL}
            logits = model(**given, use_cache=False).logits
            values = torch.nn.functional.cross_entropy(logits[:, :-1].mT, batch["labels"][:, 1:], reduction="none")
            return [
                value
                for row, tokens in zip(values.tolist(), batch["tokens"], strict=True)
                for value in row[: tokens - 1]
            ]

        packs, alone = _packs(), []
        for pack in packs:
            start = 0
            for length in pack["seq_lengths"]:
                part = {name: pack[name][start : start + length] for name in ("input_ids", "labels")}
                alone += [0.0] * (start > 0) + losses([part])
                start += length
        assert max(abs(a - b) for a, b in zip(losses(packs), alone, strict=True)) <= 1e-5


class TestRefusal:
    def test_ends_the_run_before_a_step(self, tmp_path: Path, packed_data: Path) -> None:
        _model("opt", "sdpa").save_pretrained(tmp_path / "model")
        job = tiny.job(packing=True)
        run = tiny.run_here(tiny.prepare(tmp_path / "work", job, model=tmp_path / "model", data=packed_data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert run.result.reason.startswith("training.packing: OPTForCausalLM with sdpa attention lets a document see")

    @pytest.mark.parametrize("asked", [True, False])
    def test_of_rows_that_are_not_as_asked(
        self, asked: bool, tmp_path: Path, tiny_model: Path, tiny_data: Path, packed_data: Path
    ) -> None:
        data = tiny_data if asked else packed_data
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(packing=asked), model=tiny_model, data=data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert run.result.reason.startswith("training.packing: packing o")
