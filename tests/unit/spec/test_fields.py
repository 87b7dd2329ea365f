import pytest

from sftjob.spec import Data, JobSpec, Lora, Profile, Training
from sftjob.spec.fields import place, tags


@pytest.mark.parametrize(
    ("location", "field"),
    [
        (("model",), "model"),
        (("model", "hub", "revision"), "model.revision"),
        (("model", "hub", "hub"), "model.hub"),
        (("model", "hub", "unknown"), "model.unknown"),
        (("data", "train", 0, "path", "format"), "data.train.0.format"),
        (("data", "train", 0, "path", "path"), "data.train.0.path"),
        (("data", "train", 3), "data.train.3"),
        (("data", "train", 0, "uri", "columns", "promt", "[key]"), "data.train.0.columns.promt"),
        (("method", "lora", "r"), "method.r"),
        (("method", "lora", "target_modules", "tuple[str, ...]", 0), "method.target_modules.0"),
        (("method", "lora", "target_modules", "literal['all-linear']"), "method.target_modules"),
        (("storage", "uri", "constrained-str"), "storage.uri"),
        (("storage", "uri", "function-after[check(), constrained-str]"), "storage.uri"),
        (("kubernetes", "labels", "[key]"), "kubernetes.labels.[key]"),
        (("unknown",), "unknown"),
    ],
)
def test_tags_are_not_fields(location: tuple[int | str, ...], field: str) -> None:
    assert place(JobSpec, location).field == field


def test_owner_is_the_model_of_the_last_key() -> None:
    assert place(JobSpec, ("trainign",)).owner is JobSpec
    assert place(JobSpec, ("training", "sed")).owner is Training
    assert place(JobSpec, ("method", "lora", "rr")).owner is Lora
    assert place(JobSpec, ("data", "tran")).owner is Data
    assert place(JobSpec, ("kubernetes", "labels", "a")).owner is None
    assert place(Profile, ("namespce",)).owner is Profile


def test_tags_of_methods() -> None:
    assert tags(place(JobSpec, ("method",)).annotation) == ("full", "lora", "qlora")
    assert tags(place(JobSpec, ("model",)).annotation) == ()
