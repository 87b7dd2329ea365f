"""`sftjob validate`: everything that can be known without a network, a GPU or torch."""

from collections.abc import Iterator
from pathlib import Path

from sftjob.app.model_config import read_facts
from sftjob.app.plan import plan_of
from sftjob.app.plan_text import verdict
from sftjob.errors import SftjobError
from sftjob.inputs import base_name, pin_local
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec, LoadedSpec, LocalModel


def validate(loaded: LoadedSpec, *, config: Path | None = None) -> Iterator[str]:
    """Yields what was found to be right, a line each.

    Args:
        loaded: the spec.
        config: config.json of the model, where the spec names none on this machine.

    Raises:
        SftjobError: what is not, with file and line.
    """
    spec = loaded.spec
    yield f"ok       {loaded.file}: {spec.name}, {spec.method.type} on {base_name(spec.model)}"
    try:
        pinned, inputs = pin_local(spec, loaded.folder)
        if inputs:
            yield f"ok       {len(inputs)} local input{'s' if len(inputs) > 1 else ''} found and hashed"
        if config is None and not isinstance(spec.model, LocalModel):
            yield (
                f"unknown  whether settings fit {base_name(spec.model)}: its config is read when the job starts, or "
                "given with --config"
            )
            return
        facts = read_facts(loaded, config)
        yield f"ok       {_summary(spec, resolve(pinned, facts))}"
        yield verdict(plan_of(pinned, facts))
        if isinstance(spec.model, LocalModel):
            yield _checked_template(pinned, loaded.folder / Path(spec.model.path).expanduser())
    except SftjobError as error:
        raise loaded.located(error) from error


def _checked_template(pinned: JobSpec, model: Path) -> str:
    """Whether tokenizer and template fit each other; needs what tokenises, but no model."""
    try:
        from sftjob.data.encode import template_of  # noqa: PLC0415 - the core has no tokenizer
        from sftjob.data.tokenizer import ChatTokenizer  # noqa: PLC0415
    except ImportError:
        return "unknown  whether the chat template fits: that needs the extra `train`"
    tokenizer = ChatTokenizer.from_folder(model, template=template_of(pinned.data))
    return f"ok       chat template {tokenizer.template.sha256[:8]} ends a turn with a token that is trained"


def _summary(spec: JobSpec, job: ResolvedJob) -> str:
    length = (
        f"{job.training.max_steps} steps" if job.training.max_steps > 0 else f"{job.training.num_train_epochs:g} epochs"
    )
    return (
        f"{length}, {job.rows_per_step} rows a step, {job.training.max_length} tokens a row, "
        f"learning rate {job.training.learning_rate:g}, {job.launch.world_size} x {job.launch.device} "
        f"({job.launch.strategy}), run {job.run_id.removeprefix(spec.name + '-')}"
    )
