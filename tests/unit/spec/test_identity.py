from typing import Any

import pytest

from sftjob.spec import JobSpec, canonical_json, canonical_spec, run_id
from sftjob.spec.identity import IDENTITY_BLOCKS

Variants = dict[str, list[dict[str, Any]]]
# The tag that chooses the method; the other methods have tests of their own.
FIXED = {"method.type"}


def _spec(data: dict[str, Any]) -> JobSpec:
    return JobSpec.model_validate_json(canonical_json(data))


def test_every_knob_is_turned(variants: Variants) -> None:
    assert len(variants) > 50
    assert {path.partition(".")[0] for path in variants} == set(JobSpec.model_fields)
    assert {path for path, specs in variants.items() if len(specs) < 2} <= FIXED


def test_what_changes_weights_is_this_and_no_more() -> None:
    """Written out: the tests below take the list's word for it."""
    assert IDENTITY_BLOCKS == ("model", "data", "method", "training", "launch", "salt")


@pytest.mark.parametrize("block", IDENTITY_BLOCKS)
def test_each_value_of_what_changes_weights_is_another_run(
    block: str, variants: Variants, base: dict[str, Any]
) -> None:
    knobs = [path for path in variants if path.partition(".")[0] == block and path not in FIXED]
    assert knobs
    for path in knobs:
        # A value that the base has already is no turn of the knob.
        turned = [data for data in variants[path] if data != base]
        ids = {run_id(_spec(data)) for data in turned} | {run_id(_spec(base))}
        assert len(ids) == len({canonical_json(data) for data in turned}) + 1, path


@pytest.mark.parametrize("block", sorted(set(JobSpec.model_fields) - set(IDENTITY_BLOCKS) - {"name"}))
def test_the_rest_does_not_change_the_run(block: str, variants: Variants, base: dict[str, Any]) -> None:
    knobs = [path for path in variants if path.partition(".")[0] == block]
    assert knobs
    for path in knobs:
        assert {run_id(_spec(data)) for data in variants[path]} == {run_id(_spec(base))}, path
        assert all(canonical_spec(_spec(data)) != canonical_spec(_spec(base)) for data in variants[path]), path


def test_the_name_is_the_beginning_alone(base: dict[str, Any]) -> None:
    digest = run_id(_spec(base)).removeprefix("job-")
    assert len(digest) == 8
    assert run_id(_spec(base | {"name": "other"})) == f"other-{digest}"


def test_a_default_that_is_written_out_is_another_spec(base: dict[str, Any]) -> None:
    """Identity is over the authored spec, so that it does not move when a default does."""
    assert run_id(_spec(base)) != run_id(_spec(base | {"training": {}}))


def test_canonical_bytes_survive_the_round_trip(variants: Variants) -> None:
    for data in (data for specs in variants.values() for data in specs):
        spec = _spec(data)
        assert canonical_spec(spec) == canonical_json(data)
        assert JobSpec.model_validate_json(canonical_spec(spec)) == spec


def test_canonical_json_is_rfc_8785() -> None:
    assert canonical_json({"b": 1.0, "a": [2e-5, 1e21, "é<"], "B": True}) == (
        '{"B":true,"a":[0.00002,1e+21,"é<"],"b":1}'.encode()
    )
