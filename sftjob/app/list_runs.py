"""`sftjob list`: all runs of a namespace or of the cluster, in as few requests as pages."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sftjob.cluster.api import Cluster
from sftjob.cluster.objects import Workload
from sftjob.cluster.phase import Phase, job_phase
from sftjob.cluster.runs import check_namespace, workloads
from sftjob.contract import Component


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run, as far as its Jobs tell; pods are not asked for."""

    run_id: str
    namespace: str
    revision: str
    phase: Phase
    created: datetime | None
    nodes: int
    gpus: int
    """Of all nodes together."""
    restarts: int
    """That the Job or JobSet counts; interruptions are not among them."""


def list_runs(cluster: Cluster, *, all_namespaces: bool = False) -> list[Listed]:
    """All runs, newest first.

    Raises:
        ObjectMissing: the namespace is not there.
        Denied: no permission to list Jobs.
    """
    found = _joined(_lean(workloads(cluster, all_namespaces=all_namespaces)))
    if not found and not all_namespaces:
        check_namespace(cluster)
    return sorted(found, key=lambda each: (-(each.created.timestamp() if each.created else 0.0), each.run_id))


def list_lines(runs: Iterable[Listed], *, namespaces: bool) -> Iterator[str]:
    """A table with a line for each run."""
    head = [*(["NAMESPACE"] if namespaces else []), "RUN", "PHASE", "AGE", "NODES", "GPUS", "RESTARTS", "REVISION"]
    rows = [[*([each.namespace] if namespaces else []), *_cells(each)] for each in runs]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def list_json(runs: Iterable[Listed]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "run_id": each.run_id,
            "namespace": each.namespace,
            "revision": each.revision,
            "phase": each.phase.value,
            "created": each.created.isoformat() if each.created else None,
            "nodes": each.nodes,
            "gpus": each.gpus,
            "restarts": each.restarts,
        }
        for each in runs
    ]


@dataclass(frozen=True)
class _Part:
    """What of a Job is kept while the others are read: a thousand whole Jobs are many megabytes."""

    key: tuple[str, str, str]
    component: str
    phase: Phase
    created: datetime | None
    nodes: int
    gpus: int
    restarts: int


def _lean(found: Iterable[Workload]) -> Iterator[_Part]:
    for each in found:
        yield _Part(
            key=(each.namespace, each.run_id, each.revision),
            component=each.component,
            phase=job_phase(each),
            created=each.created,
            nodes=each.pods,
            gpus=each.pods * each.gpus_per_pod,
            restarts=each.restarts,
        )


def _joined(found: Iterable[_Part]) -> list[Listed]:
    """Trainings with the evaluation of the same revision."""
    trainings: dict[tuple[str, str, str], _Part] = {}
    evaluations: dict[tuple[str, str, str], _Part] = {}
    for each in found:
        (trainings if each.component == Component.TRAIN.value else evaluations)[each.key] = each
    return [_listed(trainings.get(key), evaluations.get(key)) for key in {**trainings, **evaluations}]


def _listed(train: _Part | None, evaluation: _Part | None) -> Listed:
    shown = train or evaluation
    assert shown is not None
    namespace, run_id, revision = shown.key
    return Listed(
        run_id=run_id,
        namespace=namespace,
        revision=revision,
        phase=_phase(train, evaluation),
        created=shown.created,
        nodes=shown.nodes,
        gpus=shown.gpus,
        restarts=shown.restarts,
    )


_EVALUATION = {
    Phase.SUSPENDED: Phase.TRAINED,
    Phase.TRAINING: Phase.EVALUATING,
    Phase.PENDING: Phase.TRAINED,
}
"""What a Job's own phase means where it evaluates."""


def _phase(train: _Part | None, evaluation: _Part | None) -> Phase:
    if evaluation is None or (train is not None and train.phase is not Phase.DONE):
        return train.phase if train else Phase.GONE
    return _EVALUATION.get(evaluation.phase, evaluation.phase)


def table_age(created: datetime | None) -> str:
    """`45s`, `12m`, `5h`, `3d`: as kubectl writes it."""
    if created is None:
        return "?"
    seconds = max(int((datetime.now(UTC) - created).total_seconds()), 0)
    for unit, size, enough in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < enough:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"


def _cells(run: Listed) -> list[str]:
    numbers = [str(run.nodes), str(run.gpus), str(run.restarts)]
    return [run.run_id, run.phase.value, table_age(run.created), *numbers, run.revision]
