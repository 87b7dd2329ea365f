"""Rows as long as those of many chat data sets: lognormal, median 96 tokens, sigma 0.8, cut to 16…512."""

import math
import random

LONGEST = 512
_MEDIAN, _SIGMA, _SHORTEST = 96, 0.8, 16


def lognormal_lengths(count: int, seed: int) -> list[int]:
    """`count` lengths in tokens."""
    draw = random.Random(seed)
    drawn = (round(draw.lognormvariate(math.log(_MEDIAN), _SIGMA)) for _ in range(count))
    return [min(max(length, _SHORTEST), LONGEST) for length in drawn]
