"""How fast one GPU trains the shape of Llama 3.1 8B, beside plain `SFTTrainer` and beside its own matrix products.

    python benchmarks/train_8b.py [--methods full lora qlora] [--length 4096] [--rows 2] [--steps 10] [--rounds 3]
    OMP_NUM_THREADS=2 python benchmarks/train_8b.py --shape tiny     # all of it on a CPU, in two minutes

Random weights, random tokens. Each method trains twice, through the code of a run (resolver, `load_base`, method,
`sft_config`, `RunTrainer`) and through `SFTTrainer` with the arguments it comes with; arms take turns. Rows are of
equal length, and once more as long as those of chats (`lengths.py`), where ours are packed and plain's are padded. The
weights are written to a temporary folder first, 16 GB for the 8B shape: $TMPDIR chooses the disk.

Goals on an H100 or H200, equal lengths: LoRA at 0.55 of the ceiling or more, and 1.35 times plain or more.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import torch
import transformers
from datasets import Dataset
from flops import Counts, flops_per_token
from lengths import lognormal_lengths
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from sftjob.data.packing import best_fit_decreasing
from sftjob.methods import BaseName, fine_tuning, load_base
from sftjob.plan import estimate, model_facts
from sftjob.plan.inventory import inventory
from sftjob.plan.trainable import trainable
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec
from sftjob.train.arguments import sft_config
from sftjob.train.callbacks import RunCallback
from sftjob.train.gang import Gang, RankPlace
from sftjob.train.ledger import Ledger, LedgerState
from sftjob.train.trainer import RunTrainer
from sftjob.train.workdir import WorkDir

SHAPES: Final[dict[str, dict[str, Any]]] = {
    "8b": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
    },
    "tiny": {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    },
}
WARM_UP: Final = 2
"""First steps, which are not measured."""
CEILING_GOAL: Final = 0.55
PLAIN_GOAL: Final = 1.35
ON_GPU: Final = torch.cuda.is_available()


@dataclass(frozen=True)
class Rows:
    """The same documents twice."""

    name: str
    lengths: tuple[int, ...]
    packs: Dataset
    rows: Dataset
    rows_per_batch: int
    """Of plain, so that a batch has about as many real tokens as one of packs."""


@dataclass(frozen=True)
class Measured:
    tokens_per_second: float
    """Real tokens."""
    peak_bytes: int | None
    """Of tensors; None on a CPU."""


class Meter(TrainerCallback):
    """Counts the real tokens of each batch, and notes when each step has ended on the device."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self._tokens: list[int] = []
        self._ends: list[float] = []
        self._collate = trainer.data_collator
        trainer.data_collator = self._counted
        trainer.add_callback(self)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if ON_GPU:
            torch.cuda.synchronize()
        self._ends.append(time.perf_counter())

    def tokens_per_second(self) -> float:
        """Of the steps after the warm-up; batches are made ahead of them, in the same order."""
        tokens = sum(self._tokens[WARM_UP : len(self._ends)])
        return tokens / (self._ends[-1] - self._ends[WARM_UP - 1])

    def _counted(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        self._tokens.append(sum(len(row["input_ids"]) for row in rows))
        batch: dict[str, Any] = self._collate(rows)
        return batch


def main() -> None:
    options = arguments()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", options.shape)
        kinds = [make_rows(name, options) for name in ("equal", "chat")]
        arms: dict[tuple[str, str, str], Callable[[], SFTTrainer]] = {}
        for rows in kinds:
            for method in options.methods:
                arms[rows.name, method, "sftjob"] = lambda r=rows, m=method: ours(model, r, m, options)
                arms[rows.name, method, "plain"] = lambda r=rows, m=method: plain(model, r, m, options)
        rounds: dict[tuple[str, str, str], list[Measured]] = {arm: [] for arm in arms}
        ceilings = []
        for _ in range(options.rounds):
            ceilings.append(matmul_flops())
            for arm, make in arms.items():
                rounds[arm].append(measure(make))
                print(
                    f"{', '.join(arm)}: {rounds[arm][-1].tokens_per_second:,.0f} tokens/s", file=sys.stderr, flush=True
                )
        report(rounds, kinds, statistics.median(ceilings), options, json.loads((model / "config.json").read_text()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--methods", nargs="+", choices=("full", "lora", "qlora"), default=["full", "lora", "qlora"])
    parser.add_argument("--optim", help="of full fine-tuning; by default adamw_8bit on a GPU")
    parser.add_argument("--length", type=int, help="tokens of a row; 4096, tiny: 128")
    parser.add_argument("--rows", type=int, default=2, help="rows or packs a batch")
    parser.add_argument("--steps", type=int, default=10, help=f"measured steps an arm, after {WARM_UP} others")
    parser.add_argument("--rounds", type=int, default=3, help="each arm runs once a round; medians count")
    parser.add_argument("--checkpointing", choices=("on", "off"), help="gradient checkpointing of ours")
    options = parser.parse_args()
    options.length = options.length or (4096 if options.shape == "8b" else 128)
    options.optim = options.optim or ("adamw_8bit" if ON_GPU else "adamw_torch_fused")
    if options.shape == "8b" and not ON_GPU:
        parser.error("the 8B shape needs a CUDA GPU; --shape tiny runs on a CPU")
    return options


def write_model(folder: Path, shape: str) -> Path:
    """Random weights as a model folder: QLoRA quantises while it loads."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=False)
    with torch.device("cuda" if ON_GPU else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if ON_GPU else torch.float32)
    model.save_pretrained(folder)
    del model
    free()
    return folder


def make_rows(name: str, options: argparse.Namespace) -> Rows:
    """Tokens without meaning, enough for all steps; all but a document's first are trained."""
    draw, vocabulary = random.Random(0), SHAPES[options.shape]["vocab_size"]
    needed = (WARM_UP + options.steps) * options.rows
    if name == "equal":
        lengths = [options.length] * needed
    else:
        lengths = [min(each, options.length) for each in lognormal_lengths(needed * options.length // 64, 0)]
    ids = [[draw.randrange(1, vocabulary) for _ in range(length)] for length in lengths]
    packs = best_fit_decreasing(lengths, options.length)
    random.Random(1).shuffle(packs)
    return Rows(
        name=name,
        lengths=tuple(lengths),
        packs=Dataset.from_dict(
            {
                "input_ids": [[token for index in pack for token in ids[index]] for pack in packs],
                "labels": [[token for index in pack for token in (-100, *ids[index][1:])] for pack in packs],
                "seq_lengths": [[lengths[index] for index in pack] for pack in packs],
            }
        ),
        rows=Dataset.from_dict({"input_ids": ids, "labels": [[-100, *row[1:]] for row in ids]}),
        rows_per_batch=max(1, options.rows * len(lengths) // len(packs)),
    )


def ours(model: Path, rows: Rows, method_name: str, options: argparse.Namespace) -> RunTrainer:
    """The trainer of a run."""
    job = make_job(model, method_name, options)
    work = WorkDir(model.parent / "work")
    method, precision = fine_tuning(job.method), job.training.precision
    base = load_base(
        model,
        vocab_size=0,
        dtype=method.base_dtype(precision),
        seed=0,
        quantization=method.quantization(precision),
    )
    trainer = RunTrainer(
        model=method.prepare(base, base=BaseName(name="benchmark"), added_token_ids=()),
        method=method,
        args=sft_config(job, work, held_out=False, evaluate_first=False),
        train_rows=rows.packs,
        held_out_rows=None,
        tokenizer=make_tokenizer(),
        ledger=Ledger(LedgerState(train_rows=len(rows.packs))),
        gang=Gang(RankPlace(rank=0, local_rank=0, world_size=1), work.preempt),
        callbacks=[],
    )
    trainer.add_callback(RunCallback(trainer, work, lambda: None))
    trainer.add_callback(NoSave())
    return trainer


class NoSave(TrainerCallback):
    """The last step's checkpoint of a full fine-tuning is 48 GB, and nobody continues a benchmark."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save = False
        return control


def make_job(model: Path, method: str, options: argparse.Namespace) -> ResolvedJob:
    training: dict[str, Any] = {
        "max_steps": WARM_UP + options.steps,
        "max_length": options.length,
        "packing": True,
        "per_device_train_batch_size": options.rows,
        "gradient_accumulation_steps": 1,
    }
    if method == "full":
        training["optim"] = options.optim
    if options.checkpointing:
        training["gradient_checkpointing"] = options.checkpointing == "on"
    spec = {
        "name": "benchmark",
        "model": {"path": str(model)},
        "data": {"train": [{"path": "rows.jsonl"}], "template": "chatml"},
        "method": {"type": method},
        "training": training,
        "launch": {"gpus_per_node": int(ON_GPU)},
    }
    facts = model_facts(json.loads((model / "config.json").read_text()))
    return resolve(JobSpec.model_validate_json(json.dumps(spec)), facts)


def plain(model: Path, rows: Rows, method_name: str, options: argparse.Namespace) -> SFTTrainer:
    """TRL's trainer as it comes, on the same base and with adapters of the same size."""
    job = make_job(model, method_name, options)
    method, precision = fine_tuning(job.method), job.training.precision
    dtype = torch.bfloat16 if ON_GPU else torch.float32
    base = load_base(model, vocab_size=0, dtype=dtype, seed=0, quantization=method.quantization(precision))
    adapters = (
        None
        if job.method.type == "full"
        else LoraConfig(
            r=job.method.r, lora_alpha=job.method.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    )
    args = SFTConfig(
        output_dir=str(model.parent / "plain"),
        max_steps=WARM_UP + options.steps,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=rows.rows_per_batch,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not ON_GPU,
        bf16=ON_GPU,
        **({"optim": options.optim} if method_name == "full" else {}),
    )
    return SFTTrainer(
        model=base, args=args, train_dataset=rows.rows, processing_class=make_tokenizer(), peft_config=adapters
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Knows one token, which fills up rows: these are tokens already."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"</s>": 0})), eos_token="</s>")


def measure(make: Callable[[], SFTTrainer]) -> Measured:
    free()
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    trainer = make()
    trainer.remove_callback(PrinterCallback)
    meter = Meter(trainer)
    trainer.train()
    return Measured(meter.tokens_per_second(), torch.cuda.max_memory_allocated() if ON_GPU else None)


def matmul_flops() -> float:
    """FLOP/s of square matrix products in this process: 8192 in bf16 on a GPU, 2048 in float32 on a CPU. Best of 5."""
    size, dtype, device = (8192, torch.bfloat16, "cuda") if ON_GPU else (2048, torch.float32, "cpu")
    one, other = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    times = []
    for _ in range(6):
        if ON_GPU:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(20 if ON_GPU else 1):
            one @ other
        if ON_GPU:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / (20 if ON_GPU else 1))
    return float(2 * size**3 / min(times[1:]))


def report(
    rounds: dict[tuple[str, str, str], list[Measured]],
    kinds: Sequence[Rows],
    ceiling: float,
    options: argparse.Namespace,
    config: dict[str, Any],
) -> None:
    """One Markdown table. `spread` is the whole range of the rounds as a share of their median."""
    device = torch.cuda.get_device_name() if ON_GPU else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}; {options.shape} shape, {options.length} tokens a row, {options.rows} rows a batch")
    print(f"ceiling: {ceiling / 1e12:.2f} TFLOP/s of matrix products\n")
    head = ("rows", "method", "trainer", "tokens/s", "spread", "TFLOP/s", "of ceiling", "peak", "planned", "x plain")
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    lengths = {rows.name: rows.lengths for rows in kinds}
    for (kind, method, trainer), measured in rounds.items():
        job = make_job_of(config, method, options)
        rate = statistics.median(each.tokens_per_second for each in measured)
        flops = rate * flops_per_token(counts(job), lengths[kind])
        others = rounds[kind, method, "plain"]
        ratio = statistics.median(
            a.tokens_per_second / b.tokens_per_second for a, b in zip(measured, others, strict=True)
        )
        span = max(each.tokens_per_second for each in measured) - min(each.tokens_per_second for each in measured)
        planned = estimate(job.facts, job.method, job.training, job.launch).tensors if trainer == "sftjob" else None
        cells = (
            kind, method, trainer, f"{rate:,.0f}", f"{span / rate:.2f}", f"{flops / 1e12:.3g}",
            f"{flops / ceiling:.3f}", gib(measured[-1].peak_bytes), gib(planned), f"{ratio:.2f}",
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    print(f"\ngoals for LoRA, equal rows, on an H100 or H200: of ceiling >= {CEILING_GOAL}, x plain >= {PLAIN_GOAL}")


def make_job_of(config: dict[str, Any], method: str, options: argparse.Namespace) -> ResolvedJob:
    """As `make_job`, when the model's folder is gone."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return make_job(Path(folder), method, options)


def counts(job: ResolvedJob) -> Counts:
    parts = inventory(job.facts)
    adapters = 0 if job.method.type == "full" else trainable(parts, job.method).adapters
    return Counts(
        linear=parts.linear_weights,
        head=job.facts.hidden_size * job.facts.vocab_size,
        layers=job.facts.num_hidden_layers,
        width=job.facts.num_attention_heads * job.facts.head_dim,
        adapters=adapters,
    )


def gib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f} GiB"  # noqa: RUF001 - the dash of an empty cell


def free() -> None:
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def quiet() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.disable_caching()


if __name__ == "__main__":
    main()
