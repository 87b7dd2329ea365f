"""What the gate is told from outside: environment variables and a few arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.contract import SPEC_FILE, Env, Mount
from sftjob.errors import SpecError

LOOK_SECONDS: Final = 10.0
_ENGINES: Final = ("job", "jobset")


@dataclass(frozen=True, kw_only=True)
class Settings:
    spec: Path
    """The authored spec as canonical JSON."""
    engine: str
    """`job` or `jobset`."""
    train: str
    """Name of the train Job or JobSet."""
    evaluation: str
    """Name of the eval Job."""
    namespace: str
    queue: str = ""
    """Kueue's queue; empty without Kueue."""
    storage_uri: str | None = None
    """Where runs live when the spec does not say."""
    look_seconds: float = LOOK_SECONDS
    """Between two looks, on average."""


def read_settings(
    environment: Mapping[str, str], *, spec: Path | None = None, look_seconds: float = LOOK_SECONDS
) -> Settings:
    """Arguments first, then the environment.

    Raises:
        SpecError: a variable is missing or is not what it should be; `field` names it.
    """
    engine, slash, train = _required(environment, Env.TRAIN).partition("/")
    if engine not in _ENGINES or not slash or not train:
        found = environment[Env.TRAIN]
        raise SpecError(f"{found!r} names no training", field=Env.TRAIN, hint="write job/NAME or jobset/NAME")
    if not 0 < look_seconds <= 3600:
        raise SpecError("is not between 0 and 3600", field="--look-seconds", hint="leave it out for 10 seconds")
    return Settings(
        spec=spec or Path(environment.get(Env.SPEC) or Path(Mount.SPEC, SPEC_FILE)),
        engine=engine,
        train=train,
        evaluation=_required(environment, Env.EVAL),
        namespace=_required(environment, Env.NAMESPACE),
        queue=environment.get(Env.QUEUE, ""),
        storage_uri=environment.get(Env.STORAGE_URI) or None,
        look_seconds=look_seconds,
    )


def _required(environment: Mapping[str, str], name: Env) -> str:
    value = environment.get(name, "")
    if not value:
        raise SpecError("is not set", field=name, hint="the gate is started by the Job that `sftjob render` writes")
    return value
