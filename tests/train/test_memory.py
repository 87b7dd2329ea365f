"""The planner's estimate against the peak of all tensors' bytes, for every method under every launch."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sftjob.plan import ModelFacts, estimate, model_facts
from sftjob.plan.inventory import inventory
from sftjob.plan.trainable import trainable
from sftjob.resolve import ResolvedJob
from sftjob.resolve.deepspeed import deepspeed_config
from sftjob.resolved import ResolvedMethod, ResolvedQlora
from sftjob.spec import Strategy
from sftjob.train.workdir import WorkDir
from tests.train import tiny
from tests.train.tiny import FULL

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
ADDED = 2
LORA = tiny.LORA.model_copy(update={"lora_dropout": 0.0})
QLORA = tiny.QLORA.model_copy(update={"lora_dropout": 0.0})
METHODS: dict[str, ResolvedMethod] = {"full": FULL, "lora": LORA, "qlora": QLORA}
LAUNCHES: tuple[Strategy, ...] = ("ddp", "zero1", "zero2", "zero3")
TOLERANCE = 0.10
# DeepSpeed's buffers for models of this size; those for billions of weights would be all that is measured.
BUFFERS = {
    "reduce_bucket_size": 500_000,
    "allgather_bucket_size": 500_000,
    "stage3_prefetch_bucket_size": 500_000,
    "stage3_max_live_parameters": 1_000_000,
    "stage3_max_reuse_distance": 1_000_000,
}
WIDE, SMALL = 4096, 512
"""Vocabularies: with one the logits are the largest part, with the other the layers."""


@dataclass(frozen=True)
class Folder:
    """A model of 7 million parameters, and rows for it."""

    path: Path

    @property
    def facts(self) -> ModelFacts:
        return model_facts(json.loads((self.path / "config.json").read_text()))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Folder]:
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    made: dict[int, Folder] = {}
    for vocab_size in (WIDE, SMALL):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
        path = tmp_path_factory.mktemp("memory") / str(vocab_size)
        LlamaForCausalLM(config).save_pretrained(path)
        made[vocab_size] = Folder(path)
    return made


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Rows that fill a micro-batch but for a few tokens of padding, with a label for every token: the worst case."""
    made: dict[int, Path] = {}

    def get(length: int) -> Path:
        if length not in made:
            folder = tiny.write_data(tmp_path_factory.mktemp("rows") / str(length), rows=2, held_out=0)
            lengths = [length - 3 * (number % 2) for number in range(32)]
            ids = [[1 + (start + position) % 60 for position in range(size)] for start, size in enumerate(lengths)]
            tiny.write_rows(folder / "train.arrow", [{"input_ids": each, "labels": each} for each in ids])
            made[length] = folder
        return made[length]

    return get


def make_job(method: ResolvedMethod, *, strategy: Strategy = "single", **training: Any) -> ResolvedJob:
    processes = 1 if strategy == "single" else 2
    if isinstance(method, ResolvedQlora) and strategy == "zero3":
        method = method.model_copy(update={"bnb_4bit_quant_storage": "fp32"})
    job = tiny.job(
        method,
        processes=processes,
        strategy=strategy,
        **{"max_steps": 2, "save_steps": 100, "max_length": 128, **training},
    )
    extended = deepspeed_config(job.training, job.launch, {"zero_optimization": BUFFERS})
    return job.model_copy(update={"launch": job.launch.model_copy(update={"deepspeed": extended})})


def check(peaks: list[int], job: ResolvedJob, facts: ModelFacts) -> None:
    needs = estimate(facts, job.method, job.training, job.launch, added_tokens=ADDED)
    said = f"estimated {needs.tensors:,} at {needs.moment} ({dict(needs.components)}), measured {peaks}"
    for peak in peaks:
        assert abs(needs.tensors - peak) <= TOLERANCE * peak, said


