"""Combinations that cannot work are refused with field, reason and repair; their neighbours are not."""

import json
from typing import Any

import pytest

from sftjob.errors import SpecError
from sftjob.plan import ModelFacts
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec

DENSE = ModelFacts(
    architecture="LlamaForCausalLM",
    model_type="llama",
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=6,
    max_position_embeddings=2048,
)
MIXTURE = DENSE.model_copy(update={"architecture": "MixtralForCausalLM", "model_type": "mixtral", "num_experts": 8})


def make_job(facts: ModelFacts = DENSE, **blocks: Any) -> ResolvedJob:
    smallest = {
        "name": "job",
        "model": {"hub": "owner/name", "revision": "0" * 40},
        "data": {"train": [{"uri": "s3://bucket/train.jsonl"}]},
        "method": {"type": "lora"},
        "launch": {"gpus_per_node": 2},
    }
    return resolve(JobSpec.model_validate_json(json.dumps({**smallest, **blocks})), facts)


def refusal(facts: ModelFacts = DENSE, **blocks: Any) -> str:
    with pytest.raises(SpecError) as caught:
        make_job(facts, **blocks)
    return str(caught.value)


def zero3(**more: Any) -> dict[str, Any]:
    return {"gpus_per_node": 2, "strategy": "zero3", **more}


def test_quantised_weights_under_zero3_have_the_type_of_the_others() -> None:
    qlora = {"type": "qlora", "bnb_4bit_quant_storage": "uint8"}
    assert refusal(method=qlora, launch=zero3()) == (
        "method.bnb_4bit_quant_storage: ZeRO-3 shares out tensors of one type; uint8 is not that of the other weights, "
        "bf16; write bf16, or leave it out"
    )
    assert make_job(method=qlora, launch={"gpus_per_node": 2, "strategy": "zero2"})
    for precision in ("bf16", "fp32"):
        job = make_job(method={"type": "qlora"}, launch=zero3(), training={"precision": precision})
        assert job.method.type == "qlora"
        assert job.method.bnb_4bit_quant_storage == precision


@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_other_optimizers_need_a_gpu_and_whole_states(optim: str) -> None:
    training = {"optim": optim}
    assert make_job(training=training).training.optim == optim
    assert refusal(training=training, launch={"gpus_per_node": 0}) == (
        f"training.optim: {optim} is made for GPUs, this job trains on a CPU; write adamw_torch_fused, or leave it out"
    )
    for stage in (1, 2, 3):
        launch = {"gpus_per_node": 2, "strategy": f"zero{stage}"}
        assert f"zero{stage} shares out states of 32 bits" in refusal(training=training, launch=launch)


@pytest.mark.parametrize("name", ["offload_optimizer", "offload_param"])
def test_there_is_nothing_to_offload_without_a_gpu(name: str) -> None:
    assert make_job(launch=zero3(**{name: True}))
    assert refusal(launch={"gpus_per_node": 0, "processes_per_node": 2, "strategy": "zero3", name: True}) == (
        f"launch.{name}: without a GPU everything is in the node's memory already; leave it out"
    )


def test_dora_measures_weights_that_zero3_has_shared_out_in_four_bits() -> None:
    dora = {"type": "qlora", "use_dora": True}
    assert refusal(method=dora, launch=zero3()).startswith("method.use_dora: DoRA measures whole weights")
    assert make_job(method=dora, launch={"gpus_per_node": 2, "strategy": "zero2"})
    assert make_job(method={"type": "lora", "use_dora": True}, launch=zero3())


def test_four_bits_miss_experts() -> None:
    assert "method.type: MixtralForCausalLM holds its 8 experts in 3-D parameters" in refusal(
        MIXTURE, method={"type": "qlora"}
    )
    assert make_job(MIXTURE)


def test_what_cannot_work_is_told_before_what_does_not_fit() -> None:
    large = MIXTURE.model_copy(update={"hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672})
    launch = {"gpus_per_node": 1, "gpu": "NVIDIA-L4"}
    assert "launch.gpu" in refusal(large, launch=launch)
    assert refusal(large, method={"type": "qlora"}, launch=launch).startswith("method.type: ")


def test_the_user_s_buffers_count() -> None:
    keys = {"zero_optimization": {"reduce_bucket_size": 40_000_000_000}}
    launch = zero3(gpu="NVIDIA-H100-80GB-HBM3")
    assert make_job(launch=launch)
    assert "launch.gpu" in refusal(launch={**launch, "deepspeed": keys})


def test_a_whole_model_has_nothing_to_merge() -> None:
    assert make_job(export={"merge": True})
    assert refusal(method={"type": "full"}, export={"merge": True}) == (
        "export.merge: full exports a whole model; there is no adapter to merge; leave it out"
    )


def test_all_are_told_at_once() -> None:
    blocks = {
        "method": {"type": "full"},
        "export": {"merge": True},
        "training": {"optim": "adamw_8bit"},
        "launch": {"gpus_per_node": 0},
    }
    assert len(refusal(**blocks).splitlines()) == 2
