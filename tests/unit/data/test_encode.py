"""Encoding in processes gives what encoding in one gives, and nothing is lost on the way."""

import json
from collections import Counter
from pathlib import Path

import pytest

from sftjob.data import encode
from sftjob.data.audit import SplitTally
from sftjob.data.encode import EncodeOptions, available_cpus, encode_rows, encode_split
from sftjob.data.inputs import InputFile
from sftjob.data.messages import Message, Row
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError
from sftjob.spec.data import Mixing


def _rows(count: int) -> list[Row]:
    return [
        Row(
            (Message("user", f"count {number}"), Message("assistant", "stones " * (number % 7 + 1))),
            file="f",
            line=number,
        )
        for number in range(1, count + 1)
    ]


@pytest.fixture
def options(tiny_tokenizer_folder: Path) -> EncodeOptions:
    return EncodeOptions(
        model=tiny_tokenizer_folder,
        template="chatml",
        train_on="assistant",
        max_length=64,
        overlong="truncate",
        texts=True,
    )


@pytest.fixture
def tokenizer(options: EncodeOptions) -> ChatTokenizer:
    return ChatTokenizer.from_folder(options.model, template=options.template)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BLOCK_ROWS", 4)
    monkeypatch.setattr(encode, "FIRST_BLOCKS", 2)


@pytest.mark.usefixtures("small_blocks")
def test_processes_give_the_same_in_the_same_order(tokenizer: ChatTokenizer, options: EncodeOptions) -> None:
    rows = [*_rows(40), Row((Message("user", "<|im_end|>"), Message("assistant", "x")), file="f", line=41)]
    alone = list(encode_rows(rows, tokenizer, options, processes=1))
    together = list(encode_rows(rows, tokenizer, options, processes=2))
    assert len(alone) == 11
    for one, other in zip(alone, together, strict=True):
        assert (one.input_ids, one.labels, list(one.lengths)) == (other.input_ids, other.labels, list(other.lengths))
        assert one.texts == other.texts
        assert one.problems.shown == other.problems.shown
        assert vars(one.tally) == vars(other.tally)
    assert together[-1].problems.rows == 1


@pytest.mark.usefixtures("small_blocks")
def test_few_rows_start_no_process(
    tokenizer: ChatTokenizer, options: EncodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "ProcessPoolExecutor", None)
    assert len(list(encode_rows(_rows(8), tokenizer, options, processes=2))) == 2
    with pytest.raises(TypeError):
        list(encode_rows(_rows(9), tokenizer, options, processes=2))


