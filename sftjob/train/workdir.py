"""The folder through which the supervisor and the ranks of one node talk: files only, no sockets, no shared state.

<work>/
  job.json                     the ResolvedJob                                             supervisor → ranks
  rank_input.json              this attempt's `RankInput`                                  supervisor → ranks
  model/                       the base model                                              supervisor → ranks
  data/                        prepared data: train.arrow, eval.arrow, tokenizer/, …       supervisor → ranks
  resume/                      the checkpoint to continue from                             supervisor → ranks
  preempt                      exists: save at a step that all ranks agree on, then stop   supervisor → ranks
  checkpoints/checkpoint-<s>/  what this node's ranks have written; others' are elsewhere  ranks → supervisor
  checkpoints/saved-<s>-<r>    local rank r has written all its files of step s            ranks → supervisor
  metrics.jsonl                `Metric` lines of rank 0                                    ranks → supervisor
  tensorboard/                 rank 0's event files, each moved here when it is whole      ranks → supervisor
  environment.json             rank 0's `Environment` at step 0                            ranks → supervisor
  export/, exported            final weights; the empty file `exported` is written last    ranks → supervisor
  results/<rank>.json          a `RankResult`; absent when a rank was killed               ranks → supervisor

On several nodes each has a folder of its own; rank 0, whose files above nobody else writes, is node 0's.
"""

from dataclasses import dataclass
from pathlib import Path

from sftjob.records import Record
from sftjob.resolved import ResolvedExport
from sftjob.spec import Monitoring


class RankInput(Record):
    """What a rank needs beside job.json."""

    attempt: int
    node: int
    model: Path
    data: Path
    """Folder of the prepared data."""
    vocab_size: int
    train_rows: int | None = None
    """Rows, or packs, that the data were prepared as; None where nobody has counted them."""
    added_token_ids: tuple[int, ...] = ()
    resume: Path | None = None
    """Folder of the checkpoint to continue from."""
    monitoring: Monitoring = Monitoring()
    """Of this attempt's spec: it is no part of job.json, since it may change without training again."""
    export: ResolvedExport = ResolvedExport()
    """As `monitoring`."""


class RankResult(Record):
    """How a rank ended, in its own words."""

    rank: int
    exit_code: int
    reason: str = ""
    """One line for people; empty when all is well."""
    step: int = 0
    """Last finished optimizer step."""
    time: str


@dataclass(frozen=True)
class WorkDir:
    """Names the files of a work folder; creates nothing."""

    root: Path

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    @property
    def rank_input(self) -> Path:
        return self.root / "rank_input.json"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def resume(self) -> Path:
        return self.root / "resume"

    @property
    def preempt(self) -> Path:
        return self.root / "preempt"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"checkpoint-{step}"

    def saved(self, step: int, local_rank: int) -> Path:
        return self.checkpoints / f"saved-{step}-{local_rank}"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def exported(self) -> Path:
        return self.root / "exported"

    def result(self, rank: int) -> Path:
        return self.root / "results" / f"{rank}.json"
