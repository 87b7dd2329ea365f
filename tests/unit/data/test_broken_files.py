"""Files that are broken before anyone looks at a field: each mistake is one line, `file:line: reason; next step`."""

import json
from pathlib import Path

import pytest

from sftjob.data import read_messages
from sftjob.data.sources import MAX_ROW_BYTES, read_rows
from sftjob.errors import DataError

SECRET = "xyzzy"
GOOD = json.dumps({"prompt": SECRET, "completion": SECRET})
_SHAPE = "write one JSON object a line, or one JSON array of objects"

BROKEN_TEXT = {
    "empty file": (b"", [f"f: no rows; {_SHAPE}"]),
    "blank file": (b" \n\r\n\t\n", [f"f: no rows; {_SHAPE}"]),
    "empty array": (b"[ ]\n", ["f: no rows; the JSON array is empty"]),
    "byte order mark": (
        b"\xef\xbb\xbf" + GOOD.encode(),
        ["f:1: starts with a byte order mark; save the file as UTF-8 without one"],
    ),
    "UTF-16": (GOOD.encode("utf-16"), ["f:1: starts with a byte order mark; save the file as UTF-8 without one"]),
    "not JSON": (
        f"{GOOD}\n\n{{'prompt': '{SECRET}'}}\n".encode(),
        [f"f:3: not JSON: Expecting property name enclosed in double quotes (column 2); {_SHAPE}"],
    ),
    "cut off": (
        GOOD[:-1].encode(),
        [f"f:1: not JSON: Expecting ',' delimiter (column {len(GOOD)}); {_SHAPE}"],
    ),
    "two on a line": (
        f"{GOOD} {GOOD}".encode(),
        [f"f:1: not JSON: Extra data (column {len(GOOD) + 2}); {_SHAPE}"],
    ),
    "an object over lines": (
        b'{\n"prompt": "a"\n}\n',
        [
            f"f:1: not JSON: Expecting property name enclosed in double quotes (column 1); {_SHAPE}",
            f"f:2: not JSON: Extra data (column 9); {_SHAPE}",
            f"f:3: not JSON: Expecting value (column 1); {_SHAPE}",
        ],
    ),
    "not objects": (
        b'"xyzzy"\n17\ntrue\nnull\n[1]\n',
        [
            f"f:1: a row must be a JSON object, not a string; {_SHAPE}",
            f"f:2: a row must be a JSON object, not a number; {_SHAPE}",
            f"f:3: a row must be a JSON object, not a boolean; {_SHAPE}",
            f"f:4: a row must be a JSON object, not null; {_SHAPE}",
            f"f:5: a row must be a JSON object, not a list; {_SHAPE}",
        ],
    ),
    "NaN": (b'{"prompt": NaN}', ["f:1: not JSON: NaN"]),
    "twice the same key": (
        b'{"prompt": "xyzzy", "prompt": "b", "completion": "c"}',
        ["f:1: the same key twice in one object"],
    ),
    "a long number": (b'{"prompt": 1' + b"0" * 400 + b"}", ["f:1: a number of more than 400 digits"]),
    "nested too deeply": (b'{"prompt": ' + b"[" * 100_000, ["f:1: nested too deeply"]),
    "raw NUL": (f'{GOOD}\n{{"prompt": "\x00"}}\n'.encode(), ["f:2: contains a NUL byte"]),
    "not UTF-8": (
        GOOD.encode() + b'\n{"prompt": "\xe9"}\n',
        ["f:2: not UTF-8: invalid continuation byte (byte 13)"],
    ),
    "a long line": (
        b'{"prompt": "' + b"x" * MAX_ROW_BYTES + b'"}\nbroken',
        [
            "f:1: longer than 8 MiB; look for a lost line break",
            f"f:2: not JSON: Expecting value (column 1); {_SHAPE}",
        ],
    ),
    "array: a comma too many": (
        f"[{GOOD},\n]".encode(),
        ["f:2: [1]: not JSON: Expecting value (column 1)"],
    ),
    "array: no comma": (f"[{GOOD}\n\n{GOOD}]".encode(), ["f:3: not JSON: neither `,` nor `]` after a row"]),
    "array: not closed": (f"[{GOOD}\n".encode(), ["f:2: not JSON: neither `,` nor `]` after a row"]),
    "array: text after it": (f"[{GOOD}]\n{GOOD}\n".encode(), ["f:2: not JSON: text after the array"]),
    "array: not objects": (
        f'[\n{GOOD},\n"{SECRET}"]'.encode(),
        [f"f:3: [1]: a row must be a JSON object, not a string; {_SHAPE}"],
    ),
    "array: twice the same key": (b'[\n{"a": 1, "a": 2}]', ["f:2: [0]: the same key twice in one object"]),
    "array: not UTF-8": (
        f"[{GOOD},\n".encode() + b'{"prompt": "\xff"}]',
        ["f:2: not UTF-8: invalid start byte (byte 13)"],
    ),
    "array: a long row": (
        b'[\n{"prompt": "' + b"x" * MAX_ROW_BYTES + b'"}]',
        ["f:2: [0]: longer than 8 MiB"],
    ),
}


@pytest.mark.parametrize(("data", "lines"), BROKEN_TEXT.values(), ids=BROKEN_TEXT)
def test_every_mistake_is_named(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    path = tmp_path / "rows"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_messages(path, name="f")
    assert str(caught.value).splitlines() == lines
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 65


def test_twenty_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n" + '{"prompt": "a", "completion": ""}\n' * 23)
    with pytest.raises(DataError) as caught:
        read_messages(path, name="f")
    lines = str(caught.value).splitlines()
    assert lines[0] == "f:2: completion: empty"
    assert lines[19:] == ["f:21: completion: empty", "f: and 3 more problems"]


def test_good_rows_are_read_before_the_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{GOOD}\nbroken\n\n{{"a": 1}}\n')
    rows = read_rows(path, name="f")
    assert next(rows) == (1, json.loads(GOOD))
    assert next(rows) == (4, {"a": 1})
    with pytest.raises(DataError, match=r"^f:2: not JSON"):
        next(rows)
