"""Finding the profile: a file, a name in the user's config folder, or the default there."""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sftjob.contract import UserEnv
from sftjob.errors import Problem, SpecError
from sftjob.inputs import silent
from sftjob.spec import Profile, load_profile

_SUFFIXES: Final = (".yaml", ".yml")


def find_profile(
    value: str | Path | None = None,
    *,
    progress: Callable[[str], None] = silent,
    environment: Mapping[str, str] = os.environ,
) -> Profile:
    """The platform's half of a job.

    Args:
        value: a file, or the name of one below `profiles/` in the config folder. Without it the variable counts
            (`contract.UserEnv`), then `profile.yaml` in the config folder where there is one, then an empty profile.
        progress: is told which one was taken when nobody has named it on the command line.
        environment: where the variables and the config folder are found.

    Raises:
        SpecError: there is no such file or name, or the profile is wrong.
    """
    folder = config_folder(environment)
    if value is not None:
        return load_profile(_path(str(value), folder))
    if named := environment.get(UserEnv.PROFILE):
        path = _path(named, folder)
        progress(f"profile  {path} ({UserEnv.PROFILE})")
        return load_profile(path)
    default = folder / "profile.yaml"
    if default.is_file():
        progress(f"profile  {default} (the default)")
        return load_profile(default)
    return Profile()


def config_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where profiles are looked up: `$XDG_CONFIG_HOME/sftjob`, by default `~/.config/sftjob`."""
    base = environment.get("XDG_CONFIG_HOME", "")
    # The specification lets a relative path be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "sftjob"


def _path(value: str, folder: Path) -> Path:
    """A path stays one; a bare word is a name, unless a file of that name is here."""
    path = Path(value).expanduser()
    if "/" in value or value.endswith(_SUFFIXES) or path.is_file():
        return path
    for suffix in _SUFFIXES:
        named = folder / "profiles" / f"{value}{suffix}"
        if named.is_file():
            return named
    raise SpecError([_unknown(value, folder / "profiles")])


def _unknown(name: str, folder: Path) -> Problem:
    names = sorted(path.stem for path in folder.glob("*") if path.suffix in _SUFFIXES)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean `{close[0]}`?"
    elif names:
        hint = f"there are {', '.join(names)}"
    else:
        hint = f"write {folder / name}.yaml, or name a file"
    return Problem(field="--profile", reason=f"no profile {name!r} in {folder}", hint=hint)
