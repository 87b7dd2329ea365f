"""Which rows share a pack: best-fit decreasing (https://arxiv.org/abs/2404.10830, section 3)."""

from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts rows into packs: longest first, each into the fullest pack that still has room for it.

    The same lengths give the same packs. A length costs a few operations on an integer of `capacity` bits.

    Args:
        lengths: tokens of each row, 1…`capacity`.
        capacity: tokens of a pack.

    Returns:
        Indices of rows, pack by pack, each index once. Packs come in the order in which they were begun, rows within a
        pack by length; rows of one length keep their order.

    Raises:
        ValueError: a row is empty or longer than a pack.
    """
    if lengths and not 1 <= min(lengths) <= max(lengths) <= capacity:
        raise ValueError(f"rows of {min(lengths)} to {max(lengths)} tokens do not fit packs of {capacity}")
    packs: list[list[int]] = []
    with_space: dict[int, list[list[int]]] = {}
    spaces = 0  # bit n is set while some pack has exactly n tokens of free space
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[index]
        if enough := spaces >> length:
            space = length + (enough & -enough).bit_length() - 1
            pack = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space = capacity
            pack = []
            packs.append(pack)
        pack.append(index)
        if left := space - length:
            with_space.setdefault(left, []).append(pack)
            spaces |= 1 << left
    return packs
