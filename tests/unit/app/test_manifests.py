"""`render`: a job as manifests in every form, and with `--resolved` what its spec becomes."""

import json
from pathlib import Path

import pytest
import yaml

from sftjob.app import model_config
from sftjob.app.manifests import manifests, resolved_yaml, write_manifests
from sftjob.errors import SftjobError, SpecError, Unavailable

SPEC = """\
name: job
model: {hub: a/b, revision: "0123456789012345678901234567890123456789"}
data: {train: [{uri: "s3://bucket/rows.jsonl"}]}
method: {type: lora}
launch: {gpus_per_node: 2, strategy: zero2}
storage: {uri: "s3://bucket/runs"}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(SPEC)
    return path


def test_every_default_and_the_deepspeed_config_are_there(spec: Path, model: Path) -> None:
    job = yaml.safe_load(resolved_yaml(spec, ["method.r=4"], config=model / "config.json"))
    assert job["run_id"].startswith("job-")
    assert job["method"]["r"] == 4
    assert job["method"]["lora_alpha"] > 0
    assert job["training"]["learning_rate"] > 0
    assert job["launch"]["deepspeed"]["zero_optimization"]["stage"] == 2
    assert job["facts"]["hidden_size"] == 8


def test_a_local_model_needs_no_config(spec: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    spec.write_text(SPEC.replace(SPEC.splitlines()[1], "model: {path: base}"))
    job = yaml.safe_load(resolved_yaml(spec, ["launch={gpus_per_node: 0}"]))
    assert job["model"]["name"] == "base"
    assert job["launch"]["device"] == "cpu"


def test_a_hub_out_of_reach_asks_for_the_file(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(*_where: object, **_options: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(model_config, "fetch_config", out_of_reach)
    with pytest.raises(SftjobError) as caught:
        resolved_yaml(spec, [])
    assert str(caught.value).startswith(f"{spec}:2: model: the config of a/b cannot be had from the hub")
    assert "--config" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("none.json", None), ("bad.json", "[1"), ("odd.json", "{}")])
def test_a_wrong_config_is_one_line(name: str, text: str | None, spec: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(SftjobError) as caught:
        resolved_yaml(spec, [], config=path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_and_yaml_are_the_same_objects(spec: Path) -> None:
    listed = json.loads(manifests(spec, None, [], as_json=True))["items"]

    assert listed == list(yaml.safe_load_all(manifests(spec, None, [])))


def test_a_folder_is_replaced_as_a_whole(spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    many = write_manifests(folder, spec, None, ["launch.nodes=2"], kustomize=True)
    few = write_manifests(folder, spec, None, ["kubernetes.evaluation=never"])

    assert len(few) == 3 < len(many)
    assert sorted(folder.iterdir()) == sorted(few)
    assert [path.name for path in folder.parent.iterdir()] == ["here"]


def test_a_folder_with_other_files_is_left_alone(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")

    with pytest.raises(SpecError, match=r"mine: holds notes\.txt, which this command has not written"):
        write_manifests(tmp_path / "mine", spec, None, [])
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_spec_that_cannot_be_rendered_leaves_no_folder(spec: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"storage\.uri"):
        write_manifests(tmp_path / "made", spec, None, ["storage={}"])
    assert not (tmp_path / "made").exists()
