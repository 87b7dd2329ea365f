from typing import Any

import pytest

from sftjob.plan.estimate import estimate
from sftjob.plan.knobs import knobs
from sftjob.plan.tensors import ZERO_DEFAULTS
from sftjob.resolve.deepspeed import deepspeed_config
from sftjob.resolved import ResolvedMethod
from tests.unit.plan.shapes import (
    FULL,
    GIB,
    LLAMA_8B,
    LLAMA_70B,
    LORA,
    METHODS,
    MIXTRAL,
    QLORA,
    QWEN_7B,
    facts_of,
    launch,
    training,
)

MODELS = {"8B": LLAMA_8B, "70B": LLAMA_70B, "Qwen": QWEN_7B, "Mixtral": MIXTRAL}
EIGHT = facts_of(LLAMA_8B)
EACH_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
EACH_MODEL = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def components(method: ResolvedMethod, processes: int = 1, strategy: str = "", **changed: Any) -> dict[str, float]:
    """GiB of all moments together, by component."""
    chosen = launch(processes, **({"strategy": strategy} if strategy else {}))
    moments = estimate(EIGHT, method, training(**changed), chosen).moments
    return {name: size / GIB for moment in moments.values() for name, size in moment.items()}


class TestComponents:
    def test_full_keeps_float32_weights_gradients_and_two_moments(self) -> None:
        found = components(FULL)

        billions = 8_030_261_248 / GIB
        assert found["weights"] == pytest.approx(4 * billions)
        assert found["gradients"] == pytest.approx(4 * billions)
        assert found["optimizer states"] == pytest.approx(8 * billions)

    def test_lora_keeps_a_bf16_base(self) -> None:
        found = components(LORA)

        assert found["weights"] == pytest.approx(2 * 8_030_261_248 / GIB)
        assert found["adapters"] == pytest.approx(4 * 41_943_040 / GIB)
        assert found["optimizer states"] == pytest.approx(8 * 41_943_040 / GIB)

    def test_four_bits_and_their_scales(self) -> None:
        found = components(QLORA)

        linear = 6_979_321_856
        assert found["weights in 4 bits"] == pytest.approx(linear / 2 / GIB)
        # QLoRA, section 3: double quantisation takes 0.127 bits a weight, single 0.5.
        assert found["scales of 4 bits"] * GIB * 8 / linear == pytest.approx(0.127, abs=1e-3)
        assert found["weights"] == pytest.approx(2 * (8_030_261_248 - linear) / GIB)
        single = QLORA.model_copy(update={"bnb_4bit_use_double_quant": False})
        assert components(single)["scales of 4 bits"] * GIB * 8 / linear == pytest.approx(0.5)

    def test_ddp_adds_buckets_of_the_gradients(self) -> None:
        assert components(FULL, 2)["gradient buckets"] == components(FULL, 2)["gradients"]
        assert "gradient buckets" not in components(FULL)

    def test_zero_shares_out_stage_by_stage(self) -> None:
        one, two, three = (components(FULL, 8, strategy) for strategy in ("zero1", "zero2", "zero3"))

        whole = 8_030_261_248 / GIB
        assert one["weights"] == two["weights"] == pytest.approx(2 * whole)
        assert three["weights"] == pytest.approx(2 * whole / 8)
        assert one["gradients"] == pytest.approx(2 * whole)
        assert two["gradients"] == pytest.approx(2 * whole / 8)
        for found in (one, two, three):
            assert found["float32 copies of weights"] == pytest.approx(4 * whole / 8)
            assert found["optimizer states"] == pytest.approx(8 * whole / 8)

    def test_optimizers(self) -> None:
        # Two bytes a weight and scales, but eight for each of the embedding's.
        assert components(FULL, optim="adamw_8bit")["optimizer states"] == pytest.approx(18.1, abs=0.1)
        head = LORA.model_copy(update={"modules_to_save": ("lm_head",)})
        embedding = LORA.model_copy(update={"modules_to_save": ("embed_tokens",)})
        more = [components(method, optim="adamw_8bit")["optimizer states"] for method in (head, embedding)]
        assert more[1] - more[0] == pytest.approx(128_256 * 4096 * (8 - 2 - 8 / 256) / GIB)
        paged = estimate(EIGHT, FULL, training(optim="paged_adamw_8bit"), launch())
        assert "optimizer states" not in paged.components
        assert paged.host["optimizer states"] / GIB == pytest.approx(18.1, abs=0.1)

    def test_offload_moves_states_to_the_node(self) -> None:
        moved = estimate(EIGHT, FULL, training(), launch(8, strategy="zero2", offload_optimizer=True))

        assert "optimizer states" not in moved.components
        assert moved.host["optimizer states"] == 8 * 8_030_261_248 // 8

    @pytest.mark.parametrize(("strategy", "bytes_each"), [("zero2", 20), ("zero3", 18)])
    def test_offload_moves_gradients_as_well(self, strategy: str, bytes_each: int) -> None:
        asked = training(gradient_accumulation_steps=4)
        moved = estimate(EIGHT, FULL, asked, launch(8, strategy=strategy, offload_optimizer=True))

        for moment in moved.moments.values():
            assert not {"gradients", "float32 gradients", "float32 copies of weights"} & moment.keys()
        # States, float32 weights and gradients, bf16 gradients; ZeRO-2 has a buffer of bf16 weights besides.
        assert sum(moved.host.values()) == pytest.approx(bytes_each * 8_030_261_248 / 8)

    def test_autocast_keeps_its_copies_until_the_forward_pass_ends(self) -> None:
        asked = training(gradient_checkpointing=True, gradient_accumulation_steps=2, max_length=128)
        needs = estimate(EIGHT, FULL, asked, launch())

        # float32 weights, gradients and two moments, and bf16 copies of all that is multiplied.
        assert needs.moment == "end of forward"
        multiplied = 8_030_261_248 - 128_256 * 4096
        assert needs.tensors == pytest.approx(16 * 8_030_261_248 + 2 * multiplied, rel=0.01)

    def test_old_gpus_keep_probabilities(self) -> None:
        """SDPA has no fused kernel for bf16 on them, and writes attention out in float32."""
        asked = training(max_length=2048)
        kept = {
            gpu: estimate(EIGHT, QLORA, asked, launch(gpu=gpu)).moments["loss"]["activations"]
            for gpu in ("Tesla-T4", "NVIDIA-L4")
        }
        # Measured with the math kernel on a CPU for a layer of this shape: 128 bytes a pair, 28,544 more a token.
        assert kept["Tesla-T4"] - kept["NVIDIA-L4"] == 32 * (128 * 2048**2 + 28_544 * 2048)

        recomputed, precise = asked.model_copy(update={"gradient_checkpointing": True}), {"precision": "fp32"}
        one = estimate(EIGHT, QLORA, recomputed, launch(gpu="Tesla-T4")).moments["backward"]["activations"]
        fused = estimate(EIGHT, QLORA, recomputed, launch(gpu="NVIDIA-L4")).moments["backward"]["activations"]
        assert one - fused == 3 * 128 * 2048**2 + 28_544 * 2048
        in_float32 = [estimate(EIGHT, LORA, asked.model_copy(update=precise), launch(gpu=gpu)).tensors for gpu in kept]
        assert in_float32[0] == in_float32[1]

    def test_a_layer_of_lora_keeps_what_was_counted(self) -> None:
        """217,448 and 241,800 bytes a token: tensors saved by a layer of this shape, LoRA and full, bf16 on a CPU."""
        for method, measured in ((LORA, 217_448), (FULL, 241_800)):
            two, one = (
                estimate(facts_of(LLAMA_8B | {"num_hidden_layers": count}), method, training(), launch())
                for count in (2, 1)
            )
            kept = two.moments["loss"]["activations"] - one.moments["loss"]["activations"]
            assert kept / 1024 == pytest.approx(measured, abs=16)

    def test_a_mask_where_rows_differ(self) -> None:
        alone, packed = (
            estimate(EIGHT, LORA, training(max_length=4096, packing=packing), launch()).moments["loss"]["activations"]
            for packing in (False, True)
        )
        # In each of 32 layers a mask of bf16, and keys and values of 32 heads instead of 8.
        assert packed - alone == 32 * (2 * 4096**2 + 2 * 2 * 24 * 128 * 4096)

    def test_a_cpu_has_no_overhead(self) -> None:
        on_cpu = estimate(EIGHT, LORA, training(precision="fp32"), launch(device="cpu"))

        assert on_cpu.needed == on_cpu.tensors
        on_gpu = estimate(EIGHT, LORA, training(), launch(2))
        assert set(on_gpu.overhead) == {"CUDA context", "communication", "fragmentation"}
        assert on_gpu.needed == on_gpu.tensors + sum(on_gpu.overhead.values())

    def test_zero_defaults_are_those_that_deepspeed_gets(self) -> None:
        zero = deepspeed_config(training(), launch(2, strategy="zero3"), {})

        assert zero is not None
        assert {key: zero["zero_optimization"][key] for key in ZERO_DEFAULTS} == ZERO_DEFAULTS

    def test_what_deepspeed_is_told_counts(self) -> None:
        told = launch(2, strategy="zero2", deepspeed={"zero_optimization": {"reduce_bucket_size": 5}})

        assert estimate(EIGHT, FULL, training(), told).moments["loss"]["reduction buckets"] == 2 * 2 * 5


