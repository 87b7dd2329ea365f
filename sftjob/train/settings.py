"""What the supervisor is told from outside: environment variables and two arguments. Nothing else reads them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from sftjob.contract import LOCAL_OWNER, SPEC_FILE, Env, Mount
from sftjob.errors import SpecError

GRACE_SECONDS_DEFAULT: Final = 600.0
MASTER_PORT_DEFAULT: Final = 29500
"""torchrun's own."""
_INPUTS: Final = TypeAdapter(dict[str, Path])


@dataclass(frozen=True, kw_only=True)
class Settings:
    spec: Path
    """The authored spec as canonical JSON."""
    work: Path
    owner: str = LOCAL_OWNER
    pod_uid: str = ""
    index: int = 0
    """Of this pod in its gang."""
    master_addr: str | None = None
    """Where pod 0 can be reached; several nodes need it."""
    master_port: int = MASTER_PORT_DEFAULT
    grace_seconds: float = GRACE_SECONDS_DEFAULT
    storage_uri: str | None = None
    """Where runs live when the spec does not say."""
    cache: Path | None = None
    """Folder in which base models are kept for other pods."""
    inputs: Mapping[str, Path]
    """Pinned inputs that lie on this machine already: {sha256: path}."""
    die_with_parent: bool = False
    patience_seconds: float = 1800.0
    """How long pods wait for one another: to come, to be ready to start, and to upload their part of a checkpoint."""
    look_seconds: float = 3.0
    """How often a pod looks for what its peers have stored."""


def read_settings(environment: Mapping[str, str], *, spec: Path | None = None, work: Path | None = None) -> Settings:
    """Arguments first, then the environment, then the container's mount paths.

    Raises:
        SpecError: a variable is not what it should be; the message names it.
    """
    return Settings(
        spec=spec or Path(environment.get(Env.SPEC) or Path(Mount.SPEC, SPEC_FILE)),
        work=(work or Path(environment.get(Env.WORK) or Mount.WORK)).absolute(),
        owner=environment.get(Env.OWNER) or LOCAL_OWNER,
        pod_uid=environment.get(Env.POD_UID, ""),
        index=int(_number(environment, Env.POD_INDEX, 0)),
        master_addr=environment.get(Env.MASTER_ADDR) or None,
        master_port=int(_number(environment, Env.MASTER_PORT, MASTER_PORT_DEFAULT)),
        grace_seconds=_number(environment, Env.GRACE_SECONDS, GRACE_SECONDS_DEFAULT),
        storage_uri=environment.get(Env.STORAGE_URI) or None,
        cache=Path(cache).absolute() if (cache := environment.get(Env.CACHE)) else None,
        inputs=_inputs(environment),
        die_with_parent=environment.get(Env.DIE_WITH_PARENT) == "1",
    )


def _number(environment: Mapping[str, str], name: Env, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1e9:
        raise SpecError(f"{text!r} is not a number of 0 or more", field=name, hint="repair or unset the variable")
    return number


def _inputs(environment: Mapping[str, str]) -> dict[str, Path]:
    text = environment.get(Env.INPUTS) or "{}"
    try:
        return _INPUTS.validate_python(json.loads(text))
    except (json.JSONDecodeError, ValidationError) as error:
        raise SpecError(
            "not a JSON object of SHA-256 to path", field=Env.INPUTS, hint="leave it to `sftjob run`"
        ) from error
