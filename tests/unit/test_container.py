import errno
import json
from pathlib import Path

import pytest

from sftjob import container
from sftjob.contract import ExitCode
from sftjob.errors import InputMissing, SpecError
from sftjob.spec import JobSpec


def make_spec(**changes: object) -> JobSpec:
    written = {
        "name": "job",
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
    }
    return JobSpec.model_validate_json(json.dumps(written | changes))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setattr(container, "TERMINATION_LOG", path)
    return path


class TestReadSpec:
    def test_what_is_not_there_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing, match=r"spec\.json: the spec cannot be read: No such file.*--spec"):
            container.read_spec(tmp_path / "spec.json")


class TestOpenRoot:
    def test_the_spec_decides_over_the_platform(self, tmp_path: Path) -> None:
        own = make_spec(storage={"uri": str(tmp_path / "mine")})

        assert container.open_root(own, "/theirs").uri == f"file://{tmp_path}/mine"
        assert container.open_root(make_spec(), str(tmp_path)).uri == f"file://{tmp_path}"

    def test_nowhere(self) -> None:
        with pytest.raises(SpecError, match=r"storage\.uri: no store is named"):
            container.open_root(make_spec(), None)


class TestLeaveMessage:
    def test_is_json(self, log: Path) -> None:
        log.touch()

        container.leave_message(ExitCode.DATA, "row 3", step=7)

        assert json.loads(log.read_text()) == {"exit_code": 65, "reason": "row 3", "step": 7}

    def test_fits_whatever_has_to_be_escaped(self, log: Path) -> None:
        log.touch()

        container.leave_message(ExitCode.DATA, 'é"' * 5000)

        assert len(log.read_bytes()) <= 4096
        assert json.loads(log.read_text())["reason"].startswith('é"')

    def test_outside_of_a_pod_nothing_is_written(self, log: Path) -> None:
        container.leave_message(ExitCode.DATA, "row 3")

        assert not log.exists()

    def test_a_log_that_cannot_be_written_is_told(
        self, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(_path: Path, _text: str) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        log.touch()
        monkeypatch.setattr(Path, "write_text", refuse)

        container.leave_message(ExitCode.DATA, "row 3")

        assert capsys.readouterr().err == f"{log} was not written: Read-only file system\n"
