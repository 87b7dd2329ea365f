import dataclasses
import json
from typing import Any

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError, SpecError
from sftjob.plan import ModelFacts
from sftjob.resolve import RESOLVED_SCHEMA, ResolvedJob, read_resolved, resolve
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedLora, ResolvedQlora, ResolvedTraining
from sftjob.spec import METHOD_RULES, JobSpec, run_id

FACTS = ModelFacts(
    architecture="LlamaForCausalLM",
    model_type="llama",
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=6,
    max_position_embeddings=2048,
)
SMALLEST: dict[str, Any] = {
    "name": "job",
    "model": {"hub": "owner/name", "revision": "0" * 40},
    "data": {"train": [{"uri": "s3://bucket/train.jsonl"}]},
    "method": {"type": "full"},
}

WRITTEN: dict[str, Any] = {
    "num_train_epochs": 0.5,
    "optim": "paged_adamw_8bit",
    "learning_rate": 0.001,
    "lr_scheduler_type": "cosine_with_min_lr",
    "min_lr_rate": 0.25,
    "warmup_steps": 7.0,
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-6,
    "neftune_noise_alpha": 5.0,
    "max_grad_norm": 0.3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 5,
    "per_device_eval_batch_size": 3,
    "max_length": 2048,
    "packing": True,
    "seed": 0,
    "precision": "fp32",
    "gradient_checkpointing": True,
    "logging_steps": 1,
    "save_steps": 11,
    "save_total_limit": 4,
    "eval_steps": 13,
}


def make_spec(**blocks: Any) -> JobSpec:
    return JobSpec.model_validate_json(json.dumps(SMALLEST | blocks))


def make_job(facts: ModelFacts = FACTS, **blocks: Any) -> ResolvedJob:
    return resolve(make_spec(**blocks), facts)


