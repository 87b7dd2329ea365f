"""What is done as asked and may still surprise: told when a run starts."""

from collections.abc import Iterator

from sftjob.resolve.job import ResolvedJob
from sftjob.resolved import ResolvedFull


def notes_on(job: ResolvedJob) -> Iterator[str]:
    """A line for each thing that people should know before they wait for the result."""
    experts = job.facts.num_experts
    if experts and not isinstance(job.method, ResolvedFull) and job.method.target_modules == "all-linear":
        yield (
            f"the {experts} experts of each layer stay as they are: `all-linear` means linear layers, and experts are "
            "3-D parameters; name experts.gate_up_proj and experts.down_proj in method.target_modules, beside the "
            "others, to adapt them, which takes more memory"
        )
