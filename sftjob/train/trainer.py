"""TRL's SFTTrainer on tokenised rows: loss from plain logits, exact held-out loss, checkpoints without extras."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl
from trl import SFTConfig, SFTTrainer

from sftjob.errors import ConfigurationError
from sftjob.methods import FineTuning, Model
from sftjob.train.collate import IGNORED_LABEL, NOT_FOR_THE_MODEL, Collator
from sftjob.train.gang import Gang
from sftjob.train.ledger import Ledger


class TrainingComplete(Exception):
    """The checkpoint that was loaded is the last step's."""


@dataclass(frozen=True)
class Losses:
    """Per trained token of a batch, in the order of rows, then columns."""

    values: torch.Tensor
    """[trained tokens], float32: negative log-likelihoods."""
    rows: torch.Tensor
    """[trained tokens]: row of each."""
    outputs: Any
    """What the model returned."""


class Tally:
    """Sums over the micro-batches of one step, kept on the device so that reading them costs one wait a step."""

    def __init__(self) -> None:
        self._micro_batches: list[torch.Tensor] = []
        self.grad_norm: torch.Tensor | float = 0.0

    def add(self, *, loss: torch.Tensor, tokens: torch.Tensor, trained_tokens: int) -> None:
        counts = torch.stack([loss.detach().double(), tokens.double()])
        self._micro_batches.append(torch.cat([counts, counts.new_tensor([trained_tokens])]))

    def take(self) -> tuple[float, float, float, float]:
        """Loss sum, tokens, trained tokens and gradient norm of the step; begins the next one."""
        sums = torch.stack(self._micro_batches).sum(dim=0)
        norm = torch.as_tensor(self.grad_norm, dtype=torch.float64, device=sums.device)
        self._micro_batches = []
        loss, tokens, trained_tokens, grad_norm = torch.cat([sums, norm.reshape(1)]).tolist()
        return loss, tokens, trained_tokens, grad_norm


