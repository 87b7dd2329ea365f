"""`sftjob run examples/gsm8k-lora.yaml`, shortened: killed halfway, finished by a second call, with folder and S3."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftjob.contract import keys
from sftjob.records import Export, read_record
from sftjob.storage import ObjectStore, fetch_files, list_commits, open_store
from sftjob.storage.base import ObjectInfo
from tests.s3_server import S3Server

pytestmark = [pytest.mark.train, pytest.mark.storage]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHORT = {
    "training.max_steps": "12",
    "training.save_steps": "4",
    "training.logging_steps": "2",
    "training.eval_steps": "12",
    "training.per_device_train_batch_size": "4",
    "training.max_length": "128",
    "evaluation.max_rows": "8",
    "evaluation.generation.held_out_rows": "2",
    "evaluation.generation.max_new_tokens": "16",
}
DEADLINE_SECONDS = 240


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if not (SHARED / "models" / "tiny-base").is_dir():
        pytest.skip("needs a base model and GSM8K in ../shared")
    if request.param == "folder":
        return {"storage.uri": str(tmp_path / "runs")}
    server: S3Server = request.getfixturevalue("s3_server")
    return {"storage.uri": f"s3://{server.bucket}/runs", "storage.endpoint_url": server.endpoint_url}


class TestGsm8k:
    def test_killed_halfway_it_finishes_from_the_last_commit(self, tmp_path: Path, storage: dict[str, str]) -> None:
        root = open_store(storage["storage.uri"], endpoint_url=storage.get("storage.endpoint_url"))
        with started(tmp_path, storage) as first:
            wait_for_commit(root, first)
            first.send_signal(signal.SIGKILL)
            first.wait()
        run_id = next(run_ids(root))
        store = root.at(run_id)
        before = list_commits(store)
        assert before
        assert not any(store.list(keys.SUCCESS))

        second = finished(tmp_path, storage)
        assert second.returncode == 0, second.stdout
        assert f"step {before[-1]}" in second.stdout
        assert "Exact match" in second.stdout
        export = read_record(Export, store.get_bytes(keys.SUCCESS), keys.SUCCESS)
        assert (export.step, export.adapter) == (12, True)
        assert list_commits(store)[-1] == 12
        fetch_files(store, export.files, tmp_path / "adapter")
        assert_reloads(tmp_path / "adapter")

        third = finished(tmp_path, storage)
        assert third.returncode == 0
        assert [info.key for info in store.list(keys.ATTEMPTS) if info.key.endswith("claim.json")] == [
            keys.claim(1),
            keys.claim(2),
        ]


def command(storage: dict[str, str]) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in {**SHORT, **storage}.items()]
    return [sys.executable, "-m", "sftjob.cli", "run", "examples/gsm8k-lora.yaml", *sets]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def started(tmp_path: Path, storage: dict[str, str]) -> "subprocess.Popen[bytes]":
    log = (tmp_path / "first.log").open("wb")
    with log:
        return subprocess.Popen(
            command(storage), cwd=ROOT, env=environment(tmp_path), stdout=log, stderr=subprocess.STDOUT
        )


def finished(tmp_path: Path, storage: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(storage),
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def wait_for_commit(root: ObjectStore, run: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not any(f"/{keys.COMMITS}" in info.key for info in listed(root)):
        assert run.poll() is None, "the run ended before its first commit"
        assert time.monotonic() < end, "no commit"
        time.sleep(0.1)


def run_ids(root: ObjectStore) -> Iterator[str]:
    return (info.key.partition("/")[0] for info in listed(root) if info.key.startswith("gsm8k-lora-"))


def listed(root: ObjectStore) -> Iterator[ObjectInfo]:
    yield from root.list()


def assert_reloads(adapter: Path) -> None:
    """By AutoModelForCausalLM and PEFT alone, as docs/evaluation.md says, in a process of its own."""
    code = textwrap.dedent("""
        import sys
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        base, adapter = sys.argv[1:]
        tokenizer = AutoTokenizer.from_pretrained(adapter)
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(len(tokenizer))
        model = PeftModel.from_pretrained(model, adapter)
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "2 + 2?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert model(**chat).logits.isfinite().all()
        assert any(part.abs().max() > 0 for name, part in model.named_parameters() if "lora_B" in name)
    """)
    arguments = [sys.executable, "-c", code, str(SHARED / "models" / "tiny-base"), str(adapter)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
