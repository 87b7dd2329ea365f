"""A model of 2 layers and 64 dimensions, rows that it can learn, and runs of the real worker over them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from sftjob.data.template import CHATML
from sftjob.plan import ModelFacts
from sftjob.records import Environment, Metric
from sftjob.resolve import ResolvedJob
from sftjob.resolve.deepspeed import deepspeed_config
from sftjob.resolved import (
    ResolvedExport,
    ResolvedFull,
    ResolvedLaunch,
    ResolvedLora,
    ResolvedMethod,
    ResolvedQlora,
    ResolvedTraining,
)
from sftjob.spec import Data, PinnedData, PinnedModel, Strategy
from sftjob.train.fault import _reached
from sftjob.train.workdir import RankInput, RankResult, WorkDir

BASE_VOCAB = 64
IM_START, IM_END = BASE_VOCAB, BASE_VOCAB + 1
VOCAB = BASE_VOCAB + 2
SEED = 7
SHARE_ALL = {
    "zero_optimization": {
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 0,
    }
}
"""ZeRO-3 keeps small tensors whole, and large ones while there is room: all of them, in a model of this size."""
FULL = ResolvedFull()
LORA = ResolvedLora(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear")
QLORA = ResolvedQlora(**LORA.model_dump(exclude={"type"}), bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def write_model(folder: Path, *, tied: bool = True, vocab_size: int = BASE_VOCAB) -> Path:
    """Random weights, float32, by default without rows for the two ChatML tokens."""
    import torch  # noqa: PLC0415 - seconds that only some tests need
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_experts(folder: Path) -> Path:
    """A mixture of four experts: transformers fuses their weights while it loads them."""
    import torch  # noqa: PLC0415
    from transformers import MixtralConfig, MixtralForCausalLM  # noqa: PLC0415

    torch.manual_seed(SEED)
    config = MixtralConfig(
        vocab_size=BASE_VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_local_experts=4,
        num_experts_per_tok=2,
        router_aux_loss_coef=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def write_data(folder: Path, *, rows: int = 24, held_out: int = 6) -> Path:
    """Rows whose answer is the prompt backwards; train.arrow, eval.arrow and a ChatML tokenizer."""
    draw = random.Random(SEED)
    made = [_row(draw) for _ in range(rows + held_out)]
    folder.mkdir(parents=True)
    _write_arrow(folder / "train.arrow", made[:rows])
    if held_out:
        _write_arrow(folder / "eval.arrow", made[rows:])
    _write_tokenizer(folder / "tokenizer")
    return folder


def write_rows(path: Path, rows: list[dict[str, list[int]]]) -> None:
    """Replaces prepared rows by `rows`."""
    path.unlink(missing_ok=True)
    _write_arrow(path, rows)


def _row(draw: random.Random) -> dict[str, list[int]]:
    prompt = [draw.randrange(10, 30) for _ in range(draw.randrange(2, 6))]
    ids = [IM_START, *prompt, IM_END, IM_START, *reversed(prompt), IM_END]
    labels = [-100] * (len(prompt) + 3) + ids[len(prompt) + 3 :]
    return {"input_ids": ids, "labels": labels}


def _write_arrow(path: Path, rows: list[dict[str, list[int]]]) -> None:
    table = pa.Table.from_pylist(
        rows, schema=pa.schema({name: pa.list_(pa.int32()) for name in ("input_ids", "labels")})
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _write_tokenizer(folder: Path) -> None:
    folder.mkdir()
    vocabulary = {"<|endoftext|>": 0, **{f"w{number}": number for number in range(1, BASE_VOCAB)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 64,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)


def job(
    method: ResolvedMethod = FULL,
    *,
    processes: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    strategy: Strategy | None = None,
    **training: Any,
) -> ResolvedJob:
    """24 rows in batches of 4: 6 steps an epoch, two epochs."""
    defaults: dict[str, Any] = {
        "num_train_epochs": 2.0,
        "max_steps": -1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 4,
        "max_length": 64,
        "seed": SEED,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "logging_steps": 2,
        "save_steps": 3,
        "save_total_limit": 2,
        "eval_steps": 4,
    }
    resolved = ResolvedTraining.model_validate({**defaults, **training})
    launch = ResolvedLaunch(
        nodes=1,
        processes_per_node=processes,
        device=device,
        strategy=strategy or ("ddp" if processes > 1 else "single"),
    )
    return ResolvedJob(
        run_id="tiny-00000000",
        name="tiny",
        model=PinnedModel(sha256="0" * 64, name="tiny-base"),
        facts=ModelFacts(
            architecture="LlamaForCausalLM", model_type="llama", vocab_size=64, hidden_size=64, num_hidden_layers=2
        ),
        data=Data(train=(PinnedData(sha256="1" * 64, name="rows.jsonl"),), template="chatml"),
        method=method,
        training=resolved,
        launch=launch.model_copy(update={"deepspeed": deepspeed_config(resolved, launch, SHARE_ALL)}),
    )


@dataclass(frozen=True)
class Run:
    """A work folder and what became of it."""

    work: WorkDir
    results: tuple[RankResult, ...] = ()
    output: str = ""
    returncode: int = 0

    @property
    def result(self) -> RankResult:
        return self.results[0]

    @property
    def metrics(self) -> list[Metric]:
        return [Metric.model_validate_json(line) for line in self.work.metrics.read_text().splitlines()]

    @property
    def losses(self) -> list[tuple[int, str]]:
        """Step and loss bits of every training line."""
        return [(line.step, line.loss_hex) for line in self.metrics if line.kind == "train"]

    @property
    def held_out(self) -> list[tuple[int, str]]:
        return [(line.step, line.loss_hex) for line in self.metrics if line.kind == "eval"]

    @property
    def environment(self) -> Environment:
        return Environment.model_validate_json(self.work.environment.read_bytes())

    @property
    def saved(self) -> dict[int, set[int]]:
        """Step → local ranks that have marked it."""
        found: dict[int, set[int]] = {}
        for path in self.work.checkpoints.glob("saved-*"):
            _, step, rank = path.name.split("-")
            found.setdefault(int(step), set()).add(int(rank))
        return found

    def weights(self) -> bytes:
        """The exported weights' file."""
        (path,) = self.work.export.glob("*.safetensors")
        return path.read_bytes()


