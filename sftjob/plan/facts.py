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
        max_position_embeddings=next((numbers[key] for key in _CONTEXT_KEYS if _positive(numbers.get(key))), None),
        tie_word_embeddings=_tied(config, text),
        num_experts=next((numbers[key] for key in _EXPERT_KEYS if _positive(numbers.get(key))), 0),
    )


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