class TestDefaults:
    def test_full(self) -> None:
        spec = make_spec()

        assert resolve(spec, FACTS) == ResolvedJob(
            schema_version=1,
            run_id=run_id(spec),
            name="job",
            model=spec.model,
            facts=FACTS,
            data=spec.data,
            method=ResolvedFull(),
            training=ResolvedTraining(
                num_train_epochs=3.0,
                max_steps=-1,
                learning_rate=2e-5,
                lr_scheduler_type="cosine",
                min_lr_rate=0.1,
                warmup_steps=0.03,
                weight_decay=0.0,
                max_grad_norm=1.0,
                per_device_train_batch_size=8,
                gradient_accumulation_steps=1,
                per_device_eval_batch_size=8,
                max_length=1024,
                seed=42,
                precision="bf16",
                gradient_checkpointing=True,
                logging_steps=10,
                save_steps=100,
                save_total_limit=2,
                eval_steps=100,
            ),
            launch=ResolvedLaunch(nodes=1, processes_per_node=1, device="cuda", strategy="single"),
        )

    def test_lora(self) -> None:
        job = make_job(method={"type": "lora"})

        assert job.method == ResolvedLora(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
        assert job.training.learning_rate == 2e-4

    def test_qlora(self) -> None:
        job = make_job(method={"type": "qlora", "r": 8})

        assert job.method == ResolvedQlora(
            r=8,
            lora_alpha=16,
            lora_dropout=0.0,
            target_modules="all-linear",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
        )
        assert job.training.learning_rate == 2e-4
        written = {"type": "qlora", "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}
        assert make_job(method=written).method.model_dump()["bnb_4bit_quant_type"] == "fp4"
        assert make_job(method=written).method.model_dump()["bnb_4bit_use_double_quant"] is False

    def test_alpha_follows_the_rank(self) -> None:
        assert make_job(method={"type": "lora", "r": 8}).method == ResolvedLora(
            r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
        )

    def test_precision_follows_the_device(self) -> None:
        assert make_job(launch={"gpus_per_node": 0}).training.precision == "fp32"
        assert make_job(launch={"gpus_per_node": 1}).training.precision == "bf16"

    def test_evaluation_takes_the_batch_of_training(self) -> None:
        assert make_job(training={"per_device_train_batch_size": 3}).training.per_device_eval_batch_size == 3

    @pytest.mark.parametrize(("limit", "max_length"), [(512, 512), (1024, 1024), (4096, 1024), (None, 1024)])
    def test_length_stays_within_the_model(self, limit: int | None, max_length: int) -> None:
        facts = FACTS.model_copy(update={"max_position_embeddings": limit})

        assert make_job(facts).training.max_length == max_length

    @pytest.mark.parametrize(
        ("launch", "resolved"),
        [
            ({"gpus_per_node": 0}, (1, 1, "cpu", "single")),
            ({"gpus_per_node": 0, "processes_per_node": 2}, (1, 2, "cpu", "ddp")),
            ({"gpus_per_node": 4}, (1, 4, "cuda", "ddp")),
            ({"nodes": 2}, (2, 1, "cuda", "ddp")),
            ({"nodes": 2, "gpus_per_node": 8}, (2, 8, "cuda", "ddp")),
            ({"strategy": "ddp"}, (1, 1, "cuda", "ddp")),
            ({"strategy": "single"}, (1, 1, "cuda", "single")),
        ],
    )
    def test_launch(self, launch: dict[str, Any], resolved: tuple[int, int, str, str]) -> None:
        job = make_job(launch=launch)

        found = job.launch
        assert (found.nodes, found.processes_per_node, found.device, found.strategy) == resolved
        nodes, processes, *_ = resolved
        assert job.launch.world_size == nodes * processes


class TestWhatIsWritten:
    def test_every_field_of_training(self) -> None:
        training = make_job(training=WRITTEN).training

        assert training.model_dump() == WRITTEN | {"max_steps": -1}

    def test_max_steps(self) -> None:
        assert make_job(training={"max_steps": 9}).training.max_steps == 9

    def test_zeros_are_not_left_out(self) -> None:
        training = make_job(training={"warmup_steps": 0.0, "weight_decay": 0.0, "seed": 0}).training

        assert (training.warmup_steps, training.weight_decay, training.seed) == (0.0, 0.0, 0)

    def test_lora(self) -> None:
        method = {"type": "lora", "r": 4, "lora_alpha": 3, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}

        assert make_job(method=method).method == ResolvedLora(
            r=4, lora_alpha=3, lora_dropout=0.1, target_modules=("q_proj", "v_proj")
        )

    def test_rows_per_step(self) -> None:
        training = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 5}

        assert make_job(training=training, launch={"nodes": 2, "gpus_per_node": 3}).rows_per_step == 60


class TestRefused:
    def test_longer_than_the_model(self) -> None:
        with pytest.raises(SpecError) as caught:
            make_job(training={"max_length": 2049})
        assert str(caught.value) == (
            "training.max_length: 2049 tokens are more than the model's 2048 (max_position_embeddings); "
            "use at most 2048"
        )
        assert caught.value.exit_code == ExitCode.SPEC

    def test_any_length_where_the_model_has_no_limit(self) -> None:
        facts = FACTS.model_copy(update={"max_position_embeddings": None})

        assert make_job(facts, training={"max_length": 100_000}).training.max_length == 100_000

    def test_a_strategy_that_the_method_does_not_know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = dataclasses.replace(METHOD_RULES["full"], strategies=frozenset({"single"}))
        monkeypatch.setitem(METHOD_RULES, "full", alone)

        with pytest.raises(SpecError) as caught:
            make_job(launch={"nodes": 2})
        assert str(caught.value) == "launch.strategy: full does not run under ddp; use one of single"


class TestStored:
    @pytest.mark.parametrize("method", [{"type": "full"}, {"type": "lora", "target_modules": ["q_proj"]}])
    @pytest.mark.parametrize("limit", [2048, None])
    def test_reading_back_gives_the_same(self, method: dict[str, Any], limit: int | None) -> None:
        job = make_job(FACTS.model_copy(update={"max_position_embeddings": limit}), method=method)

        again = read_resolved(job.to_json(), "spec.json")

        assert again == job
        assert again.to_json() == job.to_json()

    def test_is_deterministic(self) -> None:
        spec = make_spec(method={"type": "lora"}, training=WRITTEN)
        stored = resolve(spec, FACTS)
        copy = JobSpec.model_validate_json(spec.model_dump_json(exclude_unset=True))

        assert resolve(copy, read_resolved(stored.to_json(), "spec.json").facts).to_json() == stored.to_json()

    def test_unknown_fields_are_ignored(self) -> None:
        stored = json.loads(make_job().to_json())
        stored["new"] = stored["training"]["new"] = stored["facts"]["new"] = 1

        assert read_resolved(json.dumps(stored).encode(), "spec.json") == make_job()

    @pytest.mark.parametrize("field", ["run_id", "facts.vocab_size", "training.max_length", "launch.device", "method"])
    def test_a_missing_field_is_named(self, field: str) -> None:
        stored = json.loads(make_job().to_json())
        *parents, name = field.split(".")
        block = stored
        for parent in parents:
            block = block[parent]
        del block[name]

        with pytest.raises(ConfigurationError) as caught:
            read_resolved(json.dumps(stored).encode(), "job-1/spec.json")
        problem = caught.value.problems[0]
        assert caught.value.exit_code == ExitCode.CONFIGURATION
        assert (problem.file, problem.field, problem.reason) == ("job-1/spec.json", field, "Field required")
        assert "--new-run" in problem.hint

    @pytest.mark.parametrize(
        ("block", "field", "value"),
        [("method", "type", "novel"), ("launch", "strategy", "novel"), ("training", "precision", "fp8")],
    )
    def test_what_this_version_does_not_know_is_named(self, block: str, field: str, value: str) -> None:
        stored = json.loads(make_job().to_json())
        stored[block][field] = value

        with pytest.raises(ConfigurationError) as caught:
            read_resolved(json.dumps(stored).encode(), "spec.json")
        assert caught.value.problems[0].field.startswith(block)
        assert "\n" not in str(caught.value)

    def test_a_newer_schema_is_said_before_anything_else(self) -> None:
        stored = json.loads(make_job().to_json()) | {"schema_version": RESOLVED_SCHEMA + 1}
        del stored["training"]

        with pytest.raises(ConfigurationError) as caught:
            read_resolved(json.dumps(stored).encode(), "spec.json")
        assert str(caught.value) == (
            "spec.json: schema_version: written by a newer version (schema 2, this one reads 1); "
            "use the image that started this run"
        )

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff"])
    def test_not_a_record(self, data: bytes) -> None:
        with pytest.raises(ConfigurationError, match=r"^spec\.json: ") as caught:
            read_resolved(data, "spec.json")
        assert "\n" not in str(caught.value)
