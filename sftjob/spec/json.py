"""The JSON reader of specs: what the YAML reader gives, from bytes that a program wrote."""

import json
from typing import Final

from sftjob.errors import Problem
from sftjob.spec.document import PLACEHOLDER, Document
from sftjob.spec.values import MAX_DEPTH, MAX_NODES, Json, Refusal, key_refusal, number_refusal, text_refusal

_HINT: Final = "render the job again"
_MAX_DIGITS: Final = 400
"""Python refuses to convert integers of some thousands of digits; all of these are beyond 2^53 anyway."""


def read_json(data: bytes) -> Document:
    """Reads JSON under the rules of `sftjob.spec.values`.

    What is not JSON, repeats a key, holds null, or has more than 20 levels or 10,000 values is refused, too. There are
    no lines. Nothing is raised.
    """
    walk = _Walk()
    try:
        parsed = json.loads(data.decode(), object_pairs_hook=_unique, parse_int=_integer)
        value = walk.value(parsed, "", 0)
    except _Unreadable as error:
        return Document(problems=(error.problem,))
    except RecursionError:
        return Document(problems=(_TOO_DEEP,))
    except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
        return Document(problems=(Problem(reason=f"not JSON ({type(error).__name__})", hint=_HINT),))
    return Document(value, problems=tuple(walk.problems), refused=frozenset(walk.refused))


_TOO_DEEP: Final = Problem(reason=f"nested more than {MAX_DEPTH} levels deep", hint=_HINT)


class _Unreadable(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Walk:
    """Copies what `json` has parsed and notes what is refused."""

    def __init__(self) -> None:
        self._nodes = 0
        self.problems: list[Problem] = []
        self.refused: set[str] = set()

    def value(self, parsed: object, field: str, depth: int) -> Json:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Unreadable(Problem(reason=f"more than {MAX_NODES} values", hint=_HINT))
        if depth > MAX_DEPTH:
            raise _Unreadable(_TOO_DEEP)
        match parsed:
            case dict():
                return {
                    key: self.value(inner, f"{field}.{key}" if field else key, depth + 1)
                    for key, inner in parsed.items()
                    if not self._note(field, key_refusal(key))
                }
            case list():
                return [
                    self.value(inner, f"{field}.{index}" if field else str(index), depth + 1)
                    for index, inner in enumerate(parsed)
                ]
            case bool():
                return parsed
            case int() | float():
                return self._checked(parsed, field, number_refusal(parsed, repr(parsed)))
            case str():
                return self._checked(parsed, field, text_refusal(parsed))
        return self._checked(PLACEHOLDER, field, Refusal("has no value", "leave the key out"))

    def _checked(self, parsed: int | float | str, field: str, refusal: Refusal | None) -> Json:
        if not self._note(field, refusal):
            return parsed
        self.refused.add(field)
        return PLACEHOLDER

    def _note(self, field: str, refusal: Refusal | None) -> bool:
        if refusal is None:
            return False
        self.problems.append(Problem(reason=refusal.reason, hint=refusal.hint, field=field))
        return True


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise _Unreadable(Problem(reason="not JSON: an object repeats a key", hint=_HINT))
    return mapping


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)
