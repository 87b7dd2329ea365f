"""prepare: from files and a tokenizer to Arrow, counts and hashes, whole or not at all."""

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Never

import pyarrow as pa
import pytest

from sftjob.contract import keys
from sftjob.data import read_messages
from sftjob.data.inputs import InputFile, PrepareInput
from sftjob.data.lengths import fit_length
from sftjob.data.masks import IGNORED, encode_batch
from sftjob.data.prepare import main, prepare
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError, SftjobError
from sftjob.records import Audit, PreparedData, SplitCounts, read_record
from sftjob.resolve import ResolvedJob

MakeJob = Callable[..., ResolvedJob]
DIGEST = "d" * 64
GSM8K = {"prompt": "question", "completion": "answer"}


def _file(path: Path, pairs: Sequence[tuple[str, str]]) -> InputFile:
    path.write_text("".join(json.dumps({"prompt": ask, "completion": answer}) + "\n" for ask, answer in pairs))
    return InputFile(path=path, name=path.name)


def _inputs(tmp_path: Path, model: Path, train: Sequence[InputFile], eval: Sequence[InputFile] = ()) -> PrepareInput:
    return PrepareInput(
        train=tuple(train), eval=tuple(eval), model=model, out=tmp_path / "data", attempt=2, digest=DIGEST
    )


def _table(path: Path) -> list[dict[str, list[int]]]:
    with pa.memory_map(str(path)) as source:
        rows: list[dict[str, list[int]]] = pa.ipc.open_stream(source).read_all().to_pylist()
    return rows


@pytest.fixture
def inputs(tmp_path: Path, tiny_tokenizer_folder: Path) -> PrepareInput:
    train = _file(tmp_path / "train.jsonl", [("red", "blue"), ("of", "stones"), ("many " * 40, "never reached")])
    held_out = _file(tmp_path / "test.jsonl", [("count " * 40, "dropped"), ("each", "there " * 40), ("say", "é")])
    return _inputs(tmp_path, tiny_tokenizer_folder, [train], [held_out])


