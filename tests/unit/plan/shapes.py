"""config.json of well-known models, as far as planning reads it, written by hand."""

from typing import Any

from sftjob.plan import ModelFacts, model_facts
from sftjob.resolved import (
    ResolvedFull,
    ResolvedLaunch,
    ResolvedLora,
    ResolvedMethod,
    ResolvedQlora,
    ResolvedTraining,
)

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28_672,
}
QWEN_7B = LLAMA_8B | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18_944,
}
MIXTRAL = LLAMA_8B | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 32_000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
MISTRAL = LLAMA_8B | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 32_000}
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "intermediate_size": 8192,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
FULL = ResolvedFull()
LORA = ResolvedLora(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
QLORA = ResolvedQlora(**LORA.model_dump(exclude={"type"}), bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
METHODS: dict[str, ResolvedMethod] = {"full": FULL, "lora": LORA, "qlora": QLORA}
GIB = 2**30


def facts_of(config: dict[str, Any]) -> ModelFacts:
    return model_facts(config)


def training(**changed: Any) -> ResolvedTraining:
    return ResolvedTraining.model_validate(
        {
            "num_train_epochs": 3.0,
            "max_steps": -1,
            "learning_rate": 1e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.03,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "per_device_eval_batch_size": 1,
            "max_length": 1024,
            "seed": 1,
            "precision": "bf16",
            "gradient_checkpointing": False,
            "logging_steps": 10,
            "save_steps": 100,
            "save_total_limit": 2,
            "eval_steps": 100,
            **changed,
        }
    )


def launch(processes: int = 1, **changed: Any) -> ResolvedLaunch:
    strategy = "ddp" if processes > 1 else "single"
    return ResolvedLaunch.model_validate(
        {"nodes": 1, "processes_per_node": processes, "device": "cuda", "strategy": strategy, **changed}
    )
