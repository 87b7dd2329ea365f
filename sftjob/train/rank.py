"""One rank of an attempt, from its work folder to the export. Importing this imports torch and transformers."""

import logging
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, set_seed
from transformers import logging as transformers_logging

from sftjob.contract import ExitCode
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, InputMissing
from sftjob.methods import (
    BaseName,
    FineTuning,
    Model,
    check_changed,
    count_parameters,
    export,
    fine_tuning,
    fingerprint,
    load_base,
)
from sftjob.resolve import ResolvedJob
from sftjob.spec import HubModel, LocalModel, ModelSource, StoredModel
from sftjob.train import environment
from sftjob.train.arguments import sft_config
from sftjob.train.callbacks import RunCallback
from sftjob.train.deepspeed import join_deepspeed, match_dtypes, zero_dtype
from sftjob.train.fault import fault
from sftjob.train.gang import Gang, RankPlace
from sftjob.train.isolation import check_isolation
from sftjob.train.ledger import Ledger, LedgerState, read_ledger
from sftjob.train.metrics import MetricsWriter, visible_gpus
from sftjob.train.monitor import Monitor
from sftjob.train.progress import Progress
from sftjob.train.sinks import Sink, open_sinks, require
from sftjob.train.trainer import RunTrainer
from sftjob.train.workdir import RankInput, WorkDir


@dataclass(frozen=True)
class Outcome:
    """How a rank that raised nothing ended."""

    code: ExitCode
    reason: str = ""