def prepare(
    root: Path,
    resolved: ResolvedJob,
    *,
    model: Path,
    data: Path,
    resume: Path | None = None,
    attempt: int = 1,
    node: int = 0,
    export: ResolvedExport | None = None,
) -> WorkDir:
    """A work folder as the supervisor leaves it to the ranks."""
    root.mkdir(parents=True, exist_ok=True)
    work = WorkDir(root)
    work.job.write_bytes(resolved.to_json())
    given = RankInput(
        attempt=attempt,
        node=node,
        model=model,
        data=data,
        vocab_size=VOCAB,
        added_token_ids=(IM_START, IM_END),
        resume=resume,
        export=export or ResolvedExport(),
    )
    work.rank_input.write_bytes(given.to_json())
    return work


def interrupted_after(work: WorkDir, step: int) -> Run:
    """`run_here`, with a crash when optimizer step `step` is done."""
    return run_here(work, fault=f"step:raise:{step}")


def run_here(work: WorkDir, *, fault: str | None = None) -> Run:
    """The rank in this process: a subprocess would import torch for ten seconds."""
    from sftjob.train.worker import run_rank  # noqa: PLC0415

    settings = {} if fault is None else {"SFTJOB_FAULT": fault}
    _reached.clear()  # each run here stands for a process of its own
    with warnings.catch_warnings(), patch.dict(os.environ, settings):
        warnings.simplefilter("ignore")  # other libraries' advice is not what is tested here
        return Run(work, (run_rank(work, 0, 0, 1),))


def run_apart(
    work: WorkDir,
    *,
    processes: int = 1,
    fault: str | None = None,
    timeout: float = 900,
    module: str = "sftjob.train.worker",
) -> Run:
    """The worker as a process of its own, or `processes` of them under torchrun."""
    command = ["-m", module, "--work", str(work.root)]
    if processes > 1:
        torchrun = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}", "--max-restarts=0"]
        command = ["-m", "torch.distributed.run", *torchrun, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if fault is not None:
        environment["SFTJOB_FAULT"] = fault
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    results = [work.result(rank) for rank in range(processes)]
    read = tuple(RankResult.model_validate_json(path.read_bytes()) for path in results if path.exists())
    return Run(work, read, output, process.returncode)


def run_on_nodes(works: Sequence[WorkDir], meanwhile: Callable[[], None], *, timeout: float = 300) -> list[Run]:
    """One rank a node, each with a work folder of its own, as pods have."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    place = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": str(len(works))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "sftjob.train.worker", "--work", str(work.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **shared, **place, "RANK": str(rank)},
        )
        for rank, work in enumerate(works)
    ]
    try:
        meanwhile()
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [
        Run(work, (RankResult.model_validate_json(work.result(rank).read_bytes()),), output, process.returncode)
        for rank, (work, process, output) in enumerate(zip(works, processes, outputs, strict=True))
    ]


def wait_for(path: Path, *, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
