import itertools
import json
from typing import Any

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import SpecError
from sftjob.plan import estimate, estimate_of, find_gpu
from sftjob.plan.choose import quantity
from sftjob.plan.knobs import knobs
from sftjob.resolve import ResolvedJob, resolve, resolve_with_reasons
from sftjob.spec import JobSpec
from tests.unit.plan.shapes import LLAMA_1B, LLAMA_8B, LLAMA_70B, MIXTRAL, QWEN_7B, facts_of

H100, L4, B200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L4", "NVIDIA-B200"


def written(method: str, resources: dict[str, Any] | None, blocks: dict[str, Any]) -> JobSpec:
    document = {
        "name": "job",
        "model": {"hub": "owner/name", "revision": "0" * 40},
        "data": {"train": [{"uri": "s3://bucket/train.jsonl"}]},
        "method": {"type": method},
        "resources": resources or {},
        **blocks,
    }
    return JobSpec.model_validate_json(json.dumps(document))


def resolved(
    config: dict[str, Any], method: str = "lora", *, resources: dict[str, Any] | None = None, **blocks: Any
) -> ResolvedJob:
    return resolve(written(method, resources, blocks), facts_of(config))


def reasons(
    config: dict[str, Any] = LLAMA_8B, *, resources: dict[str, Any] | None = None, **blocks: Any
) -> tuple[str, ...]:
    return resolve_with_reasons(written("lora", resources, blocks), facts_of(config))[1]


def on(gpu: str | None, gpus: int = 1, **launch: Any) -> dict[str, Any]:
    return {"gpus_per_node": gpus, **({"gpu": gpu} if gpu else {}), **launch}


class TestStrategy:
    @pytest.mark.parametrize(
        ("config", "method", "launch", "strategy"),
        [
            (LLAMA_8B, "lora", on(H100), "single"),
            (LLAMA_8B, "lora", on(H100, 8), "ddp"),
            (LLAMA_8B, "qlora", on(L4, 8), "ddp"),
            (LLAMA_8B, "lora", on("Tesla-T4", 8), "zero3"),
            (LLAMA_1B, "full", on(H100, 8), "ddp"),
            (LLAMA_8B, "full", on(B200, 8), "ddp"),
            (LLAMA_8B, "full", on(H100, 8), "zero1"),
            (LLAMA_70B, "full", on(H100, 8, nodes=4), "zero3"),
        ],
    )
    def test_shares_out_as_little_as_it_can(
        self, config: dict[str, Any], method: str, launch: dict[str, Any], strategy: str
    ) -> None:
        assert resolved(config, method, launch=launch).launch.strategy == strategy

    @pytest.mark.parametrize(
        ("config", "method", "gpu", "length"),
        list(
            itertools.product(
                (LLAMA_1B, QWEN_7B, LLAMA_8B, MIXTRAL), ("full", "lora", "qlora"), (L4, H100, B200), (512, 4096)
            )
        ),
    )
    def test_never_shares_out_what_fits_on_one(
        self, config: dict[str, Any], method: str, gpu: str, length: int
    ) -> None:
        if config is MIXTRAL and method == "qlora":
            return
        job = resolved(
            config,
            method,
            launch=on(gpu, 8),
            training={"max_length": length},
            resources={"require_fit": False, "memory": "2Ti"},
        )
        least = job.training.model_copy(
            update={
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 8,
                "gradient_checkpointing": True,
            }
        )
        alone = job.launch.model_copy(
            update={"strategy": "ddp", "deepspeed": None, "offload_optimizer": False, "offload_param": False}
        )
        known = find_gpu(gpu)
        assert known is not None
        fits = estimate(job.facts, job.method, least, alone).needed <= known.memory
        assert (job.launch.strategy == "ddp") is fits

    def test_offloads_only_where_nothing_else_fits(self) -> None:
        roomy = {"memory": "1Ti"}

        job = resolved(LLAMA_8B, "full", launch=on(H100), resources=roomy)
        assert (job.launch.strategy, job.launch.offload_optimizer) == ("zero2", True)
        assert job.launch.deepspeed is not None
        assert not resolved(LLAMA_8B, "full", launch=on(H100, 8), resources=roomy).launch.offload_optimizer

    def test_does_not_offload_into_memory_that_is_not_there(self) -> None:
        with pytest.raises(SpecError):
            resolved(LLAMA_8B, "full", launch=on(H100), resources={"memory": "64Gi"})

    @pytest.mark.parametrize("gpu", [L4, B200])
    def test_a_paged_optimizer_is_not_questioned(self, gpu: str) -> None:
        """Its states go to the node's memory as a person asked, however small that is."""
        asked = {"training": {"optim": "paged_adamw_8bit"}, "resources": {"memory": "8Gi"}}

        if gpu == B200:
            assert resolved(LLAMA_8B, "full", launch=on(gpu), **asked).launch.strategy == "single"
            return
        with pytest.raises(SpecError, match="are needed, L4 has"):
            resolved(LLAMA_8B, "full", launch=on(gpu), **asked)

    def test_what_is_written_stays(self) -> None:
        job = resolved(LLAMA_1B, launch=on(H100, 8, strategy="zero3"), training={"gradient_checkpointing": True})

        assert job.launch.strategy == "zero3"
        assert job.training.gradient_checkpointing


