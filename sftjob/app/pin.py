"""Makes a spec name this machine's own things by content, before its identity is taken."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sftjob.errors import SftjobError
from sftjob.inputs import pin_local
from sftjob.spec import JobSpec, LoadedSpec, authored, canonical_json, parse_spec_json, run_id

DEFAULT_STORAGE: Final = "runs"
"""Beside the spec file, where a spec names no storage."""


@dataclass(frozen=True)
class PinnedJob:
    """A spec that runs on this machine as it is."""

    spec: JobSpec
    inputs: Mapping[str, Path]
    """Where the pinned inputs lie: {sha256: path}."""
    notes: tuple[str, ...]
    """What was changed for this machine and matters to a person."""

    @property
    def run_id(self) -> str:
        return run_id(self.spec)

    @property
    def storage_uri(self) -> str:
        """`s3://…` or an absolute path."""
        return self.spec.storage.uri or ""


def pin_for_machine(
    loaded: LoadedSpec, gpus: list[str], *, new_run: bool = False, progress: Callable[[str], None]
) -> PinnedJob:
    """Pins local inputs by hash, writes the machine's GPUs into `launch` and makes the store's path absolute.

    Args:
        gpus: product names of the GPUs here.
        new_run: sets another `salt`, so that the spec is a run of its own.

    Raises:
        SftjobError: an input is missing or the spec cannot run here, with file and line.
    """
    try:
        spec, notes = _for_machine(loaded, gpus, new_run=new_run)
        pinned, inputs = pin_local(spec, loaded.folder, progress=progress)
    except SftjobError as error:
        raise loaded.located(error) from error
    return PinnedJob(spec=pinned, inputs=inputs, notes=notes)


def _for_machine(loaded: LoadedSpec, gpus: list[str], *, new_run: bool) -> tuple[JobSpec, tuple[str, ...]]:
    document = authored(loaded.spec)
    launch, notes = _launch(loaded.spec, gpus)
    document["launch"] = {**document.get("launch", {}), **launch}
    if not launch["gpus_per_node"] or "gpu" not in launch:
        document["launch"].pop("gpu", None)
    if launch["gpus_per_node"]:
        document["launch"].pop("processes_per_node", None)
    document["storage"] = {**document.get("storage", {}), "uri": _absolute(loaded)}
    if new_run:
        document["salt"] = secrets.token_hex(8)
    return parse_spec_json(canonical_json(document), loaded.file), notes


def _launch(spec: JobSpec, gpus: list[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The machine's own `launch`, and what changes by it. A spec that asks for the CPU gets the CPU."""
    asked = spec.launch
    wants_cpu = "gpus_per_node" in asked.model_fields_set and asked.gpus_per_node == 0
    if wants_cpu or not gpus:
        here: dict[str, Any] = {"nodes": 1, "gpus_per_node": 0}
        processes = asked.processes_per_node or 1 if wants_cpu else 1
    else:
        here = {"nodes": 1, "gpus_per_node": len(gpus), "gpu": gpus[0]}
        processes = len(gpus)
    if processes == asked.processes or "launch" not in spec.model_fields_set:
        return here, ()
    return here, (
        f"the spec trains with {asked.processes} processes, this machine with {processes}: "
        f"a step sees {processes}/{asked.processes} of the rows; set gradient_accumulation_steps to keep them equal",
    )


def _absolute(loaded: LoadedSpec) -> str:
    uri = loaded.spec.storage.uri or DEFAULT_STORAGE
    if uri.startswith("s3://"):
        return uri
    return str((loaded.folder / Path(uri.removeprefix("file://")).expanduser()).resolve())