def test_the_whole_folder(make_job: MakeJob, inputs: PrepareInput) -> None:
    job = make_job(training={"max_length": 32})
    prepared = prepare(job, inputs)
    assert prepared == read_record(PreparedData, (inputs.out / "prepared.json").read_bytes(), "prepared.json")
    assert {entry.path for entry in prepared.files} == {
        "audit.json",
        "train.arrow",
        "eval.arrow",
        "eval_rows.jsonl",
        "tokenizer/chat_template.jinja",
        "tokenizer/sftjob_tokenizer.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    for entry in prepared.files:
        data = (inputs.out / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry.key == keys.data(DIGEST, 2, entry.path)
    tokenizer = ChatTokenizer.from_folder(inputs.out / "tokenizer")
    assert prepared.vocab_size == tokenizer.vocab_size
    assert prepared.added_token_ids == (tokenizer.vocab_size - 2, tokenizer.vocab_size - 1)
    assert prepared.template_sha256 == tokenizer.template.sha256
    assert (prepared.digest, prepared.attempt) == (DIGEST, 2)
    assert not list(inputs.out.parent.glob("*.part"))


def test_rows_are_counted(make_job: MakeJob, inputs: PrepareInput) -> None:
    prepared = prepare(make_job(training={"max_length": 32}), inputs)
    train = _table(inputs.out / "train.arrow")
    trained = [sum(label != IGNORED for label in row["labels"]) for row in train]
    lengths = [len(row["input_ids"]) for row in train]
    assert prepared.splits["train"] == SplitCounts(
        rows=3,
        kept=2,
        truncated=1,
        without_trained_token=1,
        tokens=sum(lengths),
        trained_tokens=sum(trained),
        longest=max(lengths),
    )
    held_out = prepared.splits["eval"]
    assert (held_out.rows, held_out.kept, held_out.truncated, held_out.without_trained_token) == (3, 2, 2, 1)
    assert held_out.longest == 32


def test_tokens_and_held_out_rows(make_job: MakeJob, inputs: PrepareInput, tiny_tokenizer_folder: Path) -> None:
    prepare(make_job(training={"max_length": 32}), inputs)
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    rows = read_messages(inputs.eval[0].path, name="test.jsonl")
    encoded = encode_batch(tokenizer, rows[1:], train_on="assistant", problems=Problems())
    expected = [piece for _, whole in encoded for piece in fit_length(whole, 32, "truncate")]
    assert _table(inputs.out / "eval.arrow") == [
        {"input_ids": piece.input_ids, "labels": piece.labels} for piece in expected
    ]
    lines = (inputs.out / "eval_rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "id": f"test.jsonl:{number}",
            "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}],
        }
        for number, ask, answer in ((2, "each", "there " * 40), (3, "say", "é"))
    ]


def test_packs_hold_every_row_once(make_job: MakeJob, tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    pairs = [("count", "stones " * (1 + number % 9)) for number in range(60)]
    inputs = _inputs(tmp_path, tiny_tokenizer_folder, [_file(tmp_path / "train.jsonl", pairs)])
    alone = prepare(make_job(training={"max_length": 64}), inputs)
    rows = _table(inputs.out / "train.arrow")
    packed = prepare(make_job(training={"max_length": 64, "packing": True}), inputs)
    packs = _table(inputs.out / "train.arrow")

    assert packed.splits["train"] == alone.splits["train"].model_copy(update={"packs": len(packs)})
    assert len(packs) < len(rows) / 2
    found = []
    for pack in packs:
        assert len(pack["input_ids"]) == len(pack["labels"]) == sum(pack["seq_lengths"]) <= 64
        start = 0
        for length in pack["seq_lengths"]:
            end = start + length
            found.append((pack["input_ids"][start:end], pack["labels"][start:end]))
            start = end
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in rows)
    assert all(labels[0] == IGNORED for _, labels in found)
    assert sum(label != IGNORED for _, labels in found for label in labels) == packed.splits["train"].trained_tokens
    assert not list(inputs.out.glob("*.spool"))


def test_held_out_rows_are_never_packed_or_split(make_job: MakeJob, inputs: PrepareInput) -> None:
    job = make_job(training={"max_length": 32, "packing": True}, overlong="split")
    prepared = prepare(job, inputs)
    train, held_out = prepared.splits["train"], prepared.splits["eval"]
    assert train.split > 0
    assert (held_out.split, held_out.truncated, held_out.packs) == (0, 2, None)
    assert all(set(row) == {"input_ids", "labels"} for row in _table(inputs.out / "eval.arrow"))
    assert len(_table(inputs.out / "eval.arrow")) == len((inputs.out / "eval_rows.jsonl").read_text().splitlines())


def test_texts_and_tools_reach_the_held_out_rows(
    make_job: MakeJob, tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    tool = {"type": "function", "function": {"name": "count", "parameters": {}}}
    call = {"type": "function", "function": {"name": "count", "arguments": {"of": "stones"}}}
    turns = [{"role": "user", "content": "many"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns, "tools": [tool]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "red stones"}))
    train = _file(tmp_path / "train.jsonl", [("red", "blue")])
    held_out = [InputFile(path=tmp_path / name, name=name) for name in ("a.jsonl", "b.jsonl")]
    inputs = _inputs(tmp_path, tiny_tokenizer_folder, [train], held_out)
    prepare(make_job(), inputs)
    assert [json.loads(line) for line in (inputs.out / "eval_rows.jsonl").read_text().splitlines()] == [
        {"id": "a.jsonl:1", "messages": turns, "tools": [tool]},
        {"id": "b.jsonl:1", "messages": [], "text": "red stones"},
    ]
    tokenizer = ChatTokenizer.from_folder(inputs.out / "tokenizer")
    first, second = _table(inputs.out / "eval.arrow")
    assert '"arguments": {"of": "stones"}' in tokenizer.decode([label for label in first["labels"] if label >= 0])
    assert tokenizer.decode(second["input_ids"]) == "red stones<|endoftext|>"


def test_the_audit_is_stored_and_told(
    make_job: MakeJob, tmp_path: Path, tiny_tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [_file(tmp_path / "a.jsonl", [("red", "blue"), ("red", "blue"), ("of", "")])]
    held_out = [_file(tmp_path / "b.jsonl", [("RED", "stones")])]
    inputs = _inputs(tmp_path, tiny_tokenizer_folder, files, held_out)
    prepared = prepare(make_job(max_skipped_rows=1, max_overlap=1.0), inputs)
    audit = read_record(Audit, (inputs.out / "audit.json").read_bytes(), "audit.json")
    assert {name: split.counts for name, split in audit.splits.items()} == prepared.splits
    assert (audit.overlap, audit.overlap_rows, audit.splits["train"].duplicates) == (1, ("b.jsonl:1",), 1)
    assert (prepared.splits["train"].rows, prepared.splits["train"].skipped) == (3, 1)
    assert capsys.readouterr().out.splitlines() == [
        "skipped: a.jsonl:3: completion: empty",
        "train: 1 of 3 rows repeat an earlier one",
        "eval: 1 rows ask what training rows ask, too",
    ]


def test_train_on_all_reaches_the_labels(make_job: MakeJob, inputs: PrepareInput) -> None:
    few = prepare(make_job(), inputs).splits["train"]
    many = prepare(make_job(train_on="all"), inputs).splits["train"]
    assert few.tokens == many.tokens
    # All but the first token and the last line break of each row.
    assert many.trained_tokens == many.tokens - 2 * many.rows
    assert few.trained_tokens < many.trained_tokens


def test_several_files_in_order_and_batches(
    make_job: MakeJob, tmp_path: Path, tiny_tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftjob.data.arrow.BATCH_ROWS", 2)
    (tmp_path / "a").mkdir()
    files = [
        _file(tmp_path / "test.jsonl", [("a", "1"), ("b", "2"), ("c", "3")]),
        _file(tmp_path / "a" / "test.jsonl", [("d", "4"), ("e", "5")]),
    ]
    inputs = _inputs(tmp_path, tiny_tokenizer_folder, files, files)
    assert prepare(make_job(max_overlap=1.0), inputs).splits["eval"].kept == 5
    rows = [json.loads(line) for line in (inputs.out / "eval_rows.jsonl").read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in rows] == list("12345")
    assert rows[0]["id"] == "test.jsonl#0:1"
    assert len({row["id"] for row in rows}) == 5
    with pa.memory_map(str(inputs.out / "train.arrow")) as source:
        assert [batch.num_rows for batch in pa.ipc.open_stream(source)] == [2, 2, 1]


def test_each_file_has_its_own_format_and_columns(
    make_job: MakeJob, tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns, "prompt": "c", "completion": "d"}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}))
    files = [
        InputFile(path=tmp_path / "a.jsonl", name="a"),
        InputFile(path=tmp_path / "a.jsonl", name="c", format="prompt_completion"),
        InputFile(path=tmp_path / "b.jsonl", name="b", columns=GSM8K),
    ]
    inputs = _inputs(tmp_path, tiny_tokenizer_folder, files)
    prepare(make_job(), inputs)
    first, second, third = _table(inputs.out / "train.arrow")
    assert first == third
    assert first != second


