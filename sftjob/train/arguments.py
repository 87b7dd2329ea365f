"""ResolvedJob → SFTConfig: everything that TRL may decide is decided here."""

from trl import SFTConfig

from sftjob.resolve import ResolvedJob
from sftjob.resolved import ResolvedLaunch, ResolvedTraining
from sftjob.spec import METHOD_RULES
from sftjob.train.workdir import WorkDir

_WORKERS_ON_GPU = 2
"""Processes that collate batches; on a CPU they would take time from the training itself."""


def sft_config(job: ResolvedJob, work: WorkDir, *, held_out: bool, evaluate_first: bool) -> SFTConfig:
    """Arguments of the trainer.

    Args:
        job: what runs.
        work: its `checkpoints` get the checkpoints.
        held_out: there are rows for the held-out loss.
        evaluate_first: the checkpoint that training continues from owes its held-out loss.
    """
    training, launch = job.training, job.launch
    on_cpu = launch.device == "cpu"
    return SFTConfig(
        output_dir=str(work.checkpoints),
        # What is learned, and how fast.
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        lr_scheduler_kwargs=_schedule(training),
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune_noise_alpha or None,
        optim=training.optim,
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        per_device_eval_batch_size=training.per_device_eval_batch_size,
        average_tokens_across_devices=True,
        # Rows are tokens already, and packs where they are to be packed.
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        # The order of rows must follow from the seed alone, or a run could not be continued.
        seed=training.seed,
        data_seed=training.seed,
        accelerator_config={"use_seedable_sampler": True},
        # How it is computed.
        use_cpu=on_cpu,
        bf16=training.precision == "bf16",
        activation_checkpointing=training.gradient_checkpointing,
        # PEFT under ZeRO-3 needs the reentrant kind: https://github.com/deepspeedai/DeepSpeed/pull/8130
        activation_checkpointing_kwargs={
            "use_reentrant": launch.zero_stage == 3 and METHOD_RULES[job.method.type].adapter
        },
        deepspeed=launch.deepspeed,
        ddp_backend=_backend(launch),
        ddp_find_unused_parameters=False,
        dataloader_num_workers=0 if on_cpu else _WORKERS_ON_GPU,
        dataloader_pin_memory=not on_cpu,
        # Ours pass `use_cache=False` to every forward; the trainer would write its choice into the exported config.
        use_cache=True,
        # What is told and kept. Old checkpoints are deleted by whoever has committed newer ones.
        logging_strategy="steps",
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if held_out else "no",
        eval_steps=training.eval_steps,
        eval_on_start=held_out and evaluate_first,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=None,
        report_to="none",
        disable_tqdm=True,
        push_to_hub=False,
    )


def _backend(launch: ResolvedLaunch) -> str | None:
    if launch.world_size == 1 and not launch.zero_stage:
        return None
    return "gloo" if launch.device == "cpu" else "nccl"


def _schedule(training: ResolvedTraining) -> dict[str, float]:
    return {"min_lr_rate": training.min_lr_rate} if training.lr_scheduler_type == "cosine_with_min_lr" else {}
