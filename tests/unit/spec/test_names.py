import pytest

from sftjob.contract import Component
from sftjob.errors import SpecError
from sftjob.spec import config_map_name, object_name, service_account_name
from sftjob.spec.names import MAX_NAME, check

RUN = "gsm8k-lora-0123abcd"
LONGEST = f"{'n' * 30}-01234567"


def test_objects() -> None:
    digest = "beef" + "0" * 60
    assert object_name(RUN, digest, Component.TRAIN) == "gsm8k-lora-0123abcd-beef-train"
    assert object_name(RUN, digest, Component.EVAL) == "gsm8k-lora-0123abcd-beef-eval"
    assert object_name(RUN, "beef", Component.GATE) == "gsm8k-lora-0123abcd-beef-gate"
    assert config_map_name(RUN, digest) == "gsm8k-lora-0123abcd-beef-spec"
    assert service_account_name(RUN, digest) == "gsm8k-lora-0123abcd-beef-pods"


@pytest.mark.parametrize("digest", ["", "bee", "BEEF", "xyzw", "beef\n"])
def test_a_digest_is_hex(digest: str) -> None:
    with pytest.raises(ValueError, match="not a hex digest"):
        object_name(RUN, digest, Component.TRAIN)


def test_the_longest_name_fits_with_a_pod_index() -> None:
    """Kubernetes names pods `<job>-<index>-<5 characters>`."""
    check(LONGEST, pods=100_000)
    longest = max(len(object_name(LONGEST, "0000", component)) for component in Component)
    assert longest + len("-99999-xxxxx") <= MAX_NAME


def test_too_long() -> None:
    check(LONGEST, pods=1_000_000)
    with pytest.raises(
        SpecError, match="name: pod names would have 64 characters, Kubernetes allows 63; shorten it by 1"
    ):
        check(LONGEST, pods=10_000_000)


@pytest.mark.parametrize("run", ["Job-01234567", "0job-01234567", "a_b-01234567"])
def test_no_dns_label(run: str) -> None:
    with pytest.raises(SpecError, match="name: does not make a DNS label"):
        check(run, pods=1)