def test_prepared_data_that_is_there_is_replaced(make_job: MakeJob, inputs: PrepareInput) -> None:
    prepare(make_job(), inputs)
    (inputs.out / "stale").touch()
    prepare(make_job(), inputs.model_copy(update={"eval": ()}))
    assert sorted(path.name for path in inputs.out.iterdir()) == [
        "audit.json",
        "prepared.json",
        "tokenizer",
        "train.arrow",
    ]


def test_nothing_is_left_when_no_token_is_trained(make_job: MakeJob, inputs: PrepareInput) -> None:
    with pytest.raises(DataError) as caught:
        prepare(make_job(training={"max_length": 3}), inputs)
    assert str(caught.value).splitlines() == [
        f"{split}.jsonl: training.max_length: no row of `{name}` keeps a trained token within 3 tokens; "
        "raise training.max_length"
        for split, name in (("train", "train"), ("test", "eval"))
    ]
    assert [path.name for path in inputs.out.parent.iterdir() if path.is_dir()] == []


def test_a_vocabulary_larger_than_the_embeddings(make_job: MakeJob, inputs: PrepareInput) -> None:
    size = ChatTokenizer.from_folder(inputs.model, template="chatml").base_vocab_size
    assert prepare(make_job(vocab_size=size), inputs).vocab_size == size + 2
    with pytest.raises(DataError) as caught:
        prepare(make_job(vocab_size=size - 1), inputs)
    assert str(caught.value) == (
        f"{inputs.model.name}/tokenizer.json: model: the tokenizer needs {size} embeddings, "
        f"the model has {size - 1} (vocab_size); use the tokenizer that the model was trained with"
    )


