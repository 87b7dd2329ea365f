"""The digest of prepared data changes with all that has a say in the tokens, and with nothing else."""

from collections.abc import Callable

import pytest

from sftjob.data.digest import data_digest
from sftjob.resolve import ResolvedJob

MakeJob = Callable[..., ResolvedJob]
TRAIN = [{"path": "a.jsonl", "columns": {"prompt": "q"}}]
EVAL = [{"path": "b.jsonl"}]


@pytest.fixture
def digest(make_job: MakeJob) -> str:
    return data_digest(make_job(train=TRAIN, eval=EVAL), ["1" * 64, "2" * 64], "3" * 64)


def test_where_files_lie_and_how_one_trains_do_not_count(make_job: MakeJob, digest: str) -> None:
    moved = make_job(
        train=[{"uri": "s3://bucket/x.jsonl", "columns": {"prompt": "q"}}],
        eval=EVAL,
        vocab_size=9,
        training={"learning_rate": 1e-3, "seed": 1},
    )
    assert data_digest(moved, ["1" * 64, "2" * 64], "3" * 64) == digest
    assert len(digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"template": "model"},
        {"train_on": "all"},
        {"training": {"max_length": 7}},
        {"train": [{"path": "a.jsonl"}]},
        {"eval": [{"path": "b.jsonl", "format": "messages"}]},
        {"train": [*TRAIN, *EVAL], "eval": []},
        {"template": {"jinja": "x"}},
        {"overlong": "drop"},
        {"training": {"packing": True}},
        {"train": [{**TRAIN[0], "weight": 1.0}]},
        {"mixing": {"seed": 1}},
        {"max_skipped_rows": 1},
    ],
    ids=[
        "template",
        "train_on",
        "max_length",
        "columns",
        "format",
        "split",
        "template of its own",
        "overlong",
        "packing",
        "weight",
        "seed",
        "skipped",
    ],
)
def test_options_count(make_job: MakeJob, digest: str, change: dict[str, object]) -> None:
    job = make_job(**{"train": TRAIN, "eval": EVAL, **change})
    assert data_digest(job, ["1" * 64, "2" * 64], "3" * 64) != digest


@pytest.mark.parametrize(
    ("hashes", "tokenizer"),
    [(["2" * 64, "1" * 64], "3" * 64), (["1" * 64, "4" * 64], "3" * 64), (["1" * 64, "2" * 64], "4" * 64)],
    ids=["order", "a file", "tokenizer"],
)
def test_content_counts(make_job: MakeJob, digest: str, hashes: list[str], tokenizer: str) -> None:
    assert data_digest(make_job(train=TRAIN, eval=EVAL), hashes, tokenizer) != digest


HUB = {"hub": "a/b", "revision": "0" * 40}


@pytest.mark.parametrize(
    "change", [{"hub": "a/c"}, {"revision": "1" * 40}, {"config": "x"}, {"split": "x"}, {"format": "text"}]
)
def test_a_data_set_on_the_hub_is_known_by_its_revision(make_job: MakeJob, change: dict[str, str]) -> None:
    one, other = (data_digest(make_job(train=[source]), [None], "3" * 64) for source in (HUB, {**HUB, **change}))
    assert one != other


def test_a_threshold_does_not_count(make_job: MakeJob, digest: str) -> None:
    job = make_job(train=TRAIN, eval=EVAL, max_overlap=0.5)
    assert data_digest(job, ["1" * 64, "2" * 64], "3" * 64) == digest


def test_a_hash_for_each_file(make_job: MakeJob) -> None:
    with pytest.raises(ValueError, match="1 hashes for 1 \\+ 1 files"):
        data_digest(make_job(train=TRAIN, eval=EVAL), ["1" * 64], "3" * 64)
