"""From a file to a JobSpec or Profile, and from the container's JSON to the same JobSpec."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from sftjob.errors import Problem, SftjobError, SpecError
from sftjob.spec.document import Document, located
from sftjob.spec.identity import canonical_json, run_id
from sftjob.spec.job import JobSpec
from sftjob.spec.json import read_json
from sftjob.spec.names import check
from sftjob.spec.problems import problems_of
from sftjob.spec.profile import Profile
from sftjob.spec.types import SpecModel
from sftjob.spec.values import MAX_BYTES

M = TypeVar("M", bound=SpecModel)
E = TypeVar("E", bound=SftjobError)

_LARGE: Final = f"larger than {MAX_BYTES // 1024} KiB"
_LARGE_HINT: Final = "a spec names data, it does not hold them"


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and where each of its fields comes from."""

    spec: JobSpec
    lines: dict[str, int]
    """1-based line of each field that comes from the file, by its dotted path; list items are `data.train.0.path`, the
    whole document is the empty path."""
    file: str
    """The file as the person wrote it."""
    folder: Path
    """Absolute folder of the file, where relative paths in the spec start."""
    origins: dict[str, str] = field(default_factory=dict)
    """`--set a.b=…` for each path that comes from the command line."""

    def located(self, error: E) -> E:
        """The same error with file and line, or the `--set`, filled in where a problem names only a field."""
        return type(error)(located(error.problems, self.file, self.lines, self.origins))


def load_spec(path: Path, *, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Reads a spec as a person wrote it.

    The values take the same way as in the container: data, canonical JSON (RFC 8785), `JobSpec` in strict mode.

    Args:
        path: a YAML file of at most 128 KiB; which YAML is said in `sftjob.spec.yaml` and `sftjob.spec.scalars`.
        overrides: `a.b=c` assignments of `--set`, applied in their order before validation, exactly as if the file
            said so. `c` is a YAML scalar or flow value: `training.learning_rate=1e-3`, `data.train.0.path=x.jsonl`,
            `method.target_modules=[q_proj, v_proj]`, `salt="007"`. Missing parents are created; an index addresses an
            existing item; a value is replaced as a whole, and text has no fields to set.
            A key with a dot in it is set with its parent: `kubernetes.labels={example.com/team: a}`.

    Raises:
        SpecError: with every problem that can be found, in the order of the file, then those of `overrides`, which name
            `--set a.b=…` instead of a file and a line.
    """
    # PyYAML takes as long to import as everything else here, and PID 1 never needs it.
    from sftjob.spec.overrides import override  # noqa: PLC0415

    file = str(path)
    document = override(_document(path, file), overrides)
    spec = _validated(JobSpec, document, file)
    loaded = LoadedSpec(spec, document.lines, file, path.parent.absolute(), document.origins)
    try:
        check(run_id(spec), pods=spec.launch.nodes)
    except SpecError as error:
        raise loaded.located(error) from error
    return loaded


def load_profile(path: Path) -> Profile:
    """Reads a profile; the rules are those of `load_spec`.

    Raises:
        SpecError: with every problem that can be found.
    """
    file = str(path)
    return _validated(Profile, _document(path, file), file)


def parse_spec_json(data: bytes, file: str) -> JobSpec:
    """Reads the authored spec as the ConfigMap carries it.

    Args:
        data: JSON of at most 128 KiB; canonical when we wrote it, which is not required.
        file: what messages call it.

    Raises:
        SpecError: with every problem that can be found; there are no lines.
    """
    if len(data) > MAX_BYTES:
        raise SpecError(_LARGE, file=file, hint=_LARGE_HINT)
    return _validated(JobSpec, read_json(data), file)


def _document(path: Path, file: str) -> Document:
    from sftjob.spec.yaml import read_yaml  # noqa: PLC0415 - as in `load_spec`

    return read_yaml(_text(path, file))


def _text(path: Path, file: str) -> str:
    """The file's text with LF alone at the ends of lines."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SpecError("no such file", file=file, hint="check the path") from error
    except IsADirectoryError as error:
        raise SpecError("is a folder", file=file, hint="name the YAML file in it") from error
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=file, hint="check its permissions") from error
    if len(data) > MAX_BYTES:
        raise SpecError(_LARGE, file=file, hint=_LARGE_HINT)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        raise SpecError(reason, file=file, line=line, hint="save it as UTF-8") from error


def _validated(model: type[M], document: Document, file: str) -> M:
    """Validates a document and raises what its reader and the model have to say together."""
    problems = list(document.problems)
    parsed: M | None = None
    if isinstance(document.value, dict):
        data = canonical_json(document.value)
        if len(data) > MAX_BYTES:
            problems.append(Problem(reason=f"{_LARGE} as JSON", hint=_LARGE_HINT))
        try:
            parsed = model.model_validate_json(data)
        except ValidationError as error:
            problems += _unexplained(problems_of(error, model), document.refused)
    elif not problems:
        problems.append(Problem(reason="is not a mapping", hint="begin with a line such as `name: my-job`"))
    if parsed is None or problems:
        raise SpecError(located(problems, file, document.lines, document.origins))
    return parsed


def _unexplained(problems: Iterable[Problem], refused: frozenset[str]) -> list[Problem]:
    """Without what only follows from a placeholder: problems of a refused field."""
    return [problem for problem in problems if problem.field not in refused]
