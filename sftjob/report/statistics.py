"""The little statistics that a report of a small sample needs."""

import math
from typing import Final

Z_95: Final = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def wilson_interval(successes: int, trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a share; unlike the textbook interval it holds at 0, at 1 and for small samples.

    Source: Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953.

    Args:
        successes: 0 ≤ successes ≤ trials.
        trials: at least 1.
        z: quantile; the default gives 95 %.

    Returns:
        Lower and upper bound, each within [0, 1].

    Raises:
        ValueError: the counts are impossible.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no share")
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
