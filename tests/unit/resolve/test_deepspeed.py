"""The DeepSpeed configuration: complete, from the spec alone, extended key by key, and never against the spec."""

import json
from typing import Any

import pytest

from sftjob.errors import SpecError
from sftjob.plan import ModelFacts
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec

FACTS = ModelFacts(
    architecture="LlamaForCausalLM",
    model_type="llama",
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=6,
    max_position_embeddings=2048,
)


def make_job(strategy: str, *, gpus: int = 2, training: dict[str, Any] | None = None, **launch: Any) -> ResolvedJob:
    spec = {
        "name": "job",
        "model": {"hub": "owner/name", "revision": "0" * 40},
        "data": {"train": [{"uri": "s3://bucket/train.jsonl"}]},
        "method": {"type": "full"},
        "training": training or {},
        "launch": {"gpus_per_node": gpus, "strategy": strategy, **launch},
    }
    return resolve(JobSpec.model_validate_json(json.dumps(spec)), FACTS)


def config(strategy: str, **options: Any) -> dict[str, Any]:
    made = make_job(strategy, **options).launch.deepspeed
    assert made is not None
    return made


def test_there_is_none_without_zero() -> None:
    assert make_job("ddp").launch.deepspeed is None


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_stage_is_the_strategys(stage: int) -> None:
    assert config(f"zero{stage}")["zero_optimization"]["stage"] == stage
    assert make_job(f"zero{stage}").launch.zero_stage == stage


def test_batch_precision_and_clipping_are_the_trainings() -> None:
    training = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 5,
        "max_grad_norm": 0.3,
        "precision": "fp32",
    }
    made = config("zero2", training=training)
    assert (made["train_micro_batch_size_per_gpu"], made["gradient_accumulation_steps"]) == (3, 5)
    assert made["train_batch_size"] == 3 * 5 * 2
    assert made["gradient_clipping"] == 0.3
    assert made["bf16"] == {"enabled": False}
    assert config("zero2")["bf16"] == {"enabled": True}


def test_an_export_under_zero3_has_weights() -> None:
    assert config("zero3")["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_offloading() -> None:
    zero = config("zero3", offload_optimizer=True, offload_param=True)["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"
    assert not {"offload_optimizer", "offload_param"} & config("zero3")["zero_optimization"].keys()


def test_keys_are_extended_one_by_one() -> None:
    extended = {"zero_optimization": {"overlap_comm": False, "round_robin_gradients": True}, "prescale_gradients": True}
    made, plain = config("zero2", deepspeed=extended), config("zero2")
    assert made == {
        **plain,
        "prescale_gradients": True,
        "zero_optimization": {**plain["zero_optimization"], "overlap_comm": False, "round_robin_gradients": True},
    }
    assert plain["zero_optimization"]["overlap_comm"] is True


@pytest.mark.parametrize(
    ("extended", "key", "instead"),
    [
        ({"train_batch_size": 4}, "train_batch_size", "training.train_batch_size"),
        ({"bf16": {"enabled": False}}, "bf16", "training.precision"),
        ({"fp16": {"enabled": True}}, "fp16", "training.precision"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer", "training.optim"),
        ({"zero_optimization": {"stage": 1}}, "zero_optimization.stage", "launch.strategy"),
        (
            {"zero_optimization": {"offload_param": {"device": "nvme"}}},
            "zero_optimization.offload_param.device",
            "launch.offload_param",
        ),
    ],
)
def test_what_the_spec_says_elsewhere_is_refused(extended: dict[str, Any], key: str, instead: str) -> None:
    with pytest.raises(SpecError) as caught:
        config("zero3", deepspeed=extended)
    assert str(caught.value) == (f"launch.deepspeed.{key}: `{key}` follows from `{instead}`; set {instead} instead")


def test_weights_of_an_export_cannot_be_switched_off() -> None:
    with pytest.raises(SpecError, match="must stay as it is, or exports are empty; leave it out"):
        config("zero3", deepspeed={"zero_optimization": {"stage3_gather_16bit_weights_on_model_save": False}})
