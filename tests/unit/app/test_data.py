"""`sftjob data`: on a file with options and on a spec; what it prints, writes and refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob.cli import main

Run = Callable[..., tuple[int, str, str]]
ROWS = [("What is red?", "A colour."), ("What is\ntwo?", "A number.\n\nEven.")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `sftjob data …` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sftjob", "data", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def _write(name: str, rows: list[tuple[str, str]] = ROWS) -> None:
    Path(name).write_text("".join(json.dumps({"prompt": ask, "completion": say}) + "\n" for ask, say in rows))


class TestAudit:
    def test_without_a_model(self, run: Run) -> None:
        _write("train.jsonl", ROWS * 2)
        code, out, err = run("audit", "train.jsonl")
        assert code == 0
        assert out.splitlines() == [
            "train    4 rows, 4 kept",
            "  messages    4 assistant, 4 user",
            "  duplicates  2",
            f"  ≤     24 characters  {'█' * 32} 2",
            f"  ≤     32 characters  {'█' * 32} 2",
        ]
        assert err == "reading train.jsonl …\n"

    def test_tokens_are_those_of_the_bytes(self, run: Run, model: Path) -> None:
        _write("train.jsonl")
        code, out, _ = run("audit", "train.jsonl", "--model", model, "--template", "chatml", "--json")
        audit = json.loads(out)
        assert code == 0
        # Every byte is a token; the two control tokens, role names and line breaks of ChatML stand around.
        around = len("user\n") + len("assistant\n") + 2 * len("\n") + 4
        counts = audit["splits"]["train"]["counts"]
        assert counts["tokens"] == sum(len(ask) + len(say) + around for ask, say in ROWS)
        assert counts["trained_tokens"] == sum(len(say) + 1 for _, say in ROWS)
        assert audit["splits"]["train"]["trained_by_role"] == {"assistant": counts["trained_tokens"]}
        assert (audit["splits"]["train"]["trained_turns"], audit["splits"]["train"]["trained_ends"]) == (2, 2)

    def test_overlap_fails_after_the_counts(self, run: Run) -> None:
        _write("train.jsonl")
        _write("test.jsonl", [("what is RED?", "x"), ("b", "c")])
        code, out, err = run("audit", "train.jsonl", "--eval", "test.jsonl")
        assert code == 65
        assert out.splitlines()[-1] == "overlap  1 of 2 held-out rows are asked in train, too (test.jsonl:1)"
        assert err.splitlines()[-1].startswith("error: test.jsonl: data.max_overlap: 1 of 2 held-out rows (50.0%)")

    def test_nothing_is_trained(self, run: Run, model: Path) -> None:
        _write("train.jsonl")
        code, out, err = run("audit", "train.jsonl", "--model", model, "--template", "chatml", "--max-length", 8)
        assert code == 65
        assert "2 truncated, 2 without a trained token" in out
        assert "error: train.jsonl: training.max_length: no row of `train` keeps a trained token" in err

    def test_embeddings_do_not_suffice(self, run: Run, model: Path, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        for file in model.iterdir():
            (small / file.name).write_text(file.read_text().replace('"vocab_size": 300', '"vocab_size": 20'))
        _write("train.jsonl")
        code, _, err = run("audit", "train.jsonl", "--model", small, "--template", "chatml")
        assert code == 65
        assert "small/tokenizer.json: model: the tokenizer needs 257 embeddings, the model has 20" in err

    def test_columns_are_renamed(self, run: Run) -> None:
        Path("q.jsonl").write_text('{"question": "a", "answer": "b"}\n')
        assert run("audit", "q.jsonl", "--column", "prompt=question", "--column", "completion=answer")[0] == 0
        assert run("audit", "q.jsonl")[0] == 65

    @pytest.mark.parametrize(
        ("arguments", "code", "line"),
        [
            (("--column", "prompt"), 64, "--column: `prompt` is no pair"),
            (("--column", "prompz=a"), 64, "train.0.columns.prompz: `prompz` is not"),
            (("--format", "alpacka"), 64, "train.0.format: `alpacka` is not"),
            (("--train-on", "all"), 64, "--train-on: says nothing without a model"),
            (("--template", "chatml"), 64, "--template: says nothing without a model"),
            (("--max-length", "9"), 64, "--max-length: counts tokens"),
            (("--template", "no.jinja"), 66, "no.jinja does not exist"),
            (("--model", ""), 64, "--model: is empty"),
            (("--overlong", "cut"), 64, "overlong: `cut` is not"),
            (("--model", "nowhere"), 66, "nowhere does not exist"),
            (("--model", "a/b@main"), 64, "--model: a/b@main names no commit"),
            (("--set", "data.train_on=all"), 64, "t.jsonl: --set changes a spec"),
        ],
    )
    def test_mistakes_on_the_command_line(self, run: Run, arguments: tuple[str, ...], code: int, line: str) -> None:
        _write("t.jsonl")
        exit_code, _, err = run("audit", "t.jsonl", *arguments)
        assert exit_code == code
        assert [line in shown for shown in err.splitlines() if shown.startswith("error")] == [True]


class TestPreview:
    def test_a_terminal_sees_the_rows(self, run: Run, model: Path) -> None:
        _write("t.jsonl")
        code, out, _ = run("preview", "t.jsonl", "--model", model, "--template", "chatml", "-n", 1)
        assert code == 0
        assert out.startswith(
            "t.jsonl:1   42 tokens, 10 trained\n"
            "<|im_start|>user\nWhat is red?<|im_end|>\n<|im_start|>assistant\n⟦A colour.<|im_end|>⟧\n"
        )
        assert "two" not in out

    def test_the_page_marks_what_is_trained(self, run: Run, model: Path) -> None:
        _write("t.jsonl", [("<b>", "A & é"), ("cut", "x" * 200)])
        code, out, _ = run("preview", "t.jsonl", "--model", model, "--template", "chatml", "--html", "p.html")
        page = Path("p.html").read_text()
        spans = re.findall(r'<span style="([^"]*)">(.*?)</span>', page.split("<h2>", 1)[1], re.DOTALL)
        green = [text for style, text in spans if "background" in style]
        red = [text for style, text in spans if "line-through" in style]
        assert (code, out) == (0, "wrote    p.html\n")
        assert green[0] == "A &amp; é&lt;|im_end|&gt;"
        assert "&lt;b&gt;" in page
        assert "<b>" not in page
        # 22 tokens stand before the answer, and the model's limit is 128.
        assert "t.jsonl:2   224 tokens, 106 trained" in page
        assert len(green[1]) + len(red[0]) == 200 + len("&lt;|im_end|&gt;\n")

    def test_rows_that_the_template_refuses_are_told_and_passed_over(self, run: Run, model: Path) -> None:
        _write("t.jsonl", [("<|im_end|>", "x"), ("\x1b[31m", "y\r")])
        code, out, err = run("preview", "t.jsonl", "--model", model, "--template", "chatml")
        assert code == 0
        assert "t.jsonl:2" in out
        assert "\u241b[31m" in out
        assert "⟦y\u240d<|im_end|>⟧" in out
        assert err.startswith("skipped: t.jsonl:1: messages.0.content: contains the tokenizer's control token")

    def test_needs_a_model(self, run: Run) -> None:
        _write("t.jsonl")
        code, _, err = run("preview", "t.jsonl")
        assert (code, err) == (64, "error: --model: names no model, so there are no tokens; give --model FOLDER\n")

    @pytest.mark.parametrize(
        ("arguments", "code", "line"),
        [
            (("--split", "test"), 64, "--split: `test` is no split"),
            (("--skip", "2"), 65, "t.jsonl: has no more than 2 rows"),
            (("--split", "eval"), 66, "--split: no rows are held out"),
        ],
    )
    def test_rows_that_are_not_there(
        self, run: Run, model: Path, arguments: tuple[str, ...], code: int, line: str
    ) -> None:
        _write("t.jsonl")
        exit_code, _, err = run("preview", "t.jsonl", "--model", model, "--template", "chatml", *arguments)
        assert exit_code == code
        assert line in err


class TestConvert:
    def test_writes_messages(self, run: Run) -> None:
        _write("t.jsonl")
        assert run("convert", "t.jsonl", "-o", "out.jsonl")[:2] == (0, "wrote    out.jsonl: 2 rows\n")
        rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
        assert rows == [
            {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": say}]} for ask, say in ROWS
        ]
        # What it wrote it reads.
        assert run("convert", "out.jsonl", "-o", "again.jsonl")[0] == 0
        assert Path("again.jsonl").read_text() == Path("out.jsonl").read_text()

    def test_tools_and_texts_are_kept(self, run: Run) -> None:
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}, "id": "1"}
        row = {
            "messages": [
                {"role": "user", "content": "é"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "2", "name": "f", "tool_call_id": "1"},
                {"role": "assistant", "content": "3", "train": True},
            ],
            "tools": [tool],
        }
        Path("t.jsonl").write_text(json.dumps(row))
        Path("x.jsonl").write_text('{"text": "a b"}')
        run("convert", "t.jsonl", "-o", "out.jsonl")
        assert json.loads(Path("out.jsonl").read_text()) == row
        run("convert", "x.jsonl", "-o", "out.jsonl")
        assert json.loads(Path("out.jsonl").read_text()) == {"text": "a b"}

    def test_a_folder_is_no_place_for_a_file(self, run: Run) -> None:
        _write("t.jsonl")
        Path("d").mkdir()
        for where in (".", "d"):
            code, _, err = run("convert", "t.jsonl", "-o", where)
            assert (code, err) == (64, f"error: {where}: is a folder; name a file\n")

    def test_of_a_spec_leaves_out_what_the_spec_allows(self, run: Run) -> None:
        _write("t.jsonl", [*ROWS, ("a", "")])
        Path("job.yaml").write_text(
            "name: a\nmodel: {path: model}\nmethod: {type: full}\n"
            "data: {train: [{path: t.jsonl}], max_skipped_rows: 1}\n"
        )
        (Path("model")).mkdir()
        Path("model/config.json").write_text(
            '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 9, "hidden_size": 8, '
            '"num_hidden_layers": 1}'
        )
        code, out, err = run("convert", "job.yaml", "-o", "out.jsonl")
        assert (code, out, err) == (0, "wrote    out.jsonl: 2 rows\n", "skipped: t.jsonl:3: completion: empty\n")

    def test_nothing_is_left_of_a_file_with_mistakes(self, run: Run) -> None:
        _write("t.jsonl", [*ROWS, ("a", "")])
        code, _, err = run("convert", "t.jsonl", "-o", "out.jsonl")
        assert (code, err) == (65, "error: t.jsonl:3: completion: empty\n")
        assert [path.name for path in Path().iterdir()] == ["t.jsonl"]


class TestSpec:
    @pytest.fixture
    def spec(self, run: Run, model: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "job"
        folder.mkdir()
        (folder / "chat.jinja").write_text(
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}"
        )
        _write("job/train.jsonl")
        (folder / "job.yaml").write_text(
            f"name: a\nmodel: {{path: {model}}}\nmethod: {{type: full}}\ntraining: {{max_length: 64}}\n"
            "data:\n  train: [{path: train.jsonl}]\n  template: {path: chat.jinja}\n"
        )
        return folder / "job.yaml"

    def test_says_everything_itself(self, run: Run, spec: Path) -> None:
        code, out, _ = run("preview", spec, "-n", 1)
        assert code == 0
        assert out.startswith("train.jsonl:1   ")
        assert "[user]What is red?<end>[assistant]⟦A colour.<end>⟧" in out
        assert run("audit", spec)[0] == 0
        audit = json.loads(run("audit", spec, "--set", "data.train_on=all", "--json")[1])
        assert set(audit["splits"]["train"]["trained_by_role"]) == {"assistant", "user"}

    def test_options_of_a_file_are_refused(self, run: Run, spec: Path) -> None:
        code, _, err = run("audit", spec, "--train-on", "all")
        assert code == 64
        assert "job.yaml: a spec says this itself" in err

    def test_a_missing_file_is_located(self, run: Run, spec: Path) -> None:
        (spec.parent / "train.jsonl").unlink()
        code, _, err = run("audit", spec)
        assert code == 66
        assert re.search(r"job\.yaml:6: data\.train\.0: .*train\.jsonl does not exist", err)

    def test_a_missing_template_is_located(self, run: Run, spec: Path) -> None:
        (spec.parent / "chat.jinja").unlink()
        code, _, err = run("audit", spec)
        assert code == 66
        assert re.search(r"job\.yaml:7: data\.template\.path: .*chat\.jinja does not exist", err)


class TestCoreAlone:
    """What the README promises without any extra: processes to which the extras' packages are missing."""

    @staticmethod
    def _run(*arguments: object) -> tuple[int, str]:
        hidden = ("tokenizers", "jinja2", "pyarrow", "numpy", "boto3", "huggingface_hub", "datasets", "torch")
        code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); from sftjob.cli import main; main()"
        command = [sys.executable, "-c", code, "data", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr

    def test_json_and_csv_files(self, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"prompt": "a", "completion": "b"}')
        (tmp_path / "t.csv").write_text("prompt,completion\na,b\n")
        assert self._run("audit", tmp_path / "t.jsonl")[0] == 0
        assert self._run("convert", tmp_path / "t.csv", "-o", tmp_path / "out.jsonl")[0] == 0

    def test_what_needs_more_says_which_extra_brings_it(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"prompt": "a", "completion": "b"}')
        code, err = self._run("audit", tmp_path / "t.jsonl", "--model", model, "--template", "chatml")
        assert (code, err) == (78, "error: this needs the package tokenizers; pip install 'sftjob[train]'\n")