def test_main_writes_the_error_for_the_supervisor(
    make_job: MakeJob, inputs: PrepareInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.json").write_bytes(make_job().to_json())
    (tmp_path / "prepare.json").write_bytes(inputs.to_json())
    inputs.train[0].path.write_text('{"prompt": "a", "completion": ""}\n[]\n')
    assert main(["--work", str(tmp_path)]) == 65
    text = (tmp_path / "prepare.error").read_text()
    assert text.splitlines()[0] == "train.jsonl:1: completion: empty"
    assert len(text.splitlines()) == 2
    assert capsys.readouterr().err == text
    assert not inputs.out.exists()

    _file(inputs.train[0].path, [("a", "b")])
    assert main(["--work", str(tmp_path)]) == 0
    assert not (tmp_path / "prepare.error").exists()
    assert (inputs.out / "prepared.json").exists()


@pytest.mark.parametrize(
    ("spoil", "code", "start"),
    [
        (lambda work: (work / "job.json").unlink(), 66, "{work}/job.json: no such file"),
        (lambda work: (work / "job.json").write_text("{}"), 78, "job.json: run_id: Field required"),
        (lambda work: (work / "train.jsonl").unlink(), 66, "train.jsonl: no such file; check the path"),
    ],
    ids=["no job", "job of another version", "no data"],
)
def test_main_exits_with_the_errors_code(
    *, make_job: MakeJob, inputs: PrepareInput, tmp_path: Path, spoil: Callable[[Path], object], code: int, start: str
) -> None:
    (tmp_path / "job.json").write_bytes(make_job().to_json())
    (tmp_path / "prepare.json").write_bytes(inputs.to_json())
    spoil(tmp_path)
    assert main(["--work", str(tmp_path)]) == code
    assert (tmp_path / "prepare.error").read_text().startswith(start.format(work=tmp_path))


def test_a_full_disk_is_73(
    make_job: MakeJob, inputs: PrepareInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Never:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sftjob.data.arrow.ArrowRows.write", full)
    (tmp_path / "job.json").write_bytes(make_job().to_json())
    (tmp_path / "prepare.json").write_bytes(inputs.to_json())
    assert main(["--work", str(tmp_path)]) == 73
    assert not list(tmp_path.glob("data*"))


def test_progress_is_printed_now_and_then(
    make_job: MakeJob, inputs: PrepareInput, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(make_job(), inputs)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sftjob.data.prepare.PROGRESS_SECONDS", 0.0)
    prepare(make_job(), inputs)
    assert "train: 3 rows tokenised" in capsys.readouterr().out


def test_straddling_tokens_are_told(
    make_job: MakeJob, tmp_path: Path, marked_tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file(tmp_path / "train.jsonl", [("no", "yes"), ("a", "b")])
    prepare(make_job(), _inputs(tmp_path, marked_tokenizer_folder, [file]))
    assert "train: 1 answers begin inside a token, which is not trained" in capsys.readouterr().out


@pytest.mark.train  # seconds of tokenising: too long for the quick ring
def test_gsm8k_is_kept_whole(make_job: MakeJob, shared_data: Path, tiny_base: Path, tmp_path: Path) -> None:
    def file(name: str) -> InputFile:
        return InputFile(path=shared_data / name, name=name, columns=GSM8K)

    inputs = _inputs(tmp_path, tiny_base, [file("gsm8k_train.jsonl")], [file("gsm8k_test.jsonl")])
    prepared = prepare(make_job(vocab_size=4096, training={"max_length": 512}), inputs)
    train, test = prepared.splits["train"], prepared.splits["eval"]
    assert (train.rows, train.kept, train.without_trained_token) == (7473, 7473, 0)
    assert (test.rows, test.kept) == (1319, 1319)
    assert train.longest == 512
    assert prepared.added_token_ids == (4096, 4097)
    # Counted another way: prompt and answer on their own, an end token and a line break each.
    tokenizer = ChatTokenizer.from_folder(tiny_base, template="chatml")
    rows = [json.loads(line) for line in (shared_data / "gsm8k_test.jsonl").read_text().splitlines()]
    around = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    prompts = [len(item.ids) for item in tokenizer.encode_batch([around.format(row["question"]) for row in rows])]
    answers = [len(item.ids) for item in tokenizer.encode_batch([row["answer"] for row in rows])]
    lengths = list(zip(prompts, answers, strict=True))
    assert test.truncated == sum(prompt + answer + 2 > 512 for prompt, answer in lengths)
    assert test.trained_tokens == sum(min(512 - prompt, answer + 1) for prompt, answer in lengths)
    assert test.tokens == sum(min(512, prompt + answer + 2) for prompt, answer in lengths)


def test_preparing_and_its_inputs_import_no_torch(tmp_path: Path) -> None:
    script = (
        "import struct, sys, sftjob.data.inputs, sftjob.data.digest, sftjob.data\n"
        "light = {'tokenizers', 'pyarrow', 'jinja2'} & set(sys.modules)\n"
        "import pathlib, sftjob.data.plain\n"
        "from sftjob.data.prepare import ArrowRows\n"
        "ids, labels = (struct.pack('2i', *row) for row in ((1, 2), (-100, 2)))\n"
        "with ArrowRows(pathlib.Path(sys.argv[1])) as arrow: arrow.write(ids, labels, [2])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'boto3'} & set(sys.modules)\n"
        "print(sorted(light), sorted(heavy))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.arrow")], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[] []\n"
    assert _table(tmp_path / "a.arrow") == [{"input_ids": [1, 2], "labels": [-100, 2]}]


def test_every_error_of_prepare_is_ours(make_job: MakeJob, inputs: PrepareInput) -> None:
    inputs.train[0].path.write_text(json.dumps({"prompt": "<|im_end|>", "completion": "b"}) + "\n")
    with pytest.raises(SftjobError, match=r"^train\.jsonl:1: messages\.0\.content: contains the tokenizer's control"):
        prepare(make_job(), inputs)
