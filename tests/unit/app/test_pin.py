import json
from pathlib import Path

import pytest

from sftjob.app.pin import PinnedJob, pin_for_machine
from sftjob.errors import SftjobError
from sftjob.spec import PinnedData, PinnedModel, load_spec

SPEC = """\
name: job
model: {path: model}
data:
  train:
    - path: rows.jsonl
method: {type: lora}
"""


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    model_folder.rename(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    return tmp_path


def pin(folder: Path, more: str = "", gpus: tuple[str, ...] = (), *, new_run: bool = False) -> PinnedJob:
    (folder / "job.yaml").write_text(SPEC + more)
    return pin_for_machine(load_spec(folder / "job.yaml"), list(gpus), new_run=new_run, progress=lambda _line: None)


class TestPinForMachine:
    def test_local_inputs_become_hashes_that_are_found_again(self, folder: Path) -> None:
        job = pin(folder)
        assert isinstance(job.spec.model, PinnedModel)
        assert isinstance(job.spec.data.train[0], PinnedData)
        assert job.inputs == {
            job.spec.model.sha256: folder / "model",
            job.spec.data.train[0].sha256: folder / "rows.jsonl",
        }

    def test_the_same_spec_is_the_same_run_wherever_it_lies(self, folder: Path) -> None:
        before = pin(folder).run_id
        (folder / "elsewhere").mkdir()
        for name in ("model", "rows.jsonl"):
            (folder / name).rename(folder / "elsewhere" / name)
        assert pin(folder / "elsewhere").run_id == before

    def test_an_edited_file_is_another_run(self, folder: Path) -> None:
        before = pin(folder).run_id
        (folder / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "c"}) + "\n")
        assert pin(folder).run_id != before

    def test_new_run_is_another_run_each_time(self, folder: Path) -> None:
        ids = {pin(folder).run_id, pin(folder, new_run=True).run_id, pin(folder, new_run=True).run_id}
        assert len(ids) == 3

    def test_the_store_is_a_folder_beside_the_spec(self, folder: Path) -> None:
        assert pin(folder).storage_uri == str(folder / "runs")
        assert pin(folder, "storage: {uri: ../kept}").storage_uri == str(folder.parent / "kept")
        assert pin(folder, "storage: {uri: 's3://bucket/runs'}").storage_uri == "s3://bucket/runs"

    def test_every_missing_input_is_told_with_its_line(self, folder: Path) -> None:
        (folder / "rows.jsonl").unlink()
        with pytest.raises(SftjobError) as caught:
            pin(folder)
        assert f"{folder}/job.yaml:5: data.train.0.path: " in str(caught.value)


class TestLaunch:
    def test_without_gpus_it_is_one_process_on_the_cpu(self, folder: Path) -> None:
        job = pin(folder)
        assert (job.spec.launch.gpus_per_node, job.spec.launch.processes) == (0, 1)
        assert job.notes == ()

    def test_the_machines_gpus_are_part_of_the_identity(self, folder: Path) -> None:
        one, two = pin(folder, gpus=("A100",)), pin(folder, gpus=("A100", "A100"))
        assert (two.spec.launch.gpus_per_node, two.spec.launch.gpu) == (2, "A100")
        assert len({one.run_id, two.run_id, pin(folder).run_id}) == 3

    def test_who_asks_for_the_cpu_gets_it(self, folder: Path) -> None:
        job = pin(folder, "launch: {gpus_per_node: 0, processes_per_node: 2}", gpus=("A100",))
        assert (job.spec.launch.gpus_per_node, job.spec.launch.processes) == (0, 2)
        assert job.notes == ()

    def test_a_spec_for_a_cluster_runs_here_and_says_what_differs(self, folder: Path) -> None:
        job = pin(folder, "launch: {nodes: 2, gpus_per_node: 8, gpu: H100}", gpus=("A100",))
        assert (job.spec.launch.nodes, job.spec.launch.gpus_per_node, job.spec.launch.gpu) == (1, 1, "A100")
        assert "trains with 16 processes, this machine with 1" in job.notes[0]
        assert pin(folder, "launch: {nodes: 2, gpus_per_node: 8, gpu: H100}").spec.launch.gpu is None