ALONE: dict[str, tuple[ResolvedMethod, int, dict[str, Any]]] = {
    "full": (FULL, WIDE, {}),
    "lora": (LORA, WIDE, {}),
    "qlora": (QLORA, WIDE, {}),
    "full, layers": (FULL, SMALL, {}),
    "lora, layers": (LORA, SMALL, {}),
    "qlora, layers": (QLORA, SMALL, {}),
    "full, recomputed": (FULL, SMALL, {"gradient_checkpointing": True}),
    "lora, recomputed": (LORA, SMALL, {"gradient_checkpointing": True}),
    "qlora, recomputed": (QLORA, SMALL, {"gradient_checkpointing": True}),
    "full, one long row": (FULL, SMALL, {"max_length": 512, "per_device_train_batch_size": 1}),
    "lora, one long row": (LORA, SMALL, {"max_length": 512, "per_device_train_batch_size": 1}),
    "full, one short row": (FULL, WIDE, {"per_device_train_batch_size": 1}),
    "full, accumulated": (FULL, WIDE, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
    "full, bf16": (FULL, SMALL, {"precision": "bf16"}),
    "full, bf16, recomputed": (
        FULL,
        SMALL,
        {
            "precision": "bf16",
            "gradient_checkpointing": True,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
        },
    ),
    "lora, bf16": (LORA, SMALL, {"precision": "bf16"}),
    "lora, dropout": (tiny.LORA, SMALL, {}),
    "lora, DoRA": (LORA.model_copy(update={"use_dora": True}), SMALL, {}),
    "lora, head": (LORA.model_copy(update={"modules_to_save": ("lm_head",)}), WIDE, {}),
}


@pytest.mark.parametrize("name", ALONE)
def test_alone(name: str, models: dict[int, Folder], rows: Callable[[int], Path], tmp_path: Path) -> None:
    from tests.train.tracked_worker import TensorBytes  # noqa: PLC0415

    method, vocab_size, training = ALONE[name]
    job = make_job(method, **training)
    work = tiny.prepare(tmp_path / "run", job, model=models[vocab_size].path, data=rows(job.training.max_length))

    with TensorBytes() as count:
        run = tiny.run_here(work)

    assert run.result.exit_code == 0
    check([count.peak], job, models[vocab_size].facts)


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 32}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "llama4": (
        "Llama4TextConfig",
        {"num_local_experts": 4, "intermediate_size_mlp": 704, "interleave_moe_layer_step": 2, "head_dim": 32},
    ),
}


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str, method: ResolvedMethod, rows: Callable[[int], Path], tmp_path: Path) -> None:
    import transformers  # noqa: PLC0415

    from tests.train.tracked_worker import TensorBytes  # noqa: PLC0415

    made, changed = ARCHITECTURES[name]
    config = getattr(transformers, made)(
        vocab_size=SMALL,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **changed,
    )
    folder = Folder(tmp_path / "model")
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder.path)
    job = make_job(method)
    work = tiny.prepare(tmp_path / "run", job, model=folder.path, data=rows(128))

    with TensorBytes() as count:
        run = tiny.run_here(work)

    assert run.result.exit_code == 0, run.result.reason
    check([count.peak], job, folder.facts)


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, models: dict[int, Folder], rows: Callable[[int], Path]
) -> dict[tuple[str, Strategy], tuple[ResolvedJob, WorkDir]]:
    """Two ranks, every method under every launch, one run after the other."""
    runs: dict[tuple[str, Strategy], tuple[ResolvedJob, WorkDir]] = {}
    for name, method in METHODS.items():
        for strategy in LAUNCHES:
            job = make_job(method, strategy=strategy)
            root = tmp_path_factory.mktemp("together") / f"{name}-{strategy}"
            runs[name, strategy] = job, tiny.prepare(root, job, model=models[WIDE].path, data=rows(128))
    arguments = json.dumps([(str(work.root), free_port()) for _, work in runs.values()])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.tracked_worker", arguments],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
                "MASTER_ADDR": "127.0.0.1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
            },
        )
        for rank in range(2)
    ]
    try:
        for process in ranks:
            process.wait(timeout=600)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return runs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("strategy", LAUNCHES)
@pytest.mark.parametrize("name", METHODS)
def test_together(
    name: str,
    strategy: Strategy,
    together: dict[tuple[str, Strategy], tuple[ResolvedJob, WorkDir]],
    models: dict[int, Folder],
) -> None:
    from tests.train.tracked_worker import peak_of  # noqa: PLC0415

    job, work = together[name, strategy]

    check([peak_of(work, rank) for rank in range(2)], job, models[WIDE].facts)


class TestCounts:
    """Parameters as the planner counts them, and as transformers and PEFT make them."""

    CONFIGS: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "llama": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
        "mistral": ("MistralConfig", {"head_dim": 32}),
        "qwen2": ("Qwen2Config", {}),
        "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}),
        "gemma2": ("Gemma2Config", {"head_dim": 32}),
        "gemma3": ("Gemma3TextConfig", {"head_dim": 32}),
        "phi": ("PhiConfig", {}),
        "phi3": ("Phi3Config", {"pad_token_id": 0}),
        "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        "qwen3_moe": (
            "Qwen3MoeConfig",
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
        ),
        "qwen2_moe": (
            "Qwen2MoeConfig",
            {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
        ),
        "llama4": (
            "Llama4TextConfig",
            {"num_local_experts": 4, "intermediate_size_mlp": 80, "interleave_moe_layer_step": 2, "head_dim": 16},
        ),
        "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    }

    @pytest.mark.parametrize("name", CONFIGS)
    def test_model_and_adapters(self, name: str) -> None:
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        from sftjob.methods import BaseName, count_parameters, fine_tuning  # noqa: PLC0415

        made, changed = self.CONFIGS[name]
        shape = {
            "vocab_size": 96,
            "hidden_size": 64,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        config = getattr(transformers, made)(**({} if name == "gpt2" else shape), **changed)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        facts = model_facts({**config.to_dict(), "architectures": [type(model).__name__]})
        parts = inventory(facts)

        assert parts.guesses == ()
        assert parts.total == count_parameters(model).total
        # PEFT renames the dense layers of this mixture, and such jobs are refused.
        methods = () if name == "qwen3_moe" else (LORA, LORA.model_copy(update={"use_dora": True}))
        for method in methods:
            with torch.device("meta"):
                fresh = transformers.AutoModelForCausalLM.from_config(config)
            adapted = fine_tuning(method).prepare(fresh, base=BaseName(name="x"), added_token_ids=())
            assert trainable(parts, method).total == count_parameters(adapted).trainable


def test_what_is_counted_is_freed() -> None:
    """The measure itself: a tensor counts while it lives, and once, however many views it has."""
    import torch  # noqa: PLC0415

    from tests.train.tracked_worker import TensorBytes  # noqa: PLC0415

    with TensorBytes() as count:
        kept = torch.ones(1000)
        view = kept.view(10, 100)[1:]
        gone = kept + 1
        assert count.now == count.peak == 8000
        del gone
        torch.ones(1)
        assert count.now < 5000
    assert view.shape == (9, 100)
