"""What packing is worth in training: real tokens a second beside plain `SFTTrainer` and beside TRL's own packing.

    OMP_NUM_THREADS=2 python benchmarks/packing.py [--steps 12] [--rounds 3] [--rows 4000] [--seed 0]

Five trainers take the same rows (`lengths.py`) and the same small Llama (hidden 256, 4 layers, 8,192 tokens, fp32), one
after another in one process, full fine-tuning with AdamW, no checkpoint in the measured steps:

    plain       SFTTrainer(packing=False), 8 rows a batch
    TRL         SFTTrainer(packing=True, packing_strategy="bfd"), 1 and 2 packs of 512 tokens, which it joins to one row
    unpacked    ours, 8 rows
    packed      ours, 2 packs: about the real tokens of 8 rows

Ratios of one process are comparable, tokens a second of a shared machine are not; run it while nothing else does.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from lengths import LONGEST, lognormal_lengths
from tokenizers import Tokenizer, models
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from sftjob.data.packing import best_fit_decreasing
from sftjob.methods import BaseName, fine_tuning
from sftjob.plan import ModelFacts
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec
from sftjob.train.arguments import sft_config
from sftjob.train.callbacks import RunCallback
from sftjob.train.collate import NOT_FOR_THE_MODEL, SEQ_LENGTHS, Collator, Row
from sftjob.train.gang import Gang, RankPlace
from sftjob.train.isolation import check_isolation
from sftjob.train.ledger import Ledger, LedgerState
from sftjob.train.trainer import RunTrainer
from sftjob.train.workdir import WorkDir

VOCABULARY = 8192
ROWS, PACKS = 8, 2
"""A batch without and with packing."""
WARM_UP = 2
"""First steps, which are not measured."""
FACTS = ModelFacts(
    architecture="LlamaForCausalLM",
    model_type="llama",
    vocab_size=VOCABULARY,
    hidden_size=256,
    num_hidden_layers=4,
    max_position_embeddings=LONGEST,
)


class Meter(TrainerCallback):
    """Counts what a trainer's collator puts into each batch, and when each step ends."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self._real: list[int] = []
        self._cells: list[int] = []
        self._ends: list[float] = []
        self._collate = trainer.data_collator
        trainer.data_collator = self._counted
        trainer.add_callback(self)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._ends.append(time.perf_counter())

    def result(self) -> "Measured":
        """Of the steps after the warm-up; batches are made ahead of them, in the same order."""
        steps = slice(WARM_UP, len(self._ends))
        real, cells = sum(self._real[steps]), sum(self._cells[steps])
        return Measured(real / (self._ends[-1] - self._ends[WARM_UP - 1]), real / cells)

    def _counted(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._collate(rows)
        self._real.append(sum(len(row["input_ids"]) for row in rows))
        self._cells.append(batch["input_ids"].numel())
        return batch


@dataclass(frozen=True)
class Measured:
    tokens_per_second: float
    """Real tokens: those of rows."""
    fill: float
    """Share of a batch's cells that are real tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help=f"measured steps a trainer, after {WARM_UP} others")
    parser.add_argument("--rounds", type=int, default=3, help="each trainer runs once a round; medians count")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _quiet()
    rows = make_rows(options.rows, options.seed)
    packs = pack(rows)
    steps = WARM_UP + options.steps
    trainers: dict[str, Callable[[str], SFTTrainer]] = {
        "plain": lambda folder: theirs(rows, folder, steps, per_device_train_batch_size=ROWS),
        **{
            f"TRL, {count} pack": lambda folder, count=count: theirs(
                rows, folder, steps, packing=True, packing_strategy="bfd", per_device_train_batch_size=count
            )
            for count in (1, PACKS)
        },
        "unpacked": lambda folder: ours(rows, folder, steps, packing=False),
        "packed": lambda folder: ours(packs, folder, steps, packing=True),
    }
    rounds = [{name: measure(make) for name, make in trainers.items()} for _ in range(options.rounds)]
    print_table(rounds)
    fill = sum(map(sum, packs["seq_lengths"])) / (len(packs) * LONGEST)
    print(f"fill of all packs                            {fill:.4f}, goal 0.97")
    difference = max(loss_difference(packs[len(packs) - 1 - index]) for index in range(4))  # of several documents
    print(f"loss of a row, packed and alone              {difference:.1e} apart, goal 1e-5")


def make_rows(count: int, seed: int) -> Dataset:
    """Tokens without meaning; every one but the first is trained."""
    draw = random.Random(seed)
    ids = [[draw.randrange(1, VOCABULARY) for _ in range(length)] for length in lognormal_lengths(count, seed)]
    return Dataset.from_dict({"input_ids": ids, "labels": [[-100, *row[1:]] for row in ids]})


def pack(rows: Dataset) -> Dataset:
    """The same rows in packs."""
    ids, labels = list(rows["input_ids"]), list(rows["labels"])
    packs = best_fit_decreasing([len(row) for row in ids], LONGEST)
    return Dataset.from_dict(
        {
            "input_ids": [[token for index in pack for token in ids[index]] for pack in packs],
            "labels": [[label for index in pack for label in labels[index]] for pack in packs],
            "seq_lengths": [[len(ids[index]) for index in pack] for pack in packs],
        }
    )


def theirs(rows: Dataset, folder: str, steps: int, **options: Any) -> SFTTrainer:
    """TRL's trainer as it comes, without gradient checkpointing."""
    packing = bool(options.get("packing"))
    args = SFTConfig(
        output_dir=folder,
        max_steps=steps,
        max_length=LONGEST if packing else None,
        dataset_kwargs=None if packing else {"skip_prepare_dataset": True},
        learning_rate=2e-5,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    return SFTTrainer(model=make_model(), args=args, train_dataset=rows, processing_class=make_tokenizer())


def ours(rows: Dataset, folder: str, steps: int, *, packing: bool) -> RunTrainer:
    """The trainer of a run, with the callback that keeps its ledger, and the probe where rows are packed."""
    job = make_job(steps, packing=packing)
    work = WorkDir(Path(folder))
    method = fine_tuning(job.method)
    trainer = RunTrainer(
        model=method.prepare(make_model(), base=BaseName(name="benchmark"), added_token_ids=()),
        method=method,
        args=sft_config(job, work, held_out=False, evaluate_first=False),
        train_rows=rows,
        held_out_rows=None,
        tokenizer=make_tokenizer(),
        ledger=Ledger(LedgerState(train_rows=len(rows))),
        gang=Gang(RankPlace(rank=0, local_rank=0, world_size=1), work.preempt),
        callbacks=[],
    )
    trainer.add_callback(RunCallback(trainer, work, lambda: None))
    if packing:
        check_isolation(trainer.model, trainer.data_collator)
    return trainer


def make_job(steps: int, *, packing: bool) -> ResolvedJob:
    spec = {
        "name": "benchmark",
        "model": {"path": "model"},
        "data": {"train": [{"path": "rows.jsonl"}], "template": "chatml"},
        "method": {"type": "full"},
        "training": {
            "max_steps": steps,
            "max_length": LONGEST,
            "packing": packing,
            "per_device_train_batch_size": PACKS if packing else ROWS,
            "learning_rate": 2e-5,
        },
        "launch": {"gpus_per_node": 0},
    }
    return resolve(JobSpec.model_validate_json(json.dumps(spec)), FACTS)


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=FACTS.hidden_size,
        intermediate_size=688,
        num_hidden_layers=FACTS.num_hidden_layers,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Knows one token, which fills up rows: these are tokens already."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"</s>": 0})), eos_token="</s>")


def measure(make: Callable[[str], SFTTrainer]) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(folder)
        trainer.remove_callback(PrinterCallback)
        meter = Meter(trainer)
        trainer.train()
    return meter.result()


def print_table(rounds: list[dict[str, Measured]]) -> None:
    speed = {name: statistics.median(each[name].tokens_per_second for each in rounds) for name in rounds[0]}
    print(f"| {'trainer':<10} | real tokens/s | share of plain | of a batch real |")
    print(f"| {'-' * 10} | ------------- | -------------- | --------------- |")
    for name, value in speed.items():
        share = f"{value / speed['plain']:.2f}"
        print(f"| {name:<10} | {value:<13,.0f} | {share:<14} | {rounds[0][name].fill:<15.3f} |")
    padding = 1 / rounds[0]["plain"].fill
    of_plain = statistics.median(each["packed"].tokens_per_second / each["plain"].tokens_per_second for each in rounds)
    theirs = [name for name in speed if name.startswith("TRL")]
    of_trl = statistics.median(
        each["packed"].tokens_per_second / max(each[name].tokens_per_second for name in theirs) for each in rounds
    )
    print(f"\nR* (cells / real tokens of plain's batches)  {padding:.2f}")
    print(f"packed / plain                               {of_plain:.2f}, goal {0.85 * padding:.2f} (0.85 R*)")
    print(f"packed / the better of TRL's                 {of_trl:.2f}, goal 1.35")


def loss_difference(pack: Row) -> float:
    """Largest over the documents of a pack: mean loss in the pack and outside of it."""
    model = make_model().eval()
    packed = token_losses(model, pack)
    start, differences = 0, []
    for length in pack[SEQ_LENGTHS]:
        document = {name: pack[name][start : start + length] for name in ("input_ids", "labels")}
        alone = token_losses(model, document).mean()
        differences.append(abs(float(packed[start : start + length - 1].mean() - alone)))
        start += length
    return max(differences)


@torch.no_grad()
def token_losses(model: LlamaForCausalLM, row: Row) -> torch.Tensor:
    """[tokens - 1], float64: of each next token; 0 where it is not trained."""
    batch = Collator(pad_token_id=0)([row])
    logits = model(**{name: batch[name] for name in batch.keys() - NOT_FOR_THE_MODEL}, use_cache=False).logits
    return functional.cross_entropy(logits[0, :-1].double(), batch["labels"][0, 1:], reduction="none")


def _quiet() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.disable_caching()


if __name__ == "__main__":
    main()
