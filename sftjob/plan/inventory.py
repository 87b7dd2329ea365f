"""What a model consists of, counted from its facts: linear layers, experts, embeddings and norms.

The shapes are those that transformers builds. Where an architecture is not known, a decoder like Llama's is taken, and
`guesses` says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sftjob.plan.facts import ModelFacts

_LIKE_LLAMA: Final = frozenset(
    "llama mistral ministral qwen2 qwen3 mixtral gemma gemma2 gemma3_text smollm3 llama4_text "  # noqa: SIM905
    "qwen2_moe qwen3_moe olmo2 granite".split()
)
_KNOWN: Final = _LIKE_LLAMA | {"phi", "phi3", "gpt2"}
_FOUR_NORMS: Final = frozenset({"gemma2", "gemma3_text", "gemma3"})
_BIAS_WITHOUT_OUTPUT: Final = frozenset({"qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text"})
_HEADS_BY_DEFAULT: Final = 128
"""Dimensions of a head where a config does not say how many heads there are."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Layers `x @ W (+ b)` of one name."""

    name: str
    """Last part of the module's name."""
    inputs: int
    outputs: int
    count: int
    """In the whole model."""
    bias: bool = False

    @property
    def weights(self) -> int:
        """Of all of them, without biases."""
        return self.inputs * self.outputs * self.count

    @property
    def parameters(self) -> int:
        return self.weights + self.outputs * self.count * self.bias


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Matrices of one name that a mixture keeps in a 3-D parameter, one for each expert."""

    name: str
    """For instance `experts.down_proj`."""
    experts: int
    inputs: int
    outputs: int
    count: int
    """Layers that have such a parameter."""

    @property
    def parameters(self) -> int:
        return self.experts * self.inputs * self.outputs * self.count


@dataclass(frozen=True, kw_only=True)
class Small:
    """What is not multiplied: norms, routers, learned positions."""

    name: str
    size: int
    """Parameters of one."""
    count: int

    @property
    def parameters(self) -> int:
        return self.size * self.count


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All parameters of a model. The embedding is [vocabulary, hidden], as is the head."""

    linears: tuple[Linear, ...]
    """Without the head."""
    experts: tuple[Experts, ...]
    smalls: tuple[Small, ...]
    vocab_size: int
    hidden_size: int
    tied: bool
    head_bias: bool
    other: int
    """Parameters of what is not the language model."""
    guesses: tuple[str, ...]
    """What was taken for granted, for people to read."""

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of a head with weights of its own."""
        return self.vocab_size * self.hidden_size

    @property
    def head(self) -> int:
        """Parameters that only the head has."""
        return self.embedding * (not self.tied) + self.vocab_size * self.head_bias

    @property
    def linear_weights(self) -> int:
        """Weights that four bits can hold: those of linear layers but the head."""
        return sum(linear.weights for linear in self.linears)

    @property
    def decoder(self) -> int:
        """Parameters of linear layers and experts."""
        return sum(each.parameters for each in self.linears) + sum(each.parameters for each in self.experts)

    @property
    def total(self) -> int:
        return self.decoder + sum(small.parameters for small in self.smalls) + self.embedding + self.head + self.other

    @property
    def active(self) -> int:
        """Weights of linear layers and experts that one token is multiplied with, without the head."""
        return self.linear_weights + self._active_experts

    _active_experts: int = 0


def inventory(facts: ModelFacts, *, vocab_size: int = 0) -> Inventory:
    """Counts a model.

    Args:
        facts: of its config.
        vocab_size: rows of the embedding where the tokenizer needs more than the model has.
    """
    shape, guesses = _completed(facts)
    linears = tuple(each for each in (*_attention(shape), *_networks(shape)) if each.count)
    experts = tuple(_experts(shape))
    chosen = shape.num_experts_per_tok or 1
    return Inventory(
        linears=linears,
        experts=experts,
        smalls=tuple(small for small in _smalls(shape) if small.parameters),
        vocab_size=max(shape.vocab_size, vocab_size),
        hidden_size=shape.hidden_size,
        tied=shape.tie_word_embeddings,
        head_bias=_type(shape) == "phi",
        other=shape.other_parameters,
        guesses=guesses,
        _active_experts=sum(each.parameters // each.experts * chosen for each in experts),
    )


def complete(facts: ModelFacts) -> ModelFacts:
    """The facts with every number that planning needs, guessed where the config is silent."""
    return _completed(facts)[0]


def _completed(facts: ModelFacts) -> tuple[ModelFacts, tuple[str, ...]]:
    heads = facts.num_attention_heads or max(1, facts.hidden_size // _HEADS_BY_DEFAULT)
    known = {
        "num_attention_heads": heads,
        "num_key_value_heads": facts.num_key_value_heads or heads,
        "head_dim": facts.head_dim or max(1, facts.hidden_size // heads),
        "intermediate_size": facts.intermediate_size or 4 * facts.hidden_size,
    }
    guessed = [name for name in known if not getattr(facts, name)]
    notes = []
    if _type(facts) not in _KNOWN:
        notes.append(f"{_type(facts) or facts.architecture} is not known: layers like Llama's are taken")
    if guessed:
        notes.append(f"the config says no {', '.join(guessed)}: usual ones are taken")
    if facts.other_parameters:
        notes.append("the vision tower is counted by its usual proportions")
    return facts.model_copy(update=known), tuple(notes)


def _type(facts: ModelFacts) -> str:
    return facts.text_type or facts.model_type


def _attention(shape: ModelFacts) -> Iterator[Linear]:
    hidden, layers, model_type = shape.hidden_size, shape.num_hidden_layers, _type(shape)
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    if model_type == "gpt2":
        yield Linear(name="c_attn", inputs=hidden, outputs=3 * hidden, count=layers, bias=True)
        yield Linear(name="c_proj", inputs=hidden, outputs=hidden, count=layers, bias=True)
        return
    biased = shape.attention_bias or model_type == "phi"
    if model_type == "phi3":
        yield Linear(name="qkv_proj", inputs=hidden, outputs=queries + 2 * keys, count=layers)
    else:
        for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            yield Linear(name=name, inputs=hidden, outputs=outputs, count=layers, bias=biased)
    name = "dense" if model_type == "phi" else "o_proj"
    output_bias = biased and model_type not in _BIAS_WITHOUT_OUTPUT
    yield Linear(name=name, inputs=queries, outputs=hidden, count=layers, bias=output_bias)


def _networks(shape: ModelFacts) -> Iterator[Linear]:
    hidden, size, model_type = shape.hidden_size, shape.intermediate_size, _type(shape)
    dense = shape.num_hidden_layers - shape.mixture_layers
    if model_type in ("phi", "gpt2"):
        names = ("fc1", "fc2") if model_type == "phi" else ("c_fc", "c_proj")
        yield Linear(name=names[0], inputs=hidden, outputs=size, count=dense, bias=True)
        yield Linear(name=names[1], inputs=size, outputs=hidden, count=dense, bias=True)
        return
    if model_type == "phi3":
        yield Linear(name="gate_up_proj", inputs=hidden, outputs=2 * size, count=dense)
        yield Linear(name="down_proj", inputs=size, outputs=hidden, count=dense)
        return
    yield from _gated(hidden, size, dense, bias=shape.mlp_bias)
    if shape.shared_intermediate_size:
        yield from _gated(hidden, shape.shared_intermediate_size, shape.mixture_layers)
        if model_type == "qwen2_moe":
            yield Linear(name="shared_expert_gate", inputs=hidden, outputs=1, count=shape.mixture_layers)


def _gated(hidden: int, size: int, count: int, *, bias: bool = False) -> Iterator[Linear]:
    yield Linear(name="gate_proj", inputs=hidden, outputs=size, count=count, bias=bias)
    yield Linear(name="up_proj", inputs=hidden, outputs=size, count=count, bias=bias)
    yield Linear(name="down_proj", inputs=size, outputs=hidden, count=count, bias=bias)


def _experts(shape: ModelFacts) -> Iterator[Experts]:
    if not shape.mixture_layers:
        return
    hidden, size = shape.hidden_size, shape.moe_intermediate_size
    for name, inputs, outputs in (("gate_up_proj", hidden, 2 * size), ("down_proj", size, hidden)):
        yield Experts(
            name=f"experts.{name}",
            experts=shape.num_experts,
            inputs=inputs,
            outputs=outputs,
            count=shape.mixture_layers,
        )


def _smalls(shape: ModelFacts) -> Iterator[Small]:
    hidden, layers, model_type = shape.hidden_size, shape.num_hidden_layers, _type(shape)
    if model_type == "gpt2":
        yield Small(name="wpe", size=hidden * (shape.max_position_embeddings or 1024), count=1)
        yield Small(name="ln_1", size=2 * hidden, count=layers)
        yield Small(name="ln_2", size=2 * hidden, count=layers)
        yield Small(name="ln_f", size=2 * hidden, count=1)
        return
    if model_type == "phi":
        yield Small(name="input_layernorm", size=2 * hidden, count=layers)
        yield Small(name="final_layernorm", size=2 * hidden, count=1)
        return
    names = ["input_layernorm", "post_attention_layernorm"]
    if model_type in _FOUR_NORMS:
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for name in names:
        yield Small(name=name, size=hidden, count=layers)
    yield Small(name="norm", size=hidden, count=1)
    if shape.qk_norm:
        yield Small(name="q_norm", size=shape.head_dim, count=layers)
        yield Small(name="k_norm", size=shape.head_dim, count=layers)
    yield Small(name="router", size=hidden * shape.num_experts, count=shape.mixture_layers)
