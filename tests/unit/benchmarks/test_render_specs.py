"""benchmarks/render_specs.py measures different work, all of it."""

import json

from benchmarks.render_specs import PROFILE, document, objects
from sftjob.spec import Profile


def test_no_two_documents_are_the_same_job() -> None:
    profile = Profile.model_validate_json(json.dumps(PROFILE))

    names = {
        rendered[0]["metadata"]["name"]  # type: ignore[index,call-overload]
        for rendered in (objects(json.dumps(document(number)).encode(), profile) for number in range(50))
    }

    assert len(names) == 50