class TestMonotone:
    @EACH_METHOD
    @EACH_MODEL
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_more_tokens_never_need_less(
        self, config: dict[str, Any], method: ResolvedMethod, checkpointing: bool
    ) -> None:
        facts = facts_of(config)
        for name, values in {"max_length": (256, 512, 4096), "per_device_train_batch_size": (1, 2, 3, 8)}.items():
            needs = [
                estimate(
                    facts, method, training(gradient_checkpointing=checkpointing, **{name: value}), launch()
                ).needed
                for value in values
            ]
            assert needs == sorted(needs)

    @EACH_METHOD
    @EACH_MODEL
    @pytest.mark.parametrize("processes", [2, 8, 64])
    def test_a_higher_stage_never_needs_more(
        self, config: dict[str, Any], method: ResolvedMethod, processes: int
    ) -> None:
        facts = facts_of(config)
        needs = [
            estimate(facts, method, training(), launch(processes, strategy=f"zero{stage}")).needed
            for stage in (1, 2, 3)
        ]

        assert needs == sorted(needs, reverse=True)

    @EACH_MODEL
    def test_each_method_needs_less_than_the_one_before(self, config: dict[str, Any]) -> None:
        full, lora, qlora = (estimate(facts_of(config), METHODS[name], training(), launch()).needed for name in METHODS)

        assert full > lora > qlora

    @EACH_METHOD
    @EACH_MODEL
    def test_checkpointing_never_needs_more(self, config: dict[str, Any], method: ResolvedMethod) -> None:
        facts, length = facts_of(config), 4096
        kept, recomputed = (
            estimate(facts, method, training(max_length=length, gradient_checkpointing=on), launch()).needed
            for on in (False, True)
        )
        assert recomputed <= kept


