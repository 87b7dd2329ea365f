"""docs/exit-codes.md and the tree drawn in errors.py say what the code does."""

import re
from pathlib import Path

import pytest

from sftjob import errors
from sftjob.contract import ExitCode, JobAction

ACTIONS = {
    JobAction.FAIL_JOB: "fails at once",
    JobAction.COUNT: "tries again; it counts",
    JobAction.IGNORE: "tries again; it does not count",
}


def error_classes() -> dict[str, type[errors.SftjobError]]:
    """The tree below its root, by name."""
    found = vars(errors).values()
    return {
        each.__name__: each
        for each in found
        if isinstance(each, type) and issubclass(each, errors.SftjobError) and each is not errors.SftjobError
    }


def table() -> str:
    """The table that the page has to contain, made from the code."""
    lines = ["| code | name | meaning | the train Job | raised as |", "| --- | --- | --- | --- | --- |"]
    for code in ExitCode:
        raised = ", ".join(f"`{name}`" for name, each in error_classes().items() if each.exit_code is code)
        action = ACTIONS[code.action] if code else "is complete"
        lines.append(f"| {code.value} | `{code.name}` | {code.meaning} | {action} | {raised or 'none'} |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "exit-codes.md").read_text(encoding="utf-8")


def test_page_has_the_table(page: str) -> None:
    assert table() in page, f"docs/exit-codes.md has to contain:\n{table()}"


def test_page_says_what_to_do_about_every_code(page: str) -> None:
    repairs = re.findall(r"^- \*\*(\d+)\*\* \S", page, flags=re.MULTILINE)

    assert repairs == [str(code.value) for code in ExitCode if code]


def test_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"── (\w+)(?: +(\d+))?  ", errors.__doc__ or "")

    assert {name for name, _ in drawn} == error_classes().keys()
    numbered = {name: int(code) for name, code in drawn if code}
    assert numbered == {name: error_classes()[name].exit_code for name in numbered}
    assert len(numbered) > 10
