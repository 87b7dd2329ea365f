import subprocess
import sys
from pathlib import Path

import pytest

from sftjob import cli

SPEC = """\
name: job
model: {hub: a/b, revision: "0123456789012345678901234567890123456789"}
data: {train: [{uri: "s3://bucket/rows.jsonl"}]}
method: {type: lora}
storage: {uri: "s3://bucket/runs"}
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["sftjob", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


class TestMain:
    def test_every_mistake_is_a_line_and_the_code_is_64(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(SPEC.replace("name: job", "name: Job").replace("lora", "lorra"))
        assert call(monkeypatch, "validate", path) == 64
        told = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[:3] for line in told] == [
            ["error", f"{path}:1", "name"],
            ["error", f"{path}:4", "method.type"],
        ]

    @pytest.mark.parametrize(
        "arguments", [["runn"], ["run"], ["validate", "--nope", "x"]], ids=["command", "missing", "option"]
    )
    def test_a_wrong_command_line_is_64(
        self, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(monkeypatch, *arguments) == 64
        assert "Traceback" not in capsys.readouterr().err

    def test_a_missing_spec_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(monkeypatch, "run", tmp_path / "no.yaml") == 64
        assert capsys.readouterr().err.count("\n") == 1

    def test_validate_says_what_it_cannot_know(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(SPEC)
        assert call(monkeypatch, "validate", path) == 0
        assert "its config is read when the job starts" in capsys.readouterr().out

    def test_render_prints_manifests_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(SPEC)
        assert call(monkeypatch, "render", path, "--set", "launch.gpus_per_node=0") == 0
        assert capsys.readouterr().out.startswith("apiVersion: v1\nkind: ConfigMap\n")

    def test_a_reader_that_leaves_is_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(SPEC)
        command = f"'{sys.executable}' -m sftjob.cli render '{path}' | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["apiVersion:", "v1", "0"]
        assert done.stderr == ""
