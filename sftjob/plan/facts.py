"""What a model's config.json says of its shape, read without transformers or weights."""

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import BaseModel, ConfigDict

from sftjob.errors import ConfigurationError

_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_EXPERT_KEYS: Final = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# A config.json may leave out what equals the default of its class in transformers. These are such defaults.
_LEFT_OUT: Final[Mapping[str, Mapping[str, int]]] = {
    "gemma3_text": {"vocab_size": 262_208, "max_position_embeddings": 131_072},
}
_TIED_BY_DEFAULT: Final = frozenset(
    "bloom cohere cohere2 ernie4_5 falcon "  # noqa: SIM905 - a list would take thirty lines
    "falcon_mamba gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gpt2 gpt_bigcode gpt_neo "
    "lfm2 lfm2_moe mamba minicpm3 mpt opt recurrent_gemma smollm3 starcoder2 vaultgemma xglm zamba zamba2".split()
)
_FOUR_TIMES: Final = frozenset("gpt2 gpt_bigcode gpt_neo gptj bloom mpt falcon".split())  # noqa: SIM905
_BIASED: Final = frozenset("qwen2 qwen2_moe qwen2_vl_text qwen2_5_vl_text phi gpt2 gpt_bigcode".split())  # noqa: SIM905
"""Queries, keys and values have a bias though the config does not say so."""
_QK_NORM: Final = frozenset("qwen3 qwen3_moe gemma3 gemma3_text".split())  # noqa: SIM905