class TestBatches:
    def test_recomputes_only_what_does_not_fit(self) -> None:
        assert not resolved(LLAMA_8B, launch=on(H100)).training.gradient_checkpointing
        long = resolved(LLAMA_8B, launch=on(H100), training={"max_length": 16_384})
        assert long.training.gradient_checkpointing

    @pytest.mark.parametrize(("length", "recomputes"), [(6144, False), (7168, True)])
    def test_leaves_some_room(self, length: int, recomputes: bool) -> None:
        """Within 5 % of the memory an estimate may be wrong; only what a person has written goes there."""
        asked = {"max_length": length, "train_batch_size": 1}

        assert resolved(LLAMA_8B, launch=on(H100), training=asked).training.gradient_checkpointing is recomputes
        kept = resolved(LLAMA_8B, launch=on(H100), training={**asked, "gradient_checkpointing": False})
        assert 0.8 < estimate_of(kept).needed / (79.1 * 2**30) < 1

    @pytest.mark.parametrize("batch", [8, 12, 16, 64])
    @pytest.mark.parametrize("gpu", [L4, H100, None])
    @pytest.mark.parametrize("gpus", [1, 4])
    def test_the_rows_of_a_step_are_those_asked_for(self, batch: int, gpu: str | None, gpus: int) -> None:
        job = resolved(LLAMA_8B, "qlora", launch=on(gpu, gpus), training={"train_batch_size": batch})

        assert job.rows_per_step == batch
        assert job.training.per_device_eval_batch_size == job.training.per_device_train_batch_size

    def test_eight_rows_a_process_where_nothing_is_said(self) -> None:
        assert resolved(LLAMA_8B, launch=on(L4, 8)).rows_per_step == 64
        assert resolved(LLAMA_1B, launch=on(H100)).rows_per_step == 8

    @pytest.mark.parametrize("length", [128, 1024, 4096, 32_768])
    def test_at_most_sixteen_thousand_tokens_at_once(self, length: int) -> None:
        training = resolved(
            LLAMA_1B, launch=on(B200), training={"max_length": length, "train_batch_size": 256}
        ).training

        micro = training.per_device_train_batch_size
        assert micro == 1 or micro * length <= 16_384

    def test_what_is_written_stays(self) -> None:
        asked = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5}
        training = resolved(LLAMA_8B, launch=on(H100), training=asked).training

        assert asked.items() <= training.model_dump().items()

    def test_rows_that_cannot_be_divided(self) -> None:
        with pytest.raises(SpecError) as caught:
            resolved(LLAMA_8B, launch=on(H100, 8), training={"train_batch_size": 9})
        assert caught.value.problems[0].field == "training.train_batch_size"
        assert "multiple of 8" in caught.value.problems[0].hint