class TestPublished:
    """Within the limits that guides give: docs/planning.md compares them."""

    @pytest.mark.parametrize(("method", "low", "high"), [(LORA, 16, 20), (QLORA, 6, 9)], ids=["lora", "qlora"])
    def test_8b_with_short_rows(self, method: ResolvedMethod, low: float, high: float) -> None:
        needs = estimate(EIGHT, method, training(max_length=512, gradient_checkpointing=True), launch())

        assert low < needs.needed / GIB < high

    def test_thirteen_billion_offloaded_on_32_gb(self) -> None:
        """ZeRO-Offload trains "over 13 billion parameters on a single GPU": https://arxiv.org/abs/2101.06840."""
        config = LLAMA_8B | {
            "vocab_size": 32_000,
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
            "intermediate_size": 13_824,
        }
        alone = launch(strategy="zero2", offload_optimizer=True)
        needs = estimate(facts_of(config), FULL, training(gradient_checkpointing=True), alone)

        assert needs.parameters == 13_015_864_320
        assert 26e9 < needs.needed < 31.7 * GIB


class TestKnobs:
    @EACH_METHOD
    @pytest.mark.parametrize("processes", [1, 8])
    def test_gains_are_differences_of_estimates(self, method: ResolvedMethod, processes: int) -> None:
        asked, where = training(per_device_train_batch_size=4, max_length=2048), launch(processes)
        now = estimate(EIGHT, method, asked, where).needed
        found = {knob.field: knob for knob in knobs(EIGHT, method, asked, where)}

        smaller = asked.model_copy(update={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2})
        recomputed = asked.model_copy(update={"gradient_checkpointing": True})
        shorter = asked.model_copy(update={"max_length": 1024})
        expected = {
            "training.per_device_train_batch_size": estimate(EIGHT, method, smaller, where),
            "training.gradient_checkpointing": estimate(EIGHT, method, recomputed, where),
            "training.max_length": estimate(EIGHT, method, shorter, where),
        }
        if processes > 1:
            shared = where.model_copy(update={"strategy": found["launch.strategy"].value})
            expected["launch.strategy"] = estimate(EIGHT, method, asked, shared)
        if method.type == "lora":
            expected["method.type"] = estimate(EIGHT, QLORA, asked, where)
        for field, turned in expected.items():
            assert found[field].gain == now - turned.needed > 0, field

    def test_what_is_to_be_offloaded_names_its_strategy(self) -> None:
        """`launch.strategy: auto` refuses offloading by hand."""
        found = {knob.field: knob for knob in knobs(EIGHT, FULL, training(), launch(8, strategy="zero3"))}

        assert found["launch.offload_optimizer"].cost.startswith("zero3, ")
        assert "launch.offload_param" in found

    def test_four_bits_are_not_moved(self) -> None:
        fields = [knob.field for knob in knobs(EIGHT, QLORA, training(), launch(8, strategy="zero3"))]

        assert "launch.offload_param" not in fields

    def test_what_gives_nothing_is_left_out(self) -> None:
        asked = training(gradient_checkpointing=True, optim="adamw_8bit")
        fields = [knob.field for knob in knobs(facts_of(MIXTRAL), LORA, asked, launch())]

        assert fields == ["training.max_length"]
