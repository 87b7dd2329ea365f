"""images/Dockerfile, read without Docker; tests/e2e/test_images.py builds it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.unit.images.dockerfile import HEAD, ROOT, RUNS, STAGE, STAGES, TARGETS, TEXT, ancestry, environment, script

ARGUMENTS = ("VERSION", "REVISION", "CREATED")


def test_each_image_has_its_target_as_the_manifests_name_it(images: ModuleType, pods: list[dict[str, Any]]) -> None:
    assert images.TARGETS == TARGETS
    assert set(TARGETS) <= STAGE.keys()
    named = {container["image"] for pod in pods for container in pod["containers"]}
    ours = {image for image in named if re.fullmatch(r"sftjob:[^/@]+", image)}
    assert ours
    assert ours <= {images.tag(target) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_the_entrypoint_is_a_module_of_ours_without_a_shell(target: str) -> None:
    (entrypoint,) = STAGE[target].all("ENTRYPOINT")
    words = yaml.safe_load(entrypoint.text)
    assert words[:2] == ["python", "-m"]
    module = importlib.util.find_spec(words[2])
    assert module
    assert not [each for stage in ancestry(target) for each in stage.all("CMD")]


@pytest.mark.parametrize("target", TARGETS)
def test_the_user_is_a_number_which_the_manifests_have_and_which_has_a_name(
    target: str, pods: list[dict[str, Any]]
) -> None:
    (user,) = STAGE[target].all("USER")
    assert user.text == "10001:10001"
    contexts = {(pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) for pod in pods}
    assert contexts == {(10001, 10001)}
    assert re.search(
        r"groupadd --gid 10001 sftjob && useradd --uid 10001 --gid 10001 ", STAGE["system"].all("RUN")[0].text
    )
    assert STAGE["system"] in ancestry(target)


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_is_written_lies_where_the_manifests_put_it(target: str, pods: list[dict[str, Any]]) -> None:
    (pod,) = [pod for pod in pods if pod["containers"][0]["name"] == "trainer"][:1]
    asked = {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
    folders = {name: value for name, value in asked.items() if value.startswith("/workspace/")}
    assert len(folders) >= 7
    assert folders.items() <= environment(target).items()


@pytest.mark.parametrize("target", TARGETS)
def test_labels_say_what_it_is_and_change_no_layer(target: str) -> None:
    names = [each.name for each in STAGE[target].instructions]
    assert names[-4:] == ["ARG", "ARG", "ARG", "LABEL"]
    assert [each.text.partition("=")[0] for each in STAGE[target].all("ARG")[-3:]] == list(ARGUMENTS)
    (label,) = STAGE[target].all("LABEL")
    for name in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{name}=" in label.text
    for name, argument in zip(("version", "revision", "created"), ARGUMENTS, strict=True):
        assert f'org.opencontainers.image.{name}="${{{argument}}}"' in label.text


@pytest.mark.parametrize("target", TARGETS)
def test_layers_stand_in_the_order_in_which_they_change(target: str) -> None:
    runs = " ".join(run.text for stage in ancestry(target) for run in stage.all("RUN"))
    marks = {
        "cpu": ["useradd", "install-torch.sh cpu", "from=deepspeed-cpu", "/pins/train.txt", "from=wheel"],
        "cuda": ["useradd", "install-torch.sh", "from=deepspeed-cuda", "/pins/train.txt", "from=wheel"],
        "eval": ["useradd", "install-torch.sh", "/pins/eval.txt", "from=wheel"],
        "gate": ["useradd", "/pins/gate.txt", "from=wheel"],
    }[target]
    places = [runs.find(mark) for mark in marks]
    assert -1 not in places
    assert places == sorted(places)
    assert "--mount=from=wheel," in STAGE[target].all("RUN")[-1].text
    # Code gets into no layer before the last one.
    above = [run for stage in ancestry(target) for run in stage.all("RUN")][:-1]
    assert not [
        mount
        for run in above
        for mount in run.mounts
        if mount.get("source", ".") in {".", "sftjob"} and "from" not in mount and mount.get("type") != "cache"
    ]


def test_layers_mount_files_and_no_folder_in_which_others_change() -> None:
    sources = [
        mount["source"]
        for run in RUNS
        for mount in run.mounts
        if mount.get("from") == "pins" or mount.get("source", "").startswith("images")
    ]
    assert sources
    assert not [source for source in sources if not Path(source).suffix]


def test_nothing_is_fetched_but_packages() -> None:
    assert not [stage for stage in STAGES if stage.all("ADD")]
    assert not re.search(r"\b(curl|wget|git clone)\b|https?://", " ".join(run.text for run in RUNS))


def test_what_is_copied_is_of_this_tree_or_of_a_stage() -> None:
    sources = re.findall(r"--(?:mount=)?from=([\w-]+)", TEXT)
    assert sources
    assert set(sources) <= STAGE.keys()


def test_bases_are_arguments_with_a_tag() -> None:
    defaults = dict(each.text.partition("=")[::2] for each in HEAD if each.name == "ARG")
    bases = {stage.base for stage in STAGES} - STAGE.keys() - {"scratch"}
    assert bases == {f"${{{name}}}" for name in defaults}
    assert re.fullmatch(r"python:3\.11-slim-\w+", defaults["BASE"])
    assert ":latest" not in TEXT


def test_programs_that_build_have_exact_versions() -> None:
    assert f"ARG UV_VERSION={script('scripts/install.py').UV.removeprefix('uv==')}\n" in TEXT
    assert re.search(r"ARG CYCLONEDX_VERSION=\d+\.\d+\.\d+\n", TEXT)
    for run in RUNS:
        for command in re.findall(r"pip install ([^&]+)", run.text):
            named = [
                word for word in re.sub(r"--(constraint|requirement|python) \S+", "", command).split() if word[0] != "-"
            ]
            assert all("==" in word or word == "/wheel/*.whl" for word in named), command


def test_what_is_downloaded_stays_in_caches_outside_the_layers() -> None:
    for run in RUNS:
        cached = {mount["target"] for mount in run.mounts if mount.get("type") == "cache"}
        if "apt-get install" in run.text:
            assert cached == {"/var/cache/apt", "/var/lib/apt"}
            assert "--no-install-recommends" in run.text
            assert "--yes" in run.text
        if re.search(r"\buv pip install|uv build", run.text):
            assert "/var/cache/uv" in cached or "--no-cache" in run.text


def test_compilers_are_only_where_they_must_be() -> None:
    for target in ("cpu", "cuda", "gate"):
        assert not [
            run for stage in ancestry(target) for run in stage.all("RUN") if re.search(r"\bg\+\+|\bgcc\b", run.text)
        ]
    for target in TARGETS:
        assert "toolkit" not in {stage.name for stage in ancestry(target)}


def test_no_image_for_a_cpu_says_anything_about_gpus() -> None:
    assert not [name for target in ("cpu", "gate") for name in environment(target) if name.startswith("NVIDIA_")]
    assert environment("cuda")["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_frontends_of_2022_can_build_it() -> None:
    used = " ".join(each.text for stage in STAGES for each in stage.instructions)
    assert "<<" not in used
    assert "--link" not in used
    assert not re.search(r"^#\s*syntax=", TEXT, re.MULTILINE)


def test_the_context_has_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [word for each in STAGE["wheel"].all("COPY") for word in each.text.split()[:-1]]
    assert set(copied) | {"images", "constraints.txt"} == allowed
    assert all((ROOT / name).exists() for name in allowed)
