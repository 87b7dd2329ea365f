"""The training ring's cases on GPUs: every method trains, exports, and needs the memory that the planner said."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob.contract import ExitCode
from sftjob.plan import estimate, model_facts
from sftjob.resolved import ResolvedMethod, ResolvedQlora
from sftjob.spec import Strategy
from tests.train import tiny
from tests.train.tiny import FULL, LORA, QLORA

METHODS: dict[str, ResolvedMethod] = {"full": FULL, "lora": LORA, "qlora": QLORA}
LENGTH, ROWS = 1024, 8


def gpus() -> int:
    import torch  # noqa: PLC0415 - seconds that only this ring needs

    return int(torch.cuda.device_count())


pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not gpus():
        pytest.skip("no CUDA GPU is here")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 million random weights: enough that tensors outweigh what a GPU holds beside them."""
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("gpu") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_data(tmp_path_factory.mktemp("gpu") / "data", rows=2, held_out=0)
    ids = [[1 + (row + position) % 60 for position in range(LENGTH - 3 * (row % 2))] for row in range(8 * ROWS)]
    tiny.write_rows(folder / "train.arrow", [{"input_ids": each, "labels": each} for each in ids])
    return folder


@pytest.fixture
def train(tmp_path: Path, model: Path, data: Path) -> Callable[[ResolvedMethod, int, Strategy], None]:
    def run(method: ResolvedMethod, processes: int, strategy: Strategy) -> None:
        if isinstance(method, ResolvedQlora) and strategy == "zero3":
            method = method.model_copy(update={"bnb_4bit_quant_storage": "bf16"})
        job = tiny.job(
            method,
            processes=processes,
            device="cuda",
            strategy=strategy,
            precision="bf16",
            learning_rate=1e-4,
            per_device_train_batch_size=ROWS,
            max_length=LENGTH,
            max_steps=4,
            save_steps=100,
            logging_steps=1,
        )
        facts = model_facts(json.loads((model / "config.json").read_text()))
        job = job.model_copy(update={"facts": facts})
        done = tiny.run_apart(tiny.prepare(tmp_path / "run", job, model=model, data=data), processes=processes)
        assert [result.exit_code for result in done.results] == [ExitCode.DONE] * processes, done.output
        needs = estimate(facts, job.method, job.training, job.launch, added_tokens=2)
        peak = done.metrics[-1].memory_bytes
        assert peak is not None
        assert abs(needs.tensors - peak) <= 0.1 * peak, (needs.moment, dict(needs.components), peak)

    return run


@pytest.mark.parametrize("name", METHODS)
def test_one_gpu(name: str, train: Callable[[ResolvedMethod, int, Strategy], None]) -> None:
    train(METHODS[name], 1, "single")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
def test_two_gpus(name: str, strategy: Strategy, train: Callable[[ResolvedMethod, int, Strategy], None]) -> None:
    if gpus() < 2:
        pytest.skip("one GPU is here, this needs two")
    train(METHODS[name], 2, strategy)
