import errno
import subprocess
import sys

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import Diverged, Problem, SpecError
from sftjob.train.worker import library_environment, verdict
from tests.train import tiny


class TestVerdict:
    def test_own_errors_keep_code_and_text_on_one_line(self) -> None:
        assert verdict(Diverged("the loss is nan", hint="lower it"), None) == (80, "the loss is nan; lower it")
        two = SpecError([Problem(reason="first"), Problem(reason="second")])
        assert verdict(two, None) == (64, "first; second")

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            RuntimeError("[enforce fail at inline_container.cc:861] . PytorchStreamWriter failed writing file data/3"),
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 77440 vs 77328"),
            ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ],
        ids=["errno", "quota", "torch", "torch-end", "safetensors"],
    )
    def test_disk_full(self, error: Exception) -> None:
        code, reason = verdict(error, None)
        assert code == ExitCode.DISK_FULL
        assert "resources.ephemeral_storage" in reason

    def test_disk_full_behind_another_error(self) -> None:
        error = RuntimeError("could not save")
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        assert verdict(error, None)[0] == ExitCode.DISK_FULL

    def test_out_of_memory_names_batch_and_length(self) -> None:
        error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2 GiB")
        code, reason = verdict(error, tiny.job(per_device_train_batch_size=3, max_length=50))
        assert code == ExitCode.CRASH
        assert "3 rows of up to 50 tokens; lower training.per_device_train_batch_size" in reason

    def test_a_lost_peer_is_said_to_be_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, reason = verdict(RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:4711\nmore"), None)
        assert (code, reason) == (70, "another rank is gone: [gloo] Connection closed by peer [127.0.0.1]:4711")

    def test_a_bug_is_one_line_and_its_traceback_goes_to_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert verdict(KeyError("x"), None) == (70, "KeyError: 'x'")
        assert verdict(AssertionError(), None) == (70, "AssertionError")
        assert "KeyError" in capsys.readouterr().err


class TestLibraryEnvironment:
    def test_one_process_is_nobodys_peer_and_sees_one_gpu(self) -> None:
        given = {"RANK": "0", "CUDA_VISIBLE_DEVICES": "3,4"}
        made = library_environment(given, tiny.job(device="cuda"), 1)
        assert (made["RANK"], made["WORLD_SIZE"], made["CUDA_VISIBLE_DEVICES"]) == (None, None, "3")
        assert "DS_ACCELERATOR" not in made
        assert library_environment({}, tiny.job(device="cuda"), 1)["CUDA_VISIBLE_DEVICES"] == "0"

    def test_a_job_for_the_cpu_sees_no_gpu(self) -> None:
        for processes in (1, 2):
            made = library_environment({"CUDA_VISIBLE_DEVICES": "3,4"}, tiny.job(processes=processes), processes)
            assert made["CUDA_VISIBLE_DEVICES"] == ""

    def test_deepspeed_alone_has_a_rendezvous_of_one(self) -> None:
        made = library_environment({}, tiny.job(device="cuda", strategy="zero2"), 1)
        assert (made["RANK"], made["WORLD_SIZE"], made["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
        assert made["CUDA_VISIBLE_DEVICES"] == "0"

    def test_ranks_keep_torchruns_variables(self) -> None:
        made = library_environment({"RANK": "1"}, tiny.job(processes=2), 2)
        assert made == {
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }


def test_the_module_itself_imports_no_torch() -> None:
    """The variables above must be set before."""
    code = "import sys, sftjob.train.worker; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
