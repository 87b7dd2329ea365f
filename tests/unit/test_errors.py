import inspect

import pytest

from sftjob import errors
from sftjob.contract import ExitCode
from sftjob.errors import Problem, SftjobError, SpecError

ALL = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SftjobError)]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(reason="is wrong"), "is wrong"),
        (Problem(reason="is wrong", hint="repair it"), "is wrong; repair it"),
        (Problem(reason="is wrong", field="a.b"), "a.b: is wrong"),
        (Problem(reason="is wrong", file="x.yaml"), "x.yaml: is wrong"),
        (Problem(reason="is wrong", line=3), "is wrong"),
        (
            Problem(reason="is wrong", file="x.yaml", line=3, field="a.b", hint="repair it"),
            "x.yaml:3: a.b: is wrong; repair it",
        ),
    ],
)
def test_a_problem_is_one_line(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_error_is_a_line_for_each_problem() -> None:
    error = SpecError([Problem(reason="one"), Problem(reason="two")])
    assert str(error) == "one\ntwo"
    assert error.args == ("one\ntwo",)
    assert [problem.reason for problem in error.problems] == ["one", "two"]


def test_an_error_of_one_problem_is_written_in_place() -> None:
    error = SpecError("is wrong", file="x.yaml", line=3, field="a.b", hint="repair it")
    assert error.problems == (Problem(reason="is wrong", file="x.yaml", line=3, field="a.b", hint="repair it"),)


@pytest.mark.parametrize("error", ALL)
def test_each_class_is_drawn_in_the_tree_with_its_code(error: type[SftjobError]) -> None:
    drawing = {
        line.replace("│", "").strip(" ├─└").split()[0]: line for line in (errors.__doc__ or "").splitlines() if line
    }
    assert error.__name__ in drawing
    if error is not SftjobError and error.__base__ is SftjobError:
        assert f" {int(error.exit_code)} " in drawing[error.__name__]


def test_no_error_ends_as_if_it_were_done() -> None:
    assert len(ALL) > 12
    assert all(error.exit_code != ExitCode.DONE for error in ALL)


def test_names_of_others_stay_on_the_line_and_steer_no_terminal() -> None:
    problem = Problem(file="a\nb", field="c\x1b[31m", reason="é 漢 \t")
    assert str(problem) == "a\ufffdb: c\ufffd[31m: é 漢 \ufffd"
