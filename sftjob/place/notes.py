"""What is worth knowing of a placement before it costs something; nothing of it is wrong."""

from collections.abc import Iterator

from sftjob.place import Placement


def notes_on(placement: Placement) -> Iterator[str]:
    """A line for each thing."""
    train, evaluation = placement.train, placement.evaluation
    if placement.nodes > 1 and train.gpus and not placement.extra_resources:
        yield (
            f"{placement.nodes} nodes and no fast network between them: without `extra_resources` in the profile (EFA, "
            "RDMA) NCCL takes TCP and says so only in its log"
        )
    if evaluation and train.gpus > 1 and evaluation.memory == train.memory:
        yield (
            f"the evaluation asks for {evaluation.memory} of memory, as the training with {train.gpus} GPUs does; "
            "`resources.evaluation` makes it fit on smaller nodes"
        )
