from typing import Any

import pytest

from sftjob.plan.inventory import inventory
from sftjob.plan.trainable import trainable
from sftjob.resolved import ResolvedLora
from tests.unit.plan.shapes import (
    FULL,
    LLAMA_1B,
    LLAMA_8B,
    LLAMA_70B,
    LORA,
    MISTRAL,
    MIXTRAL,
    QLORA,
    QWEN_7B,
    facts_of,
)

TOTALS = [
    (LLAMA_8B, 8_030_261_248),
    (LLAMA_70B, 70_553_706_496),
    (QWEN_7B, 7_615_616_512),
    (MIXTRAL, 46_702_792_704),
    (MISTRAL, 7_241_732_096),
    (LLAMA_1B, 1_235_814_400),
]


def lora(**changed: Any) -> ResolvedLora:
    return ResolvedLora.model_validate(LORA.model_dump() | changed)


@pytest.mark.parametrize(("config", "total"), TOTALS)
def test_published_totals(config: dict[str, Any], total: int) -> None:
    parts = inventory(facts_of(config))

    assert parts.total == total
    assert parts.guesses == ()
    assert trainable(parts, FULL).total == total


def test_a_token_passes_some_experts_only() -> None:
    parts = inventory(facts_of(MIXTRAL))

    # 12.9 of 46.7 billion, embedding and head included: https://mistral.ai/news/mixtral-of-experts
    assert round((parts.active + 2 * parts.embedding) / 1e9, 1) == 12.9


def test_rows_for_more_tokens() -> None:
    assert inventory(facts_of(LLAMA_8B), vocab_size=128_258).total == 8_030_261_248 + 2 * 2 * 4096
    assert inventory(facts_of(LLAMA_8B), vocab_size=7).total == 8_030_261_248


class TestUnknown:
    def test_is_taken_for_a_llama_and_says_so(self) -> None:
        parts = inventory(facts_of(LLAMA_8B | {"model_type": "novel"}))

        assert parts.total == 8_030_261_248
        assert parts.guesses == ("novel is not known: layers like Llama's are taken",)

    def test_missing_numbers_are_guessed(self) -> None:
        config = {
            key: value for key, value in LLAMA_8B.items() if not key.startswith("num_att") and "intermediate" not in key
        }
        parts = inventory(facts_of(config))

        assert 6e9 < parts.total < 12e9
        assert "intermediate_size" in parts.guesses[0]

    def test_a_vision_tower_is_counted_roughly(self) -> None:
        vision = {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": LLAMA_8B}
        parts = inventory(facts_of(config | {"vision_config": vision}))

        assert 0.38e9 < parts.other < 0.45e9  # SigLIP: 0.4 billion
        assert "vision" in parts.guesses[-1]


class TestTrainable:
    def test_all_linear(self) -> None:
        # What PEFT prints for rank 16 on every linear layer of Llama 3.1 8B.
        assert trainable(inventory(facts_of(LLAMA_8B)), LORA).total == 41_943_040
        assert trainable(inventory(facts_of(LLAMA_8B)), QLORA).total == 41_943_040

    def test_names(self) -> None:
        method = lora(target_modules=["q_proj", "self_attn.v_proj"], r=8)

        assert trainable(inventory(facts_of(LLAMA_8B)), method).adapters == 8 * 32 * (8192 + 4096 + 1024)

    def test_dora_has_a_magnitude_for_each_output(self) -> None:
        more = trainable(inventory(facts_of(LLAMA_8B)), lora(use_dora=True)).total - 41_943_040

        assert more == 32 * (4096 + 1024 + 1024 + 4096 + 14_336 + 14_336 + 4096)

    @pytest.mark.parametrize(
        ("config", "saved", "size"),
        [
            (LLAMA_8B, ["lm_head"], 128_256 * 4096),
            (LLAMA_8B, ["embed_tokens", "lm_head"], 2 * 128_256 * 4096),
            (LLAMA_1B, ["lm_head"], 128_256 * 2048),
            (LLAMA_1B, ["embed_tokens", "lm_head"], 128_256 * 2048),
            (LLAMA_8B, ["input_layernorm"], 32 * 4096),
            (LLAMA_8B, ["model.norm"], 4096),
        ],
    )
    def test_modules_to_save(self, config: dict[str, Any], saved: list[str], size: int) -> None:
        assert trainable(inventory(facts_of(config)), lora(modules_to_save=saved)).saved == size

    def test_what_is_saved_has_no_adapter(self) -> None:
        counted = trainable(inventory(facts_of(LLAMA_8B)), lora(modules_to_save=["k_proj"]))

        assert counted.saved == 32 * 4096 * 1024
        assert counted.adapters == 41_943_040 - 16 * 32 * (4096 + 1024)

    @pytest.mark.parametrize(
        ("config", "saved", "tables"),
        [(LLAMA_8B, [], 2), (LLAMA_1B, [], 1), (LLAMA_8B, ["lm_head"], 1), (LLAMA_1B, ["embed_tokens"], 0)],
    )
    def test_rows_of_added_tokens(self, config: dict[str, Any], saved: list[str], tables: int) -> None:
        parts = inventory(facts_of(config))

        assert trainable(parts, lora(modules_to_save=saved), added_tokens=3).rows == 3 * tables * parts.hidden_size

    def test_experts(self) -> None:
        parts = inventory(facts_of(MIXTRAL))

        assert trainable(parts, LORA).total == 16 * 32 * 2 * (4096 + 4096 + 4096 + 1024)
        named = lora(target_modules=["experts.gate_up_proj", "experts.down_proj"])
        assert trainable(parts, named).total == 16 * 32 * 8 * (4096 + 2 * 14_336 + 14_336 + 4096)
