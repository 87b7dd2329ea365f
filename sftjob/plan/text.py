"""Numbers as people read them."""

from typing import Final

_GIB: Final = 2**30


def gib(size: float) -> str:
    """Bytes as GiB with three digits, or MiB where that would be nothing."""
    if abs(size) < 0.1 * _GIB:
        return f"{size / 2**20:,.0f} MiB"
    return f"{size / _GIB:,.1f} GiB"
