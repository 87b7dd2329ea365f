import json
from collections.abc import Callable
from typing import Any

import pytest

from sftjob.place import Placement, place
from sftjob.spec import JobSpec, Profile


def _spec(**changes: Any) -> JobSpec:
    written = {
        "name": "job",
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
        "storage": {"uri": "s3://runs/team"},
    }
    return JobSpec.model_validate_json(json.dumps(written | changes))


def _place(*, profile: dict[str, Any] | None = None, **changes: Any) -> Placement:
    return place(_spec(**changes), Profile.model_validate_json(json.dumps(profile or {})))


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    """The smallest valid spec with changes."""
    return _spec


@pytest.fixture
def make_placement() -> Callable[..., Placement]:
    """The smallest valid spec with changes, placed by a profile."""
    return _place