@pytest.mark.parametrize(("written", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_a_containers_quota_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, cpus: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(written)
    monkeypatch.setattr(encode, "_CGROUP_CPUS", tmp_path / "cpu.max")
    assert available_cpus() == cpus


def _file(path: Path, count: int, *broken: int, weight: float | None = None) -> InputFile:
    """Rows 1 to `count`; those in `broken` have no answer, or hold a control token where the number is negative."""
    lines = []
    for number in range(1, count + 1):
        value = {"prompt": f"{path.name} {number}", "completion": "stones"}
        if number in broken:
            del value["completion"]
        elif -number in broken:
            value["completion"] = "<|im_start|>"
        lines.append(json.dumps(value))
    path.write_text("\n".join(lines))
    return InputFile(name=path.name, path=path, weight=weight)


def _encoded(
    files: list[InputFile], options: EncodeOptions, *, allowed: int = 0, mixing: Mixing | None = None
) -> SplitTally:
    problems, tally = Problems(allowed=allowed), SplitTally()
    tokenizer = ChatTokenizer.from_folder(options.model, template=options.template)
    for _ in encode_split(files, tokenizer, options, mixing=mixing or Mixing(), problems=problems, tally=tally):
        pass
    problems.raise_any()
    return tally


class TestSkipping:
    def test_rows_are_skipped_up_to_the_cap_and_counted(self, options: EncodeOptions, tmp_path: Path) -> None:
        files = [_file(tmp_path / "a", 6, 2, -4), _file(tmp_path / "b", 3, 2)]
        counts = _encoded(files, options, allowed=3).audit().counts
        assert (counts.rows, counts.skipped, counts.kept) == (9, 3, 6)

    def test_one_more_stops_with_all_of_them(self, options: EncodeOptions, tmp_path: Path) -> None:
        files = [_file(tmp_path / "a", 6, 2, -4), _file(tmp_path / "b", 3, 2)]
        with pytest.raises(DataError) as caught:
            _encoded(files, options, allowed=2)
        assert [(problem.file, problem.line) for problem in caught.value.problems] == [("a", 2), ("a", 4), ("b", 2)]

    def test_what_loses_unknown_rows_is_never_skipped(self, options: EncodeOptions, tmp_path: Path) -> None:
        (tmp_path / "a").write_text('[{"prompt": "a", "completion": "b"}, nonsense')
        with pytest.raises(DataError, match=r"^a:1: .*not JSON"):
            _encoded([InputFile(name="a", path=tmp_path / "a")], options, allowed=100)


class TestMix:
    def test_rows_left_out_and_repeated_are_counted(self, options: EncodeOptions, tmp_path: Path) -> None:
        files = [_file(tmp_path / "a", 20, weight=1), _file(tmp_path / "b", 5, weight=1)]
        fewer = _encoded(files, options).audit()
        assert (fewer.counts.rows, fewer.counts.unmixed, fewer.counts.repeated, fewer.counts.kept) == (25, 15, 0, 10)
        more = _encoded(files, options, mixing=Mixing(stopping_strategy="all_exhausted")).audit()
        assert (more.counts.rows, more.counts.unmixed, more.counts.repeated, more.counts.kept) == (25, 0, 15, 40)
        assert (fewer.duplicates, more.duplicates) == (0, 0)

    def test_the_seed_chooses(self, options: EncodeOptions, tmp_path: Path) -> None:
        files = [_file(tmp_path / "a", 40, weight=1), _file(tmp_path / "b", 5, weight=1)]

        def taken(seed: int) -> set[str]:
            return {row for _, row in _encoded(files, options, mixing=Mixing(seed=seed)).questions}

        assert taken(1) == taken(1) != taken(2)

    def test_a_row_that_the_template_refuses_counts_once_however_often_it_is_mixed_in(
        self, options: EncodeOptions, tmp_path: Path
    ) -> None:
        files = [_file(tmp_path / "a", 20, weight=1), _file(tmp_path / "b", 5, -2, weight=1)]
        more = _encoded(files, options, allowed=1, mixing=Mixing(stopping_strategy="all_exhausted"))
        counts = more.audit().counts
        assert (counts.rows, counts.skipped, counts.repeated) == (25, 1, 12)
        assert counts.kept == counts.rows - counts.skipped + counts.repeated == 36
        assert "b:2" not in {row for _, row in more.questions}

    def test_bad_rows_of_a_mix_count_once(self, options: EncodeOptions, tmp_path: Path) -> None:
        files = [_file(tmp_path / "a", 20, 3, weight=1), _file(tmp_path / "b", 5, 2, weight=1)]
        counts = _encoded(files, options, allowed=2).audit().counts
        assert (counts.rows, counts.skipped, counts.unmixed, counts.kept) == (25, 2, 15, 8)


@pytest.mark.parametrize("overlong", ["truncate", "split", "drop"])
@pytest.mark.parametrize("texts", [True, False])
def test_every_row_is_accounted_for(options: EncodeOptions, tmp_path: Path, overlong: str, *, texts: bool) -> None:
    lines = [{"prompt": f"{n}", "completion": "stones " * (3 * n)} for n in range(1, 30)]
    lines += [{"prompt": "many " * 60, "completion": "never"}, {"prompt": "x"}]
    (tmp_path / "f").write_text("\n".join(map(json.dumps, lines)))
    files = [InputFile(name="f", path=tmp_path / "f")]
    how = EncodeOptions(**{**vars(options), "overlong": overlong, "texts": texts})
    counts = _encoded(files, how, allowed=1).audit().counts
    assert counts.rows == 31
    assert counts.kept == (counts.rows - counts.skipped + counts.split - counts.dropped - counts.without_trained_token)
    changed = Counter({name: getattr(counts, name) for name in ("truncated", "split", "dropped")})
    splits = overlong == "split" and not texts
    assert bool(changed["split"]) == splits
    assert bool(changed["dropped"]) == (overlong == "drop")
    assert bool(changed["truncated"]) == (overlong == "truncate" or (overlong == "split" and texts))
