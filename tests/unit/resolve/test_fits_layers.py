"""Names of layers that cannot be trained as the spec says, as far as that is known before there is a model."""

from typing import Any

import pytest

from sftjob.errors import SpecError
from sftjob.plan import ModelFacts
from sftjob.resolve.fits import check_combination
from sftjob.resolved import ResolvedLaunch, ResolvedLora, ResolvedQlora, ResolvedTraining
from sftjob.spec import Export, Strategy

FACTS = ModelFacts(
    architecture="LlamaForCausalLM", model_type="llama", vocab_size=64, hidden_size=64, num_hidden_layers=2
)
TIED = FACTS.model_copy(update={"tie_word_embeddings": True})
MIXTURE = FACTS.model_copy(update={"num_experts": 4})
TRAINING = ResolvedTraining(
    num_train_epochs=1.0,
    max_steps=-1,
    learning_rate=1e-4,
    lr_scheduler_type="cosine",
    warmup_steps=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    per_device_train_batch_size=1,
    gradient_accumulation_steps=1,
    per_device_eval_batch_size=1,
    max_length=64,
    seed=0,
    precision="bf16",
    gradient_checkpointing=False,
    logging_steps=1,
    save_steps=1,
    save_total_limit=1,
    eval_steps=1,
)
LORA = ResolvedLora(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
QLORA = ResolvedQlora(
    **LORA.model_dump(exclude={"type"}),
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_quant_storage="bf16",
)
EXPERTS = ("q_proj", "mlp.experts.down_proj")


def check(
    facts: ModelFacts, method: ResolvedLora | ResolvedQlora, strategy: Strategy = "single", **options: Any
) -> None:
    launch = ResolvedLaunch(nodes=1, processes_per_node=1, device="cuda", strategy=strategy)
    check_combination(facts, method.model_copy(update=options), TRAINING, launch, Export())


@pytest.mark.parametrize(
    ("facts", "method", "strategy", "options", "message"),
    [
        (
            FACTS,
            QLORA,
            "single",
            {"modules_to_save": ("model.layers.0.mlp.up_proj",)},
            r"^method\.modules_to_save: up_proj is a linear layer, which qlora holds in four bits",
        ),
        (TIED, LORA, "single", {"target_modules": ("lm_head",)}, r"^method\.target_modules: lm_head has the embedding"),
        (TIED, LORA, "zero3", {"modules_to_save": ("lm_head",)}, r"^method\.modules_to_save: lm_head .*ZeRO-3"),
        (TIED, LORA, "zero3", {"modules_to_save": ("model.embed_tokens",)}, r"embed_tokens is embedding and head"),
        (MIXTURE, LORA, "single", {"target_modules": EXPERTS, "lora_dropout": 0.1}, r"^method\.lora_dropout: mlp\.exp"),
        (MIXTURE, LORA, "single", {"target_modules": EXPERTS, "use_dora": True}, r"^method\.use_dora: mlp\.experts"),
        (MIXTURE, LORA, "zero3", {"target_modules": EXPERTS}, r"^method\.target_modules: adapters of mlp\.experts"),
    ],
)
def test_refused(
    facts: ModelFacts,
    method: ResolvedLora | ResolvedQlora,
    strategy: Strategy,
    options: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(SpecError, match=message):
        check(facts, method, strategy, **options)


@pytest.mark.parametrize(
    ("facts", "method", "strategy", "options"),
    [
        (FACTS, LORA, "single", {"modules_to_save": ("up_proj",)}),
        (FACTS, QLORA, "zero3", {"modules_to_save": ("lm_head", "norm")}),
        (FACTS, LORA, "zero3", {"use_dora": True}),
        (FACTS, LORA, "single", {"target_modules": ("lm_head",)}),
        (TIED, LORA, "zero2", {"modules_to_save": ("lm_head",)}),
        (MIXTURE, LORA, "zero2", {"target_modules": EXPERTS}),
        (MIXTURE, LORA, "zero3", {"lora_dropout": 0.1, "use_dora": True}),
        (FACTS, LORA, "single", {"target_modules": EXPERTS, "lora_dropout": 0.1}),
    ],
)
def test_allowed(
    facts: ModelFacts, method: ResolvedLora | ResolvedQlora, strategy: Strategy, options: dict[str, object]
) -> None:
    check(facts, method, strategy, **options)
