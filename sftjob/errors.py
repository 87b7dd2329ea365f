"""The error tree. Every error that a person can cause or repair is one of these; anything else is a bug.

    SftjobError
    ├── SpecError            64  the spec or the command line is wrong
    ├── DataError            65  a row or a data set is wrong
    ├── InputMissing         66  a file, model, revision or data set is not there
    │   └── ObjectMissing        no such object or namespace in the cluster
    ├── ClusterError         69  the cluster does not answer as it should
    │   ├── ClusterUnavailable   no cluster is configured, or none answers
    │   └── Conflict             somebody else has changed the object
    ├── CrashError           70  a rank died
    ├── DiskFull             73  no space left
    ├── StorageError         74  the object store does not answer
    │   ├── NotFound             no such object or bucket
    │   ├── Exists               the object is there already (conditional put)
    │   └── Unavailable          no answer inside the deadline
    ├── Denied               77  credentials or permission
    ├── ConfigurationError   78  the configuration does not fit the run, the model or the machine
    ├── Diverged             80  the loss is not finite
    ├── Superseded           81  a newer attempt owns the run
    ├── Hang                 82  no progress
    └── Held                 84  another Job owns the run

An error carries one or more `Problem`s. `str(error)` is one line a problem: `file:line: field: reason; next step`.
Interruption (75, 76) and walltime (83) are outcomes, not errors: `sftjob.train` returns them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from sftjob.contract import ExitCode


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake and its repair, for a person: where, which field, why, and what to do next."""

    reason: str
    file: str = ""
    line: int = 0
    """1-based physical line; 0 when no line can be named."""
    field: str = ""
    """Dotted path, for instance `training.max_length`."""
    hint: str = ""
    """The next step, without a full stop."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file and self.line else self.file
        text = ": ".join(part for part in (where, self.field, self.reason) if part)
        whole = f"{text}; {self.hint}" if self.hint else text
        # The names of columns and files are other people's: they may hold line breaks and what steers a terminal.
        return "".join(each if each.isprintable() else "\ufffd" for each in whole)


class SftjobError(Exception):
    """Root of the tree; `exit_code` is what the process ends with."""

    exit_code: ClassVar[ExitCode] = ExitCode.CRASH

    def __init__(
        self, reason: str | Iterable[Problem], *, file: str = "", line: int = 0, field: str = "", hint: str = ""
    ) -> None:
        if isinstance(reason, str):
            self.problems: tuple[Problem, ...] = (Problem(reason=reason, file=file, line=line, field=field, hint=hint),)
        else:
            self.problems = tuple(reason)
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def __reduce__(self) -> tuple[type["SftjobError"], tuple[tuple[Problem, ...]]]:
        """Comes whole out of a worker process."""
        return type(self), (self.problems,)


class SpecError(SftjobError):
    exit_code = ExitCode.SPEC


class DataError(SftjobError):
    exit_code = ExitCode.DATA


class InputMissing(SftjobError):
    exit_code = ExitCode.INPUT


class ObjectMissing(InputMissing):
    """No such object or namespace in the cluster."""


class ClusterError(SftjobError):
    exit_code = ExitCode.CLUSTER


class ClusterUnavailable(ClusterError):
    """No cluster is configured, or none answers."""


class Conflict(ClusterError):
    """Somebody else has changed the object, or owns the field."""


class CrashError(SftjobError):
    exit_code = ExitCode.CRASH


class DiskFull(SftjobError):
    exit_code = ExitCode.DISK_FULL


class StorageError(SftjobError):
    exit_code = ExitCode.STORAGE


class NotFound(StorageError):
    """No such object or bucket. Never raised for a refusal: that is `Denied`."""


class Exists(StorageError):
    """A conditional put found an object under the key."""


class Unavailable(StorageError):
    """No answer inside the deadline, after retries."""


class Denied(SftjobError):
    exit_code = ExitCode.CREDENTIALS


class ConfigurationError(SftjobError):
    exit_code = ExitCode.CONFIGURATION


class Diverged(SftjobError):
    exit_code = ExitCode.DIVERGED


class Superseded(SftjobError):
    exit_code = ExitCode.SUPERSEDED


class Hang(SftjobError):
    exit_code = ExitCode.HANG


class Held(SftjobError):
    exit_code = ExitCode.HELD