class RunTrainer(SFTTrainer):  # type: ignore[misc] # untyped base class
    """Trains one attempt of a run."""

    control: TrainerControl
    loss_is_scaled_for_ga = True
    """`compute_loss` divides by the labels of all micro-batches: Trainer must not divide once more."""

    def __init__(
        self,
        *,
        model: Model,
        method: FineTuning,
        args: SFTConfig,
        train_rows: Dataset,
        held_out_rows: Dataset | None,
        tokenizer: PreTrainedTokenizerBase,
        ledger: Ledger,
        gang: Gang,
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        """Prepares training.

        Args:
            model: what `method.prepare` returned.
            method: writes the checkpoints' weights.
            args: of `sft_config`.
            train_rows: columns `input_ids` and `labels`; packs have `seq_lengths` too.
            held_out_rows: columns `input_ids` and `labels`.
            tokenizer: for the ids of special tokens in the model's config.
            ledger: what the run has done before this attempt.
            gang: the other ranks.
            callbacks: run after transformers' own.
        """
        trained = _trained(model) if getattr(model, "is_loaded_in_4bit", False) else {}
        pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            eval_dataset=held_out_rows,
            processing_class=tokenizer,
            data_collator=Collator(pad_token_id=pad_token_id),
            callbacks=list(callbacks),
        )
        _restore(model, trained)
        self.ledger = ledger
        self.gang = gang
        self.tally = Tally()
        self.interrupted = False
        """This node or another was asked to stop, and all ranks know."""
        self._method = method
        self._selects_columns = "logits_to_keep" in inspect.signature(type(plain_model(model)).forward).parameters
        # Labels are counted after the shift, whatever loss the architecture declares: `_losses` shifts them itself.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True

    @property
    def zero_stage(self) -> int:
        """Of the engine that trains; 0 where there is none, or none yet."""
        engine = self.deepspeed if self.is_deepspeed_enabled else None
        return 0 if engine is None else int(engine.zero_optimization_stage())

    def fit(self, resume: Path | None) -> None:
        """Trains to the last step, or until `interrupted`.

        Args:
            resume: checkpoint to continue from.
        """
        try:
            self.train(resume_from_checkpoint=None if resume is None else str(resume))
        except TrainingComplete:
            return  # Trainer would add a step to a run that ends within an epoch (transformers 5.23)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood over the labels of the whole step, all ranks and micro-batches.

        SFTTrainer's own takes the loss from a fused head, which on a CPU costs 1.4 times the step, and ignores adapters
        on the head's weights (TRL 1.16).

        Returns:
            The micro-batch's share, times the number of ranks, over which DDP averages. With `return_outputs` also the
            model's outputs.
        """
        losses = self._losses(model, inputs)
        total = losses.values.sum()
        self.tally.add(loss=total, tokens=inputs["tokens"].sum(), trained_tokens=losses.values.numel())
        labels = losses.values.numel() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(labels, device=total.device).clamp(min=1) * self.accelerator.num_processes
        # Llama 4 declares such a loss and computes none (transformers 5.23).
        if self.aux_loss_enabled and losses.outputs.aux_loss is not None:
            # Balances a mixture of experts. It is a mean over a micro-batch, so it is averaged over them.
            share = self.router_aux_loss_coef / self.current_gradient_accumulation_steps
            loss = loss + share * losses.outputs.aux_loss
        return (loss, losses.outputs) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss per trained token over all held-out rows; Trainer's own is a mean of means over batches.

        Sets `interrupted`, and returns nothing, when a node is asked to stop meanwhile.
        """
        loss = self._held_out_loss(eval_dataset)
        if loss is None:
            self.interrupted = True
            self.ledger.owe_evaluation(True)
            self.control.should_evaluate, self.control.should_save = False, True
            self.control.should_training_stop = True
            return {}
        self.ledger.owe_evaluation(False)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Replaces Trainer's loss, which starts anew in every attempt, by the ledger's."""
        if "loss" in logs:
            window = self.ledger.close_window()
            logs["loss"] = window.loss
            if window.tokens_per_second is not None:
                logs["tokens_per_second"] = window.tokens_per_second
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """For a checkpoint. DeepSpeed saves weights along with optimizer states; there they are not written twice."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

    def gathered_weights(self) -> dict[str, torch.Tensor] | None:
        """Under ZeRO-3 the whole weights, on the first rank alone; None where the model holds them itself.

        All ranks must call it. The frozen base under an adapter is left out.
        """
        if self.zero_stage < 3:
            return None
        gathered: dict[str, torch.Tensor] | None = self.deepspeed._zero3_consolidated_16bit_state_dict(
            exclude_frozen_parameters=hasattr(self.model, "peft_config")
        )
        return gathered

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """None: TRL's would say what TRL assumes, and lie in every checkpoint."""

    def _losses(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Losses:
        labels = inputs["labels"][:, 1:]
        columns = (labels != IGNORED_LABEL).any(dim=0).nonzero().squeeze(1)
        forwarded: dict[str, Any] = {key: value for key, value in inputs.items() if key not in NOT_FOR_THE_MODEL}
        if self._selects_columns:
            # The head is a large matrix: it sees only columns where some row has a label.
            forwarded["logits_to_keep"] = columns
        if self.aux_loss_enabled:
            forwarded["output_router_logits"] = True
        outputs = model(**forwarded, use_cache=False)
        logits = outputs.logits if self._selects_columns else outputs.logits[:, columns]
        labels = labels[:, columns]
        labelled = labels != IGNORED_LABEL
        values = functional.cross_entropy(logits[labelled].float(), labels[labelled], reduction="none")
        return Losses(values, labelled.nonzero()[:, 0], outputs)

    @torch.no_grad()
    def _held_out_loss(self, rows: Dataset | None) -> float | None:
        """None when a node is asked to stop before the end."""
        self.model.eval()
        loss, trained_tokens = 0.0, 0.0
        # A loader draws from the generator that dropout draws from; a skipped evaluation must change nothing.
        with torch.random.fork_rng(devices=[]):
            for batch in self.get_eval_dataloader(rows):
                if self.gang.all_asked_to_stop():
                    return None
                inputs = self._prepare_inputs(batch)
                losses = self._losses(self.model, inputs)
                sums = torch.zeros(2, inputs["labels"].shape[0], dtype=torch.float64, device=losses.values.device)
                sums[0].index_add_(0, losses.rows, losses.values.double())
                sums[1].index_add_(0, losses.rows, torch.ones_like(losses.values, dtype=torch.float64))
                # Rows that fill up the last batch of the last rank are taken out again.
                whole = self.accelerator.gather_for_metrics(sums.T.contiguous())
                batch_loss, batch_tokens = whole.sum(dim=0).tolist()
                loss, trained_tokens = loss + batch_loss, trained_tokens + batch_tokens
        return loss / max(trained_tokens, 1.0)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: SFTConfig, model: Model | None = None) -> tuple[Any, dict[str, Any]]:
        """AdamW as asked for; where its states lie in the node's memory, the one that computes there."""
        known: tuple[Any, dict[str, Any]] = SFTTrainer.get_optimizer_cls_and_kwargs(args, model)
        zero = (args.deepspeed or {}).get("zero_optimization", {})
        if zero.get("offload_optimizer", {}).get("device") != "cpu":
            return known
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # noqa: PLC0415 - is compiled when it is first used

        options = {name: value for name, value in known[1].items() if name in ("lr", "betas", "eps", "weight_decay")}
        return DeepSpeedCPUAdam, options

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor | float:
        norm: torch.Tensor | float = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.tally.grad_norm = norm
        return norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self._method.save(self.model, folder, state_dict=state_dict, resumable=True)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A checkpoint that does not fit is no base to go on from; Trainer only warns."""
        tied = set(self.model.all_tied_weights_keys)
        if wrong := sorted({*load_result.missing_keys, *load_result.unexpected_keys} - tied):
            raise ConfigurationError(
                f"the checkpoint's weights do not fit the model: {wrong[0]}",
                hint="start another run with --new-run",
            )


def _trained(model: Model) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


@torch.no_grad()
def _restore(model: Model, trained: Mapping[str, torch.Tensor]) -> None:
    """Gives trained weights back what they were: SFTTrainer makes those over a quantised base bf16.

    Small updates vanish in bf16, and a resumed run would begin with rounded weights.
    """
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data = trained[name].to(parameter.device)


def plain_model(model: Model) -> torch.nn.Module:
    """The transformers model under an adapter."""
    base: torch.nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base
