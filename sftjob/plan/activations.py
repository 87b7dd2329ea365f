"""What autograd keeps of a forward pass, in bytes a token, layer by layer.

Derived from the decoder layers of transformers 5 with SDPA: what each operation saves for its backward, and which of
those tensors are one and the same. `tests/train/test_memory.py` compares with what PyTorch allocates.
"""

from dataclasses import dataclass

from sftjob.plan.facts import ModelFacts
from sftjob.plan.gpus import find_gpu
from sftjob.plan.inventory import Inventory, Linear
from sftjob.plan.trainable import adapted_linears
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedMethod, ResolvedTraining

FP32 = 4
BF16 = 2
_LAYER_NORM = frozenset({"phi", "gpt2"})
"""Types with LayerNorm, one kernel, where others have RMSNorm, several operations."""
_GATED_SAVES = 3
"""Of a gated network: the gate, its activation, and what it is multiplied with."""
_PLAIN_SAVES = 4
"""Of a network without gate, whose GELU is written out in single operations."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """In which types a job computes, in bytes an element."""

    base: int
    """Weights that are not quantised."""
    trained: int
    """Weights that are trained, and their gradients."""
    compute: int
    """Results of linear layers."""
    stream: int
    """Hidden states between layers."""
    autocast: bool
    """Weights and inputs of linear layers are cast to bf16 where they are used."""


def numbers(method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch) -> Numbers:
    """Without DeepSpeed what is trained stays in float32 and autocast computes in bf16; with it all is bf16."""
    if training.precision == "fp32":
        return Numbers(base=FP32, trained=FP32, compute=FP32, stream=FP32, autocast=False)
    if launch.zero_stage:
        return Numbers(base=BF16, trained=BF16, compute=BF16, stream=BF16, autocast=False)
    if isinstance(method, ResolvedFull):
        return Numbers(base=FP32, trained=FP32, compute=BF16, stream=FP32, autocast=True)
    return Numbers(base=BF16, trained=FP32, compute=BF16, stream=BF16, autocast=True)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes for one token of a micro-batch, and for one pair of tokens of a row."""

    layers: int
    """Of all layers."""
    layer: int
    """Of the largest layer."""
    inputs: int
    """Hidden states that enter layers: all that checkpointing keeps."""
    ends: int
    """Of the last norm and the head's input."""
    backward: int
    """Gradients that are alive within a layer's backward pass, beyond what was saved."""
    masks: int
    """A mask's, in all layers, for every pair of tokens of a row."""
    mask: int
    """A mask's, in one layer."""
    scores: int
    """Attention's probabilities in one layer, where no fused kernel computes them."""


