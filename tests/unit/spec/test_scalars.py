"""Unquoted scalars: what is taken is read alike by YAML 1.1 and 1.2, and what differs is refused."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sftjob.spec.scalars import plain_scalar
from sftjob.spec.values import Refusal


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("TRUE", True), ("0", 0), ("-7", -7), ("+5", 5), ("12345678901", 12345678901),
     ("2e-4", 2e-4), ("1e5", 1e5), ("1E+5", 1e5), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("-2.5e-3", -2.5e-3),
     ("9007199254740991", 2**53 - 1)],
)  # fmt: skip
def test_numbers_and_booleans(text: str, value: float) -> None:
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    ["yellow", "one", "nowhere", "trUe", "nUll", "1a", "e5", "1e", "0x", "0xZZ", "1.2.3", "v1.0", "-", ".", "_1",
     "12:", "1:75", "::1",
     "2026-01", "2026-01-31-x", "s3://bucket", "inf", "nan", "+", "0b2", "a_1", "1 000", "1,000", "3abc4e"],
)  # fmt: skip
def test_text(text: str) -> None:
    assert plain_scalar(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "~", "null", "Null", "NULL", "y", "Y", "n", "N", "yes", "YES", "yEs", "no", "on", "ON", "off", "Off", "0755",
     "00", "-01", "-.5", "+.5e3", "+07", "01.5", "0_7", "0x1F", "0X1f", "-0x1", "0o17", "0O17", "0b101",
     "1_000", "1_0.5", ".1_5", "1e1_0", "1:30",
     "190:20:30", "190:20:30.15", "-1:30", "2026-01-31", "2026-1-1", "2026-01-31T12:00:00Z", "2026-01-31 12:00:00",
     "2026-01-31t1", ".inf", "-.INF", "+.Inf", ".nan", ".NaN", "=", "<<", "-0", "-0.0", "-0e5", "9007199254740992",
     "-9007199254740992", "1e16", "1e999", "9" * 5000],
)  # fmt: skip
def test_refused(text: str) -> None:
    read = plain_scalar(text)
    assert isinstance(read, Refusal)
    assert read.reason
    assert read.hint
    assert len(read.reason) < 150


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.text("0123456789+-._eE:xobTZnNyYfF~ ", min_size=1, max_size=12).map(str.strip))
def test_what_is_taken_is_read_alike_by_yaml_1_1(text: str) -> None:
    """`2e-4` is the one exception: text in YAML 1.1, a number everywhere else."""
    read = plain_scalar(text)
    if isinstance(read, Refusal) or re.search(r"[eE]", text):
        return
    tag = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], [])
    tags = [name for name, pattern in tag if pattern.match(text)]
    expected = {bool: "bool", int: "int", float: "float"}.get(type(read))
    assert tags == ([f"tag:yaml.org,2002:{expected}"] if expected else [])
