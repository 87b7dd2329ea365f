"""What a model's config.json says of its shape, read without transformers or weights."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from sftjob.errors import ConfigurationError

_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "seq_length")


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


def model_facts(config: dict[str, Any], *, file: str = "config.json") -> ModelFacts:
    """Reads the facts out of a parsed config.json.

    Multimodal configs keep the language model's numbers under `text_config`; those are taken.

    Raises:
        ConfigurationError: not a causal language model, or a number is missing; the message names `file` and the key.
    """
    architectures = config.get("architectures") or []
    causal = [name for name in architectures if isinstance(name, str) and _generates_text(name)]
    if not causal:
        found = ", ".join(map(str, architectures)) or "none"
        raise ConfigurationError(
            f"no causal language model (architectures: {found})",
            file=file,
            field="architectures",
            hint="choose a model whose architecture ends in ForCausalLM",
        )
    text = config.get("text_config") or config
    return ModelFacts(
        architecture=causal[0],
        model_type=str(config.get("model_type", "")),
        vocab_size=_number(text, "vocab_size", file),
        hidden_size=_number(text, "hidden_size", file, "n_embd"),
        num_hidden_layers=_number(text, "num_hidden_layers", file, "n_layer"),
        max_position_embeddings=next((text[key] for key in _CONTEXT_KEYS if isinstance(text.get(key), int)), None),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    )


def _generates_text(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"))


def _number(config: dict[str, Any], key: str, file: str, *aliases: str) -> int:
    for name in (key, *aliases):
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise ConfigurationError(
        "missing or not a positive number", file=file, field=key, hint="restore the model's config.json"
    )
