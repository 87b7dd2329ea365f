"""Numbers as people read them."""

import math


def count(value: int) -> str:
    """1234567 → `1,234,567`."""
    return f"{value:,}"


def share(value: float) -> str:
    """0.753 → `75.3 %`; small shares keep two significant digits."""
    percent = value * 100
    if 0 < percent < 0.1:
        return f"{percent:.2g} %"
    return f"{percent:.2f} %" if 0 < percent < 1 else f"{percent:.1f} %"


def loss(value: float) -> str:
    return f"{value:.4f}"


def perplexity(value: float) -> str:
    """Four significant digits; `> 10^6` where more would only be noise."""
    if value >= 1e6:
        return f"> 10^{min(int(math.log10(value)), 308)}"
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """5025.2 → `1 h 23 min 45 s`; below a minute one decimal: `42.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def size(value: float) -> str:
    """1610612736 → `1.50 GiB`."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def small(value: float) -> str:
    """Learning rates and norms: three significant digits."""
    return f"{value:.3g}"


def plural(number: int, one: str, many: str = "") -> str:
    """`1 row`, `20 rows`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def enumeration(words: "tuple[str, ...]") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