class TestUnknown:
    @pytest.mark.parametrize("gpu", [None, "NVIDIA-Z9"])
    def test_gpu(self, gpu: str | None) -> None:
        job = resolved(LLAMA_70B, "full", launch=on(gpu, 8))

        assert (job.launch.strategy, job.training.gradient_checkpointing) == ("ddp", True)
        assert job.training.per_device_train_batch_size == 8

    @pytest.mark.parametrize(("length", "rows"), [(2048, 8), (4096, 4), (131_072, 1)])
    def test_long_rows(self, length: int, rows: int) -> None:
        job = resolved(LLAMA_8B, launch=on(None), training={"max_length": length})

        assert job.training.per_device_train_batch_size == rows
        assert job.rows_per_step == 8

    @pytest.mark.parametrize("recompute", [True, False])
    def test_says_what_it_did(self, recompute: bool) -> None:
        (reason,) = reasons(launch=on(None), training={"gradient_checkpointing": recompute})

        assert reason.endswith("activations are recomputed") is recompute

    def test_cpu(self) -> None:
        job = resolved(LLAMA_70B, "full", launch={"gpus_per_node": 0, "processes_per_node": 2})

        assert (job.launch.strategy, job.training.gradient_checkpointing) == ("ddp", False)
        assert job.training.per_device_train_batch_size == 8


class TestRefused:
    def test_says_both_sizes_and_the_first_knob(self) -> None:
        with pytest.raises(SpecError) as caught:
            resolved(LLAMA_70B, "lora", launch=on(L4))

        problem = caught.value.problems[0]
        assert caught.value.exit_code == ExitCode.SPEC
        assert problem.field == "launch.gpu"
        assert "L4 has 21.9 GiB" in problem.reason
        assert "`method.type: qlora` would save" in problem.hint
        assert "resources.require_fit: false" in problem.hint
        assert "\n" not in str(caught.value)

    def test_not_where_the_person_knows_better(self) -> None:
        job = resolved(LLAMA_70B, "lora", launch=on(L4), resources={"require_fit": False})

        assert job.training.gradient_checkpointing
        assert job.training.per_device_train_batch_size == 1

    def test_says_that_nothing_fits(self) -> None:
        said = reasons(LLAMA_70B, launch=on(L4), resources={"require_fit": False, "memory": "8Gi"})

        assert said == ("nothing that the spec allows fits; this needs least",)

    def test_that_is_no_other_run(self) -> None:
        strict, lenient = (resolved(LLAMA_8B, launch=on(H100), resources={"require_fit": fit}) for fit in (True, False))
        assert strict == lenient

    def test_what_is_chosen_fits(self) -> None:
        for method, gpu in itertools.product(("lora", "qlora"), (L4, H100)):
            try:
                job = resolved(LLAMA_8B, method, launch=on(gpu))
            except SpecError:
                assert (method, gpu) == ("lora", L4)
                continue
            known = find_gpu(gpu)
            assert known is not None
            assert estimate_of(job).needed <= known.memory

    def test_knobs_of_what_does_not_fit_reach_far_enough(self) -> None:
        job = resolved(LLAMA_8B, "lora", launch=on("Tesla-T4"), resources={"require_fit": False})

        gains = [knob.gain for knob in knobs(job.facts, job.method, job.training, job.launch)]
        assert estimate_of(job).needed - max(gains) < 14.5 * 2**30


@pytest.mark.parametrize(("text", "size"), [("32Gi", 32 * 2**30), ("1T", 1e12), ("500m", 0.5), ("7", 7)])
def test_quantity(text: str, size: float) -> None:
    assert quantity(text) == size
