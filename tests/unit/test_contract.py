import inspect
import re

import pytest

from sftjob.contract import SPEC_FILE, Component, Env, ExitCode, JobAction, Label, Mount, keys

# The table of the design, section 5: code → what a Job does.
ACTIONS = {
    0: "Count",
    **dict.fromkeys((64, 65, 66), "FailJob"),
    **dict.fromkeys((69, 70, 73, 74), "Count"),
    **dict.fromkeys((75, 76), "Ignore"),
    **dict.fromkeys((77, 78, 80), "FailJob"),
    81: "Ignore",
    82: "Count",
    **dict.fromkeys((83, 84), "FailJob"),
}


def test_the_table_of_exit_codes() -> None:
    assert {int(code): code.action.value for code in ExitCode} == ACTIONS


@pytest.mark.parametrize("code", ExitCode)
def test_each_code_has_a_meaning(code: ExitCode) -> None:
    assert re.fullmatch(r"[a-z][A-Za-z, ]+", code.meaning)
    assert isinstance(code.action, JobAction)


def test_meanings_differ() -> None:
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)


def test_codes_are_neither_signals_nor_the_shells() -> None:
    """Above 125 a shell or the kubelet speaks; 1 and 2 are Python's own."""
    assert all(code == 0 or 64 <= code <= 113 for code in ExitCode)


def test_variables_are_ours_or_those_of_kubernetes_and_torch() -> None:
    others = {Env.POD_INDEX, Env.MASTER_ADDR, Env.MASTER_PORT}
    assert all(name.value.startswith("SFTJOB_") for name in Env if name not in others)
    assert Env.POD_INDEX == "JOB_COMPLETION_INDEX"
    assert len(set(Env)) == len(Env.__members__)


def test_mounts_are_apart() -> None:
    paths = [mount.value for mount in Mount]
    assert all(path.startswith("/") for path in paths)
    assert not [(a, b) for a in paths for b in paths if a != b and f"{b}/".startswith(f"{a}/")]
    assert "/" not in SPEC_FILE


@pytest.mark.parametrize("label", Label)
def test_labels_are_valid(label: Label) -> None:
    prefix, _, name = label.value.partition("/")
    assert re.fullmatch(r"[a-z0-9.-]{1,253}", prefix)
    assert re.fullmatch(r"[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?", name)


def test_components() -> None:
    assert [component.value for component in Component] == ["train", "eval", "gate"]


class TestKeys:
    def test_layout(self) -> None:
        assert keys.claim(2) == "attempts/2/claim.json"
        assert keys.pod(2, 1) == "attempts/2/pods/1.json"
        assert keys.checkpoint(70, 2, "model.safetensors") == "checkpoints/0000000070/2/model.safetensors"
        assert keys.part(70, 2, 0) == "checkpoints/0000000070/2/parts/0.json"
        assert keys.commit(70) == "commits/0000000070.json"
        assert keys.metrics(1, 3) == "metrics/1/000003.jsonl"
        assert keys.shard("e", "base", 7) == "eval/e/shards/base-0007.jsonl"

    def test_steps_sort_as_numbers(self) -> None:
        steps = [0, 9, 10, 999, 1000, 10**9]
        assert sorted(map(keys.commit, steps)) == list(map(keys.commit, steps))

    def test_no_two_functions_give_one_key(self) -> None:
        functions = inspect.getmembers(keys, inspect.isfunction)
        made = [function(*_arguments(function)) for _, function in functions]
        assert len(functions) > 10
        assert len(set(made)) == len(made)
        assert all(not key.startswith("/") and ".." not in key for key in made)


def _arguments(function: object) -> list[object]:
    return [
        1 if parameter.annotation is int else "x"
        for parameter in inspect.signature(function).parameters.values()  # type: ignore[arg-type] # a static method
    ]