class ModelFacts(BaseModel):
    """The few numbers of a model that resolving and planning need."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    architecture: str
    """For instance `LlamaForCausalLM`."""
    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int | None = None
    """Longest sequence in tokens; None where the architecture sets no limit."""
    tie_word_embeddings: bool = False
    num_experts: int = 0
    """Of each mixture layer; 0 for a dense model."""
    text_type: str = ""
    """Type of the language model inside a multimodal one; empty where it is `model_type`."""
    num_attention_heads: int = 0
    """0 where the config does not say: the planner guesses."""
    num_key_value_heads: int = 0
    head_dim: int = 0
    intermediate_size: int = 0
    """Of a dense layer's network; 0 where the config does not say."""
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    """Of one expert."""
    shared_intermediate_size: int = 0
    """Of the expert that every token passes; 0 without one."""
    mixture_layers: int = 0
    """Layers whose network is a mixture; the others are dense."""
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised by weights of their own."""
    other_parameters: int = 0
    """About so many are in a vision tower, which takes memory and is not trained by adapters."""


def model_facts(config: object, *, file: str = "config.json") -> ModelFacts:
    """Reads the facts out of a parsed config.json.

    Multimodal configs keep the language model's numbers under `text_config`; those are taken.

    Raises:
        ConfigurationError: not a causal language model, or a number is missing; the message names `file` and the key.
    """
    if not isinstance(config, dict):
        raise _malformed("not a JSON object", file, "")
    architecture = _architecture(config, file)
    text = config if config.get("text_config") is None else config["text_config"]
    if not isinstance(text, dict):
        raise _malformed("not a JSON object", file, "text_config")
    prefix = "" if text is config else "text_config."
    model_type = _text(config.get("model_type"))
    known = _LEFT_OUT.get(_text(text.get("model_type")), {})
    numbers = {**known, **text}
    return ModelFacts(
        architecture=architecture,
        model_type=model_type,
        vocab_size=_number(numbers, file, prefix, "vocab_size"),
        hidden_size=_number(numbers, file, prefix, "hidden_size", "n_embd", "d_model"),
        num_hidden_layers=_number(numbers, file, prefix, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        max_position_embeddings=_first(numbers, *_CONTEXT_KEYS) or None,
        tie_word_embeddings=_tied(config, text),
        num_experts=_first(numbers, *_EXPERT_KEYS),
        **_shape(numbers, _first(numbers, *_EXPERT_KEYS)),
        text_type="" if text is config else _text(text.get("model_type")),
        other_parameters=0 if text is config else _vision_parameters(config.get("vision_config")),
    )


def _shape(numbers: Mapping[str, Any], experts: int) -> dict[str, Any]:
    """Heads and networks of a layer, as far as the config tells."""
    model_type = _text(numbers.get("model_type"))
    hidden = _first(numbers, "hidden_size", "n_embd", "d_model")
    heads = _first(numbers, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _first(numbers, "num_key_value_heads", "num_kv_heads") or heads
    size = _first(numbers, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    size = size or (4 * hidden if model_type in _FOUR_TIMES else 0)
    # Llama 4 calls the dense layers' size `intermediate_size_mlp`, and the experts' `intermediate_size`.
    dense = _first(numbers, "intermediate_size_mlp") or size
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": _first(numbers, "head_dim") or (hidden // heads if heads else 0),
        "intermediate_size": dense,
        "num_experts_per_tok": _first(numbers, "num_experts_per_tok", "num_experts_per_token", "moe_top_k"),
        "moe_intermediate_size": (_first(numbers, "moe_intermediate_size") or size) if experts else 0,
        "shared_intermediate_size": _shared(numbers, model_type, size) if experts else 0,
        "mixture_layers": _mixtures(numbers) if experts else 0,
        "attention_bias": _switch(numbers, model_type, "attention_bias", "qkv_bias", on=_BIASED),
        "mlp_bias": numbers.get("mlp_bias") is True,
        "qk_norm": model_type in _QK_NORM or numbers.get("qk_layernorm") is True,
    }


def _shared(numbers: Mapping[str, Any], model_type: str, size: int) -> int:
    if model_type.startswith("llama4"):
        return size
    each = _first(numbers, "moe_intermediate_size")
    return _first(numbers, "shared_expert_intermediate_size") or _first(numbers, "n_shared_experts") * each


def _mixtures(numbers: Mapping[str, Any]) -> int:
    layers = _first(numbers, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if isinstance(listed := numbers.get("moe_layers"), list):
        return len(listed)
    every = _first(numbers, "interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq") or 1
    dense = set(numbers["mlp_only_layers"]) if isinstance(numbers.get("mlp_only_layers"), list) else set()
    dense |= set(range(_first(numbers, "first_k_dense_replace")))
    return sum((layer + 1) % every == 0 and layer not in dense for layer in range(layers))


def _vision_parameters(vision: object) -> int:
    """A transformer of the usual proportions, without embeddings: the right order of magnitude."""
    if not isinstance(vision, dict):
        return 0
    hidden = _first(vision, "hidden_size", "embed_dim")
    layers = _first(vision, "num_hidden_layers", "depth", "num_layers")
    size = _first(vision, "intermediate_size") or 4 * hidden
    return layers * (4 * hidden * hidden + 2 * hidden * size)


def _switch(numbers: Mapping[str, Any], model_type: str, *names: str, on: frozenset[str]) -> bool:
    written = next((numbers[name] for name in names if isinstance(numbers.get(name), bool)), None)
    return model_type in on if written is None else bool(written)


def _first(numbers: Mapping[str, Any], *names: str) -> int:
    """The first positive whole number under one of the names; 0 where there is none."""
    return next((numbers[name] for name in names if _positive(numbers.get(name))), 0)


def _architecture(config: Mapping[str, Any], file: str) -> str:
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise _malformed("not a list of names", file, "architectures")
    causal = [name for name in architectures if isinstance(name, str) and _generates_text(name)]
    if causal and config.get("is_encoder_decoder") is not True:
        return causal[0]
    found = ", ".join(map(str, architectures)) or "none"
    raise ConfigurationError(
        f"no causal language model (architectures: {found})",
        file=file,
        field="architectures",
        hint="choose a model whose architecture ends in ForCausalLM",
    )


def _generates_text(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"))


def _number(numbers: Mapping[str, Any], file: str, prefix: str, *names: str) -> int:
    """The value under the first of the names that has one."""
    written = next((name for name in names if name in numbers), names[0])
    value = numbers.get(written)
    if not _positive(value):
        raise _malformed("missing or not a positive whole number", file, prefix + written)
    return cast("int", value)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    for part in (config, text):
        if isinstance(part.get("tie_word_embeddings"), bool):
            return cast("bool", part["tie_word_embeddings"])
    return _text(text.get("model_type")) in _TIED_BY_DEFAULT


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _malformed(reason: str, file: str, field: str) -> ConfigurationError:
    return ConfigurationError(reason, file=file, field=field, hint="fetch the model's config.json again")
