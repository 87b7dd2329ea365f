"""What every record is."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftjob.errors import StorageError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
R = TypeVar("R", bound="Stored")


class Stored(BaseModel):
    """Base of the parts of records."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class Record(Stored):
    """Base of everything that is an object of its own."""

    schema_version: int = 1


def read_record(cls: type[R], data: bytes, key: str) -> R:
    """Parses a stored record.

    Raises:
        StorageError: the object is not such a record; `key` names it.
    """
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(f"not a readable {cls.__name__}: {where}: {first['msg']}", file=key) from error