def activations(
    shape: ModelFacts, parts: Inventory, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Activations:
    """Sizes of what one micro-batch leaves behind.

    Args:
        shape: complete facts.
        parts: inventory of the model.
        method: what is trained.
        training: precision, packing and micro-batch.
        launch: device and strategy.
    """
    types = numbers(method, training, launch)
    masked = is_masked(training)
    mixtures = min(shape.mixture_layers, shape.num_hidden_layers)
    dense = shape.num_hidden_layers - mixtures
    fused = is_fused(training, launch)
    common = _common(shape, method, types, masked=masked, fused=fused)
    inputs = {True: 0, False: 0}
    for mixture in inputs:
        inputs[mixture] = _inputs(shape, parts, method, types, launch, mixture=mixture)
    one_dense = common + inputs[False] + _network(shape.intermediate_size, parts) * types.compute
    trained = isinstance(method, ResolvedFull)
    one_mixture = common + inputs[True] + _mixture(shape, parts, trained=trained) * types.compute
    widest = max(shape.intermediate_size if dense else 0, _routed(shape) if mixtures else 0)
    return Activations(
        layers=dense * one_dense + mixtures * one_mixture,
        layer=max(one_dense if dense else 0, one_mixture if mixtures else 0),
        inputs=shape.num_hidden_layers * shape.hidden_size * types.stream,
        ends=_norm(shape, shape.hidden_size, method, types) + shape.hidden_size * types.compute,
        backward=2 * widest * types.compute + 2 * shape.hidden_size * types.stream,
        masks=shape.num_hidden_layers * types.compute if masked else 0,
        mask=types.compute + 1 if masked else 0,
        scores=0 if fused else FP32 * shape.num_attention_heads,
    )


def is_masked(training: ResolvedTraining) -> bool:
    """Rows of unequal length, or several in a pack, need a mask; SDPA makes one of its own in every layer."""
    return training.packing or training.per_device_train_batch_size > 1


def is_fused(training: ResolvedTraining, launch: ResolvedLaunch) -> bool:
    """Whether SDPA has a kernel that keeps no probabilities: not for bf16 on GPUs that do not compute in it."""
    gpu = find_gpu(launch.gpu) if launch.device == "cuda" else None
    return training.precision != "bf16" or gpu is None or gpu.bf16_flops > 0


def _common(shape: ModelFacts, method: ResolvedMethod, types: Numbers, *, masked: bool, fused: bool) -> int:
    """Norms and attention."""
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    norms = _norms(shape) * _norm(shape, shape.hidden_size, method, types)
    if shape.qk_norm:
        norms += _norm(shape, queries, method, types) + _norm(shape, keys, method, types)
    if not fused:
        # Written out in float32, with keys and values for each head of the queries.
        return norms + 3 * queries * FP32
    # With a mask SDPA is given keys and values once for each head of the queries.
    attended = 3 * queries if masked else queries + 2 * keys
    return norms + (attended + queries) * types.compute + FP32 * shape.num_attention_heads


def _norms(shape: ModelFacts) -> int:
    model_type = shape.text_type or shape.model_type
    return {"gemma2": 4, "gemma3_text": 4, "phi": 1}.get(model_type, 2)


def _norm(shape: ModelFacts, size: int, method: ResolvedMethod, types: Numbers) -> int:
    """Its input in float32, and where RMSNorm's weights are trained its result before they are multiplied."""
    trained = isinstance(method, ResolvedFull) and (shape.text_type or shape.model_type) not in _LAYER_NORM
    return size * (FP32 + types.stream * trained)


def _network(size: int, parts: Inventory) -> int:
    return size * (_GATED_SAVES if _is_gated(parts) else _PLAIN_SAVES)


def _is_gated(parts: Inventory) -> bool:
    return not any(each.name in ("fc1", "c_fc") for each in parts.linears)


def _routed(shape: ModelFacts) -> int:
    return shape.moe_intermediate_size * _computed_experts(shape) + shape.shared_intermediate_size


def _computes_all_experts(shape: ModelFacts) -> bool:
    """Llama 4 in transformers sends every token through all experts, and multiplies most of what they get by zero."""
    return (shape.text_type or shape.model_type).startswith("llama4")


def _computed_experts(shape: ModelFacts) -> int:
    return shape.num_experts if _computes_all_experts(shape) else max(1, shape.num_experts_per_tok)


def _mixture(shape: ModelFacts, parts: Inventory, *, trained: bool) -> int:
    """Of the experts that a token passes: networks and results, and where experts are trained inputs and products."""
    copies = 3 if _computes_all_experts(shape) else 1
    expert = (_GATED_SAVES + trained) * shape.moe_intermediate_size + (copies + trained) * shape.hidden_size
    return _computed_experts(shape) * expert + _network(shape.shared_intermediate_size, parts) + 2 * shape.num_experts


def _inputs(
    shape: ModelFacts,
    parts: Inventory,
    method: ResolvedMethod,
    types: Numbers,
    launch: ResolvedLaunch,
    *,
    mixture: bool,
) -> int:
    """What linear layers keep of their inputs, for the gradients of their own or their adapters' weights."""
    layers = [each for each in parts.linears if _belongs(each, shape, mixture=mixture)]
    if isinstance(method, ResolvedFull):
        return sum(_sizes(layers, own=types.autocast, shape=shape)) * types.compute
    names = {each.name for each in adapted_linears(parts, method)}
    adapted = [each for each in layers if each.name in names]
    own = types.autocast or method.lora_dropout > 0
    kept = sum(_sizes(adapted, own=own, shape=shape, adapters=True)) + sum(method.r for _ in adapted)
    noise = sum(each.inputs for each in adapted) if method.lora_dropout else 0
    scales = 2 * sum(each.outputs for each in adapted) if method.use_dora else 0
    # A CPU keeps dropout's mask in the type of its input, a GPU in bytes.
    return (kept + scales) * types.compute + noise * (types.trained if launch.device == "cpu" else 1)


def _sizes(layers: list[Linear], *, own: bool, shape: ModelFacts, adapters: bool = False) -> list[int]:
    """Elements that are kept: one copy for all layers that read the same, or `own` ones where each casts for itself.

    The attention's result is kept by the attention already, and is only copied for adapters.
    """
    sizes: dict[str, int] = {}
    for each in layers:
        source = _source(each, shape)
        if source == "attention" and not (own and adapters):
            continue
        # What is made in the type that is computed in needs no cast: the network's product.
        shared = not own or (source == "product" and not adapters)
        sizes[source if shared else each.name + source] = each.inputs
    return list(sizes.values())


def _source(layer: Linear, shape: ModelFacts) -> str:
    if layer.name in ("o_proj", "dense") or (layer.name == "c_proj" and layer.inputs == shape.hidden_size):
        return "attention"
    if layer.name in ("down_proj", "fc2", "c_proj"):
        return "product"
    return "first" if layer.name in ("q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn") else "second"


def _belongs(layer: Linear, shape: ModelFacts, *, mixture: bool) -> bool:
    """Whether a layer is in mixtures, or in dense layers; attention is in both."""
    if _source(layer, shape) in ("attention", "first"):
        return True
    dense = shape.num_hidden_layers - shape.mixture_layers
    if mixture:
        return layer.count == shape.mixture_layers and shape.shared_intermediate_size in (layer.inputs, layer.outputs)
    return layer.count == dense and shape.intermediate_size in (layer.inputs, layer.outputs, layer.outputs // 2)
