import functools

import botocore.session
import pytest


@pytest.fixture(scope="session", autouse=True)
def _read_service_models_once() -> None:
    """botocore reads megabytes of JSON for every session; every test makes one."""
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
