"""`python -m sftjob.train` with real ranks and a folder as the store: killed, interrupted, and continued."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from sftjob.contract import ExitCode, keys
from sftjob.records import Export, Metric, Result, read_record
from sftjob.storage import FolderStore, list_commits, read_commit
from sftjob.train.processes import descendants

pytestmark = pytest.mark.train

VOCABULARY = 64
HIDDEN = 32
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def write_model(folder: Path) -> None:
    """Random weights, without torch."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    words = {"<eos>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "model_max_length": 64})
    )
    draw = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": ()}
    for layer in range(2):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qo"}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (HIDDEN // 2, HIDDEN) for name in "kv"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (48, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (HIDDEN, 48)}
        shapes |= {f"{at}.{name}_layernorm.weight": () for name in ("input", "post_attention")}
    save_file(
        {
            name: draw.normal(0, 0.1, shape).astype(np.float32) if shape else np.ones(HIDDEN, np.float32)
            for name, shape in shapes.items()
        },
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def write_rows(path: Path) -> None:
    """24 rows whose answer is the prompt backwards."""
    draw = random.Random(7)
    with path.open("w") as file:
        for _ in range(24):
            words = [f"w{draw.randrange(10, 30)}" for _ in range(draw.randrange(2, 6))]
            row = {"prompt": " ".join(words), "completion": " ".join(reversed(words))}
            file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Place:
    """A spec and everything it names, in a folder."""

    folder: Path

    def begin(self, *, fault: str = "") -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return subprocess.Popen(
            [sys.executable, "-m", "sftjob.train", "--spec", self.folder / "spec.json", "--work", self.folder / "work"],
            env={**environment, "SFTJOB_FAULT": fault} if fault else environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, *, fault: str = "") -> tuple[int, str]:
        """One attempt: exit code and what it printed."""
        process = self.begin(fault=fault)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    @property
    def store(self) -> FolderStore:
        (run,) = (self.folder / "store").glob("tiny-*")
        return FolderStore(run)

    @property
    def losses(self) -> dict[int, str]:
        """Bits of the loss by step; a later attempt's lines replace those of an earlier one."""
        lines = [
            Metric.model_validate_json(line)
            for info in self.store.list(keys.METRICS)
            for line in self.store.get_bytes(info.key).splitlines()
        ]
        return {line.step: line.loss_hex for line in lines if line.kind == "train"}

    @property
    def export(self) -> Export:
        return read_record(Export, self.store.get_bytes(keys.SUCCESS), keys.SUCCESS)

    def result(self, attempt: int) -> Result:
        return read_record(Result, self.store.get_bytes(keys.result(attempt, 0)), "result")

    def wait_for_commit(self, process: "subprocess.Popen[str]", step: int) -> None:
        """Until a commit of this step or a later one is there: older ones are soon deleted."""
        deadline = time.monotonic() + 240
        while max((int(path.stem) for path in self.folder.glob("store/tiny-*/commits/*.json")), default=0) < step:
            assert process.poll() is None, process.communicate()[0]
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"no commit of step {step}: {process.communicate()[0]}")
            time.sleep(0.01)

    def alive(self) -> list[str]:
        """Command lines of processes that work in this place."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(self.folder / "work") in line:
                found.append(line)
        return found

    def wait_until_nobody_is_left(self) -> None:
        deadline = time.monotonic() + 30
        while left := self.alive():
            assert time.monotonic() < deadline, left
            time.sleep(0.01)


def place(folder: Path, *, processes: int = 1, **training: Any) -> Place:
    """12 steps in two epochs, a checkpoint every 3."""
    folder.mkdir(exist_ok=True)
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl")
    defaults = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4 // processes,
        "logging_steps": 1,
        "save_steps": 3,
        "learning_rate": 0.01,
        "max_length": 64,
    }
    spec = {
        "name": "tiny",
        "model": {"path": str(folder / "model")},
        "data": {"train": [{"path": str(folder / "rows.jsonl")}], "template": "chatml"},
        "method": {"type": "lora", "r": 4, "lora_dropout": 0.1},
        "launch": {"gpus_per_node": 0, "processes_per_node": processes},
        "training": {**defaults, **training},
        "storage": {"uri": str(folder / "store")},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return Place(folder)


def test_killed_halfway_it_ends_with_the_same_bits_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, halved = place(tmp_path / "whole"), place(tmp_path / "halved")
    assert whole.play()[0] == ExitCode.DONE

    process = halved.begin(fault="saved:sleep:3")
    halved.wait_for_commit(process, 9)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    halved.wait_until_nobody_is_left()
    code, output = halved.play()

    assert code == ExitCode.DONE, output
    assert "continuing from step 9 (attempt 1)" in output
    assert list(whole.losses) == list(range(1, 13))
    assert halved.losses == whole.losses
    assert {entry.path: entry.sha256 for entry in halved.export.files if entry.path.endswith(".safetensors")} == {
        entry.path: entry.sha256 for entry in whole.export.files if entry.path.endswith(".safetensors")
    }
    assert (halved.export.attempt, halved.export.step, halved.export.adapter) == (2, 12, True)
    assert halved.play()[0] == ExitCode.DONE
    assert list_commits(halved.store) == [9, 12]


def test_sigterm_is_a_commit_of_the_step_it_stopped_at_and_75(tmp_path: Path) -> None:
    long = place(tmp_path / "long", num_train_epochs=5000, save_steps=5)
    process = long.begin()
    long.wait_for_commit(process, 5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED, output
    assert not long.alive()
    step = list_commits(long.store)[-1]
    assert long.result(1).step == step
    assert step % 5 or f"committed step {step} " in output
    assert "sftjob_state.json" in {entry.path for entry in read_commit(long.store, step).files}


def test_a_killed_rank_of_two_is_named_and_the_next_attempt_finishes(tmp_path: Path) -> None:
    pair = place(tmp_path / "pair", processes=2)
    code, output = pair.play(fault="step:kill:5:1")
    assert code == ExitCode.CRASH, output
    assert "error: rank 1 was killed by signal 9 (out of memory?)" in output
    assert not pair.alive()
    assert list_commits(pair.store) == [3]

    code, output = pair.play()
    assert code == ExitCode.DONE, output
    assert "continuing from step 3" in output
    assert list(pair.losses) == list(range(1, 13))


def test_a_killed_torchrun_takes_its_ranks_along(tmp_path: Path) -> None:
    pair = place(tmp_path / "pair", processes=2)
    process = pair.begin(fault="step:sleep:5")
    pair.wait_for_commit(process, 3)
    (torchrun,) = descendants(process.pid) - {
        below for child in descendants(process.pid) for below in descendants(child)
    }
    os.kill(torchrun, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.CRASH, output
    assert not pair.alive()
