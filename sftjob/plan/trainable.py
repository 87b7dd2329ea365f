"""How many parameters a method trains: all of them, or adapters and what is trained beside them."""

from collections.abc import Iterator
from dataclasses import dataclass

from sftjob.plan.inventory import Experts, Inventory, Linear
from sftjob.resolved import ResolvedFull, ResolvedLora, ResolvedMethod, ResolvedQlora

_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in"})
_HEADS = frozenset({"lm_head", "embed_out"})


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """Numbers of parameters that the optimizer changes."""

    weights: int
    """Of the model itself, under full fine-tuning."""
    adapters: int
    saved: int
    """In copies of whole modules."""
    rows: int
    """In embedding rows of added tokens."""
    embedding: int
    """Of all these, in an embedding that is trained whole."""

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.saved + self.rows


def trainable(parts: Inventory, method: ResolvedMethod, *, added_tokens: int = 0) -> Trainable:
    """Counts what a method trains.

    Args:
        parts: of the model.
        method: what trains it.
        added_tokens: tokens that the model has never seen; adapters train their embedding rows as well.
    """
    if isinstance(method, ResolvedFull):
        return Trainable(weights=parts.total, adapters=0, saved=0, rows=0, embedding=parts.embedding)
    layers = adapted_linears(parts, method)
    ranks = sum((each.inputs + each.outputs) * each.count for each in layers) * method.r
    ranks += method.r * sum(
        (each.inputs + each.outputs) * each.experts * each.count for each in _experts(parts, method)
    )
    magnitudes = sum(each.outputs * each.count for each in layers) if method.use_dora else 0
    return Trainable(
        weights=0,
        adapters=ranks + magnitudes,
        saved=sum(_saved(parts, method)),
        rows=added_tokens * parts.hidden_size * _row_tables(parts, method),
        embedding=parts.embedding if _saves_embedding(parts, method) else 0,
    )


def adapted_linears(parts: Inventory, method: ResolvedLora | ResolvedQlora) -> tuple[Linear, ...]:
    """Linear layers that get an adapter, the head among them where it is named."""
    saved = {_last(name) for name in method.modules_to_save}
    if method.target_modules == "all-linear":
        return tuple(each for each in parts.linears if each.name not in saved)
    names = {_last(name) for name in method.target_modules if "experts" not in name.split(".")}
    head = Linear(name="lm_head", inputs=parts.hidden_size, outputs=parts.vocab_size, count=1)
    return tuple(each for each in (*parts.linears, head) if each.name in names)


def _experts(parts: Inventory, method: ResolvedLora | ResolvedQlora) -> Iterator[Experts]:
    if method.target_modules != "all-linear":
        named = [name for name in method.target_modules if "experts" in name.split(".")]
        yield from (each for each in parts.experts if any(name.endswith(each.name) for name in named))


def _saved(parts: Inventory, method: ResolvedLora | ResolvedQlora) -> Iterator[int]:
    names = {_last(name) for name in method.modules_to_save}
    if _saves_embedding(parts, method):
        yield parts.embedding
    if names & _HEADS and not parts.tied:
        yield parts.head
    yield from (each.parameters for each in parts.linears if each.name in names)
    yield from (each.parameters for each in parts.smalls if each.name in names)


def _saves_embedding(parts: Inventory, method: ResolvedLora | ResolvedQlora) -> bool:
    names = {_last(name) for name in method.modules_to_save}
    return bool(names & _EMBEDDINGS) or (bool(names & _HEADS) and parts.tied)


def _row_tables(parts: Inventory, method: ResolvedLora | ResolvedQlora) -> int:
    """Tables whose new rows are trained by themselves: embedding and head, unless they are trained whole."""
    names = {_last(name) for name in method.modules_to_save}
    if parts.tied:
        return 0 if names & (_EMBEDDINGS | _HEADS) else 1
    return (not names & _EMBEDDINGS) + (not names & _HEADS)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