class Rank:
    """Builds, trains and exports. One `run` each."""

    def __init__(
        self, job: ResolvedJob, given: RankInput, work: WorkDir, place: RankPlace, *, bar: bool = False
    ) -> None:
        """Takes what this rank is to do.

        Args:
            job: what runs.
            given: this attempt's input.
            work: the node's folder.
            place: this rank.
            bar: draw a progress bar instead of lines.
        """
        self._job = job
        self._given = given
        self._work = work
        self._place = place
        self._bar = bar
        self._ledger: Ledger | None = None
        self._sinks: list[Sink] = []

    @property
    def step(self) -> int:
        """Last finished optimizer step."""
        return 0 if self._ledger is None else self._ledger.state.step

    def run(self) -> Outcome:
        """Trains to the end and exports, or saves and stops when the node is asked to.

        Raises:
            SftjobError: what a person can repair.
        """
        fault("start")
        _quiet(self._place)
        _require_devices(self._job, self._place)
        if self._place.first:
            require(self._given.monitoring)
        try:
            return self._train()
        finally:
            for sink in self._sinks:
                sink.close()

    def _train(self) -> Outcome:
        method = fine_tuning(self._job.method)
        trainer, before = self._build(method)
        fault("built")
        if trainer.gang.all_asked_to_stop():
            return self._stopped_early()
        trainer.fit(self._given.resume)
        if not trainer.interrupted and trainer.eval_dataset is not None:
            trainer.evaluate()
        if trainer.interrupted or trainer.gang.all_asked_to_stop():
            return Outcome(ExitCode.INTERRUPTED, f"interrupted, step {self.step} is saved")
        check_changed(before, trainer.model)
        self._export(method, trainer)
        return Outcome(ExitCode.DONE)

    def _build(self, method: FineTuning) -> "tuple[RunTrainer, dict[str, float]]":
        """The trainer, and what its weights are before any training."""
        job, given = self._job, self._given
        train_rows = _rows(given.data / "train.arrow")
        held_out_rows = _rows(given.data / "eval.arrow") if (given.data / "eval.arrow").exists() else None
        self._ledger = Ledger(
            LedgerState(train_rows=len(train_rows))
            if given.resume is None
            else read_ledger(given.resume, train_rows=len(train_rows))
        )
        if job.launch.zero_stage:
            join_deepspeed(job.launch)
        # Before the model is loaded: under ZeRO-3 each rank then takes only its share of it.
        args = sft_config(
            job,
            self._work,
            held_out=held_out_rows is not None,
            evaluate_first=self._ledger.state.evaluation_owed,
        )
        model = self._model(method)
        before = dict(fingerprint(model))
        trainer = RunTrainer(
            model=model,
            method=method,
            args=args,
            train_rows=train_rows,
            held_out_rows=held_out_rows,
            tokenizer=_tokenizer(given.data / "tokenizer"),
            ledger=self._ledger,
            gang=Gang(self._place, self._work.preempt),
            callbacks=self._tellers(self._ledger) if self._place.first else [],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.add_callback(RunCallback(trainer, self._work, lambda: self._begin(trainer)))
        return trainer, before

    def _model(self, method: FineTuning) -> Model:
        training, zero = self._job.training, self._job.launch.zero_stage
        base = load_base(
            self._given.model,
            vocab_size=self._given.vocab_size,
            dtype=zero_dtype(training.precision) if zero else method.base_dtype(training.precision),
            seed=training.seed,
            quantization=method.quantization(training.precision),
        )
        set_seed(training.seed)  # adapters start at random
        model = method.prepare(base, base=_base_name(self._job.model), added_token_ids=self._given.added_token_ids)
        return match_dtypes(model, training.precision) if zero else model

    def _tellers(self, ledger: Ledger) -> list[TrainerCallback]:
        attempt = self._given.attempt
        self._sinks = open_sinks(self._given.monitoring, self._job, self._work.root, attempt)
        monitor = Monitor(visible_gpus())
        return [
            MetricsWriter(self._work.metrics, attempt=attempt, ledger=ledger, monitor=monitor, sinks=self._sinks),
            Progress(ledger, bar=self._bar),
        ]

    def _begin(self, trainer: RunTrainer) -> None:
        if self._job.training.packing:
            with trainer.accelerator.autocast():
                check_isolation(trainer.model, trainer.data_collator)
        record = environment.describe(self._job, self._given, trainer)
        if self._place.first:
            environment.write(record, self._work.environment)
        environment.check(record)

    def _stopped_early(self) -> Outcome:
        if self._given.resume is not None:
            return Outcome(ExitCode.INTERRUPTED, f"interrupted before a step was done; step {self.step} is saved")
        return Outcome(ExitCode.INTERRUPTED_UNSAVED, "interrupted before the first step")

    def _export(self, method: FineTuning, trainer: RunTrainer) -> None:
        fault("export")
        state_dict = trainer.gathered_weights()
        if self._place.first:
            tokenizer = self._given.data / "tokenizer"
            stop_token_ids = ChatTokenizer.from_folder(tokenizer).stop_token_ids
            export(
                method,
                trainer.model,
                self._work.export,
                tokenizer=tokenizer,
                stop_token_ids=stop_token_ids,
                state_dict=state_dict,
            )
            counts = count_parameters(trainer.model)
            print(f"exported step {self.step}: {counts.trainable:,} of {counts.total:,} parameters trained", flush=True)
        trainer.gang.wait()
        if self._place.first:
            self._work.exported.touch()
        fault("exported")


def _quiet(place: RankPlace) -> None:
    """Libraries' advice is for people who write their own scripts; their errors stay."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    if not place.first:
        logging.getLogger("trl").setLevel(logging.ERROR)


def _require_devices(job: ResolvedJob, place: RankPlace) -> None:
    if place.world_size != job.launch.world_size:
        raise ConfigurationError(
            f"{place.world_size} processes started, {job.launch.world_size} asked for",
            field="launch",
            hint="launch as many processes as nodes times processes per node",
        )
    visible = torch.cuda.device_count() if job.launch.device == "cuda" else 0
    if job.launch.device == "cuda" and place.local_rank >= visible:
        raise ConfigurationError(
            f"{visible} GPUs are visible, {job.launch.processes_per_node} asked for",
            field="launch.gpus_per_node",
            hint="ask for fewer, or give the pod more; 0 trains on the CPU",
        )


def _rows(path: Path) -> Dataset:
    if not path.exists():
        raise InputMissing("no prepared rows", file=str(path), hint="prepare the data again")
    return Dataset.from_file(str(path))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _base_name(source: ModelSource) -> BaseName:
    if isinstance(source, HubModel):
        return BaseName(name=source.hub, revision=source.revision)
    if isinstance(source, LocalModel):
        return BaseName(name=source.path)
    return BaseName(name=source.uri if isinstance(source, StoredModel) else source.name)
