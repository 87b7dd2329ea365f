"""Tiny random models of the architectures that people train: each method trains them, or says why it does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError, SpecError
from sftjob.methods import BaseName, FineTuning, Model, export, fine_tuning, load_base, load_tuned
from sftjob.plan import ModelFacts, model_facts
from sftjob.resolve.fits import check_combination
from sftjob.resolve.notes import notes_on
from sftjob.resolved import ResolvedMethod
from sftjob.spec import Export
from sftjob.train import merge
from tests.train import tiny
from tests.train.tiny import FULL, IM_END, IM_START, LORA, QLORA, SEED, VOCAB, Run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "vocab_size": tiny.BASE_VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama3": lambda: LlamaConfig(**SMALL, intermediate_size=96, rope_parameters=LLAMA3_ROPE),
    "mistral": lambda: MistralConfig(**SMALL, intermediate_size=96, head_dim=16, sliding_window=16),
    "qwen3": lambda: Qwen3Config(**SMALL, intermediate_size=96, head_dim=16, tie_word_embeddings=True),
    "gemma3": lambda: Gemma3TextConfig(
        **SMALL, intermediate_size=96, head_dim=16, sliding_window=16, query_pre_attn_scalar=16
    ),
    "phi": lambda: PhiConfig(**SMALL | {"num_key_value_heads": 4}, intermediate_size=96),
    "phi3": lambda: Phi3Config(**SMALL, intermediate_size=96),
    "mixtral": lambda: MixtralConfig(**SMALL, intermediate_size=48, num_local_experts=4, num_experts_per_tok=2),
    "llama4": lambda: Llama4TextConfig(
        **SMALL,
        intermediate_size=48,
        intermediate_size_mlp=96,
        head_dim=16,
        num_local_experts=4,
        attention_chunk_size=32,
    ),
    "qwen3-moe": lambda: Qwen3MoeConfig(
        **SMALL, intermediate_size=48, moe_intermediate_size=48, head_dim=16, num_experts=4, num_experts_per_tok=2
    ),
}
MIXTURES = ("mixtral", "llama4", "qwen3-moe")
ALL_LINEAR = LORA.model_copy(update={"lora_dropout": 0.0})
EXPERTS = ALL_LINEAR.model_copy(update={"target_modules": ("q_proj", "experts.gate_up_proj", "experts.down_proj")})
TRIED: list[tuple[str, ResolvedMethod]] = [
    *((name, method) for name in CONFIGS for method in (FULL, ALL_LINEAR)),
    *((name, QLORA) for name in CONFIGS if name not in MIXTURES),
    *((name, EXPERTS) for name in MIXTURES),
]
IDS = torch.tensor([[IM_START, 11, 12, IM_END, 13]])
Models = Callable[[str], Path]


def label(method: ResolvedMethod) -> str:
    return "experts" if method is EXPERTS else method.type


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("architectures") / name
            write(CONFIGS[name](), made[name])
        return made[name]

    return get


def write(config: PreTrainedConfig, folder: Path) -> Path:
    torch.manual_seed(SEED)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def facts_of(folder: Path) -> ModelFacts:
    return model_facts(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize(("name", "method"), TRIED, ids=[f"{name}-{label(method)}" for name, method in TRIED])
def test_trains_and_reloads(name: str, method: ResolvedMethod, models: Models, tiny_data: Path, tmp_path: Path) -> None:
    run, trained = train(models(name), method, tiny_data, tmp_path)
    losses = [line.loss for line in run.metrics if line.kind == "train"]
    assert losses[-1] < losses[0]
    made = fine_tuning(method)
    reloaded = load_tuned(
        models(name),
        run.work.export,
        vocab_size=VOCAB,
        dtype=torch.float32,
        seed=SEED,
        quantization=made.quantization("fp32"),
    )
    with torch.no_grad():
        assert torch.equal(reloaded(input_ids=IDS).logits, trained)
    if method is not FULL:
        assert merge.main(["--work", str(run.work.root)]) == ExitCode.DONE, (run.work.root / "merge.error").read_text()


@pytest.mark.parametrize("name", MIXTURES)
class TestMixtures:
    def test_four_bits_are_refused_before_anything_is_loaded(self, name: str, models: Models) -> None:
        with pytest.raises(SpecError, match=r"^method\.type: \w+ForCausalLM holds its 4 experts in 3-D parameters"):
            check(facts_of(models(name)), QLORA)

    def test_all_linear_leaves_experts_and_routers_alone_and_says_so(self, name: str, models: Models) -> None:
        adapted = adapted_parts(models(name), ALL_LINEAR)
        assert adapted >= {"q_proj", "k_proj", "v_proj", "o_proj"}
        assert not adapted & {"gate", "router", "experts", "gate_up_proj"}
        job = tiny.job(ALL_LINEAR).model_copy(update={"facts": facts_of(models(name))})
        (note,) = notes_on(job)
        assert note.startswith("the 4 experts of each layer stay as they are")
        assert not list(notes_on(job.model_copy(update={"method": EXPERTS})))
        assert not list(notes_on(job.model_copy(update={"method": FULL})))

    def test_experts_are_adapted_by_name(self, name: str, models: Models) -> None:
        assert adapted_parts(models(name), EXPERTS) == {"q_proj", "gate_up_proj", "down_proj"}

    def test_sums_of_experts_are_taken_in_float32(self, name: str, models: Models) -> None:
        base = load_base(models(name), vocab_size=VOCAB, dtype=torch.bfloat16, seed=SEED)
        method = fine_tuning(EXPERTS)
        model = method.prepare(base, base=BaseName(name="tiny"), added_token_ids=())
        wrapper = next(module for module in model.modules() if isinstance(module, ParamWrapper))
        parameter, before = wrapper.get_param(), wrapper.get_param().detach().clone()
        with torch.no_grad():
            wrapper.lora_B["default"].weight.normal_()
            parameter.data = before.float()
            expected = (before.float() + wrapper.get_delta_weight("default")).bfloat16()
            parameter.data = before
            method.merge(model)
        assert torch.equal(parameter, expected)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lora_dropout": 0.1}, r"^method\.lora_dropout: .*experts.gate_up_proj .*know no dropout"),
            ({"use_dora": True}, r"^method\.use_dora: .*experts.gate_up_proj .*know no DoRA"),
        ],
    )
    def test_what_adapters_of_experts_do_not_know(
        self, name: str, options: dict[str, object], message: str, models: Models
    ) -> None:
        method = EXPERTS.model_copy(update=options)
        with pytest.raises(SpecError, match=message):
            check(facts_of(models(name)), method)
        with pytest.raises(ConfigurationError, match=message):
            adapted_parts(models(name), method.model_copy(update={"target_modules": ("gate_up_proj",)}))


def test_what_peft_would_adapt_otherwise_is_refused(tmp_path: Path) -> None:
    """Where some layers have no experts, PEFT takes the names of their linear layers for those of the experts."""
    sizes = {"moe_intermediate_size": 48, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2}
    config = Qwen3MoeConfig(**SMALL, intermediate_size=48, mlp_only_layers=[0], **sizes)
    folder = write(config, tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"^method\.target_modules: PEFT adapts \d+ layers .* were asked for"):
        adapted_parts(folder, ALL_LINEAR)
    attention = ALL_LINEAR.model_copy(update={"target_modules": ("q_proj", "v_proj")})
    assert adapted_parts(folder, attention) == {"q_proj", "v_proj"}


def train(model: Path, method: ResolvedMethod, data: Path, tmp_path: Path) -> tuple[Run, torch.Tensor]:
    """Six steps through the real worker; also the logits of the model that it held when it had exported."""
    rate = 1e-3 if method is FULL else 1e-2
    job = tiny.job(method, num_train_epochs=1.0, eval_steps=100, learning_rate=rate, save_steps=100)
    job = job.model_copy(update={"facts": facts_of(model)})
    held: list[torch.Tensor] = []

    def exported(method: FineTuning, model: Model, folder: Path, **options: Any) -> None:
        export(method, model, folder, **options)
        with torch.no_grad():
            held.append(model.eval()(input_ids=IDS).logits)

    with patch("sftjob.train.rank.export", exported):
        run = tiny.run_here(tiny.prepare(tmp_path / "work", job, model=model, data=data))
    assert run.result.exit_code == ExitCode.DONE, run.result.reason
    return run, held[0]


def adapted_parts(folder: Path, method: ResolvedMethod) -> set[str]:
    """Last parts of the names of the layers and parameters that get adapters."""
    base = load_base(folder, vocab_size=VOCAB, dtype=torch.float32, seed=SEED)
    prepared = fine_tuning(method).prepare(base, base=BaseName(name="tiny"), added_token_ids=(IM_START, IM_END))
    return {
        module.parameter_name if isinstance(module, ParamWrapper) else name.rpartition(".")[2]
        for name, module in prepared.named_modules()
        if isinstance(module, LoraLayer)
    }


def check(facts: ModelFacts, method: ResolvedMethod) -> None:
    job = tiny.job(method)
    check_combination(facts, method, job.training, job.launch, Export())
