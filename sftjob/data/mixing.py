"""How many rows of each source a mix takes, and which: decided before anything is tokenised.

Nothing is interleaved here: training draws rows in an order of its own, from a seed.
"""

import random
from collections.abc import Sequence
from typing import Literal

StoppingStrategy = Literal["first_exhausted", "all_exhausted"]


def mixed_sizes(sizes: Sequence[int], weights: Sequence[float], strategy: StoppingStrategy) -> list[int]:
    """Rows that each source gives.

    The shares of the mix are as the weights, to the nearest row; one source gives exactly all of its rows. No source
    that has rows is left out for a small weight.

    Args:
        sizes: rows of each source, at least one each.
        weights: positive, of any sum.
        strategy: `first_exhausted` takes at most all rows of each source, `all_exhausted` at least all of them. The
            names are those of `datasets.interleave_datasets`.
    """
    choose = min if strategy == "first_exhausted" else max
    unit = choose(size / weight for size, weight in zip(sizes, weights, strict=True))
    return [max(1, round(unit * weight)) for weight in weights]


def chosen_rows(size: int, wanted: int, *, seed: int, source: int) -> list[int]:
    """How often each row of a source is in the mix: `wanted` rows in all, no two counts further apart than one.

    Args:
        size: rows of the source.
        wanted: rows that the mix takes from it.
        seed: of the mix.
        source: place of the source in the spec; each has its own choice.
    """
    copies, rest = divmod(wanted, size)
    counts = [copies] * size
    for row in random.Random(f"{seed} {source}").sample(range(size), rest):
        counts[row] += 1
    return counts
