"""How long it takes to decide which rows share a pack, and how many packs come out, beside TRL's `packing="bfd"`.

    python benchmarks/pack_rows.py [--rows 100000] [--rounds 3] [--seed 0]

TRL packs inside `Dataset.map` and copies the tokens too; so three times are printed: ours, TRL's function on an Arrow
table of one column, and its whole `pack_dataset`. Best of the rounds. What ours leaves out, the copying, is in prepare.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import datasets
import pyarrow as pa
from lengths import LONGEST, lognormal_lengths
from trl.data_utils import _pack_bfd, pack_dataset

from sftjob.data.packing import best_fit_decreasing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    datasets.disable_caching()
    lengths = lognormal_lengths(options.rows, options.seed)
    table = pa.table({"input_ids": pa.array([[0] * length for length in lengths], pa.list_(pa.int32()))})
    rows = datasets.Dataset(table)
    arms: dict[str, Callable[[], Any]] = {
        "sftjob, which rows share a pack": lambda: best_fit_decreasing(lengths, LONGEST),
        "TRL, its function on one column": lambda: _pack_bfd(table, LONGEST),
        "TRL, pack_dataset": lambda: pack_dataset(rows, LONGEST, "bfd", map_kwargs={"batch_size": None}),
    }
    results = {name: [_timed(pack) for _ in range(options.rounds)] for name, pack in arms.items()}
    print(f"{options.rows:,} rows, {sum(lengths):,} tokens, packs of {LONGEST}\n")
    print(f"| {'':<31} | seconds | packs  | fill   |\n| {'-' * 31} | ------- | ------ | ------ |")
    for name, rounds in results.items():
        packs = len(rounds[0][1])
        fill = sum(lengths) / (packs * LONGEST)
        print(f"| {name:<31} | {min(seconds for seconds, _ in rounds):<7.3f} | {packs:<6} | {fill:.4f} |")


def _timed(pack: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    packs = pack()
    return time.perf_counter() - start, packs


if __name__ == "__main__":
    main()
