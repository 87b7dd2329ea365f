"""The DeepSpeed configuration of a job: https://www.deepspeed.ai/docs/config-json/."""

from collections.abc import Mapping
from typing import Any, Final

from sftjob.errors import SpecError
from sftjob.resolved import ResolvedLaunch, ResolvedTraining

_BUCKET: Final = 50_000_000
"""Elements that are exchanged at once; DeepSpeed's own 5e8 takes gigabytes that the planner would have to count."""
_OWNED: Final[Mapping[str, str]] = {
    "train_batch_size": "training.train_batch_size",
    "train_micro_batch_size_per_gpu": "training.per_device_train_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "gradient_clipping": "training.max_grad_norm",
    "optimizer": "training.optim",
    "scheduler": "training.lr_scheduler_type",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "zero_optimization.stage": "launch.strategy",
    "zero_optimization.offload_optimizer.device": "launch.offload_optimizer",
    "zero_optimization.offload_param.device": "launch.offload_param",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": "",
}
"""Keys that follow from fields of the spec; those without a field must stay as they are."""


def deepspeed_config(
    training: ResolvedTraining, launch: ResolvedLaunch, extended: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What DeepSpeed is given, in its own words; None without ZeRO.

    Args:
        extended: the user's keys, which are put over the generated ones, each at its own depth.

    Raises:
        SpecError: a key that follows from another field of the spec.
    """
    if not launch.zero_stage:
        return None
    for key, field in _OWNED.items():
        if _holds(extended, key.split(".")):
            raise SpecError(
                f"`{key}` follows from `{field}`" if field else f"`{key}` must stay as it is, or exports are empty",
                field=f"launch.deepspeed.{key}",
                hint=f"set {field} instead" if field else "leave it out",
            )
    return _merged(_generated(training, launch), extended)


def _generated(training: ResolvedTraining, launch: ResolvedLaunch) -> dict[str, Any]:
    micro, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    return {
        "train_batch_size": micro * steps * launch.world_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": steps,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": training.precision == "bf16"},
        "zero_optimization": _zero(launch),
        # The optimizer is the trainer's own AdamW, of which DeepSpeed's list of tested ones knows the plain form only.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31 - 1,
    }


def _zero(launch: ResolvedLaunch) -> dict[str, Any]:
    stage = launch.zero_stage
    on_gpu = launch.device == "cuda"
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": on_gpu,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if launch.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if stage == 3:
        if launch.offload_param:
            zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            # Without it a saved model has no weights.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return zero


def _merged(generated: Mapping[str, Any], extended: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(generated)
    for key, value in extended.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _holds(tree: Mapping[str, Any], keys: list[str]) -> bool:
    inner = tree.get(keys[0])
    if len(keys) == 1:
        return keys[0] in tree
    return isinstance(inner, dict) and _holds(inner, keys[1:])
