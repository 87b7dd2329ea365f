"""The images as a cluster runs them: another user, a read-only root, no network, no compiler."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import Env, ExitCode, Mount
from tests.e2e.conftest import Proved
from tests.train.test_supervisor_e2e import write_model, write_rows
from tests.unit.images.dockerfile import ROOT, script

pytestmark = pytest.mark.e2e

RESTRICTED = (
    "--rm",
    "--network=none",
    "--read-only",
    "--user=10001:10001",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
    "--env=OMP_NUM_THREADS=1",
)
TREE = ("constraints.txt", "images", "LICENSE", "pyproject.toml", "README.md", "sftjob", ".dockerignore")
CREATED = "2026-01-02T03:04:05Z"
INPUTS = "/inputs"
OPS = """
import json, os
import deepspeed, torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
shared = torch.full((5,), float(os.environ["RANK"]) + 1)
deepspeed.comm.inference_all_reduce(shared)
steps = []
for optimizer in (DeepSpeedCPUAdam, torch.optim.AdamW):
    torch.manual_seed(7)
    parameter = torch.nn.Parameter(torch.randn(1003))
    stepping = optimizer([parameter], lr=0.01, weight_decay=0.01)
    for _ in range(3):
        parameter.grad = torch.ones_like(parameter)
        stepping.step()
    steps.append(parameter.detach())
print(json.dumps({"sum": shared.tolist(), "apart": (steps[0] - steps[1]).abs().max().item()}), flush=True)
"""
"""Two ranks add up over shared memory, and a step of Adam is made twice: each by an op that the image brings."""


@dataclass(frozen=True)
class Built:
    """This tree's images, made from a copy of it."""

    tree: Path
    scripts: Any

    def build(self, target: str, tag: str) -> str:
        self.scripts.docker_build(target, "host", f"--build-arg=CREATED={CREATED}", f"--tag={tag}")
        return tag

    @property
    def cpu(self) -> str:
        return self.build("cpu", "sftjob:test-cpu")

    @property
    def gate(self) -> str:
        return self.build("gate", "sftjob:test-gate")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if not shutil.which("docker"):
        pytest.skip("not on PATH: docker")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    tree = tmp_path_factory.mktemp("tree")
    for name in TREE:
        if (source := ROOT / name).is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    scripts: Any = script("scripts/images.py")
    scripts.ROOT = tree
    return Built(tree, scripts)


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume that takes the owner of the folder in the image over which it is laid."""
    name = docker("volume", "create").strip()
    yield name
    docker("volume", "rm", name)


def docker(*arguments: str, seconds: float = 60) -> str:
    """What a docker command printed; it must succeed."""
    done = run_docker(*arguments, seconds=seconds)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def run_docker(*arguments: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=seconds)


def python(image: str, code: str) -> Any:
    """What code in a container printed, as JSON."""
    return json.loads(
        docker("run", *RESTRICTED, "--entrypoint=python", image, "-c", code, seconds=120).splitlines()[-1]
    )


def inspect(image: str) -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", image))
    assert isinstance(found, dict)
    return found


def write_inputs(folder: Path) -> None:
    """A tiny model, rows, and the spec of two ranks under ZeRO-2, readable for every user."""
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl")
    spec = {
        "name": "tiny",
        "model": {"path": f"{INPUTS}/model"},
        "data": {"train": [{"path": f"{INPUTS}/rows.jsonl"}], "template": "chatml"},
        "method": {"type": "lora", "r": 4},
        "launch": {"gpus_per_node": 0, "processes_per_node": 2, "strategy": "zero2"},
        "training": {"max_steps": 4, "per_device_train_batch_size": 2, "save_steps": 2, "max_length": 64},
        "storage": {"uri": f"{Mount.WORK}/store"},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_two_ranks_train_under_zero2(built: Built, volume: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    where = (f"--volume={volume}:{Mount.WORK}", f"--volume={tmp_path}:{INPUTS}:ro")
    environment = (f"--env={Env.SPEC}={INPUTS}/spec.json", f"--env={Env.WORK}={Mount.WORK}")
    image = built.cpu
    done = run_docker("run", *RESTRICTED, *where, *environment, image, seconds=400)
    assert done.returncode == ExitCode.DONE, done.stdout + done.stderr
    assert "committed step 4" in done.stdout
    assert "exported step 4" in done.stdout


def test_deepspeeds_ops_need_no_compiler(built: Built, volume: str, tmp_path: Path) -> None:
    (tmp_path / "ops.py").write_text(OPS)
    tmp_path.chmod(0o755)
    image = built.cpu
    assert not run_docker("run", *RESTRICTED, "--entrypoint=which", image, "cc", "gcc", "g++", "c++").stdout
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2")
    done = docker(
        "run",
        *RESTRICTED,
        f"--volume={volume}:{Mount.WORK}",
        f"--volume={tmp_path}:{INPUTS}:ro",
        # DeepSpeed's own launcher says so that all ranks are here; without it the op reads memory that is not there.
        "--env=LOCAL_SIZE=2",
        "--entrypoint=python",
        image,
        *torchrun,
        f"{INPUTS}/ops.py",
        seconds=300,
    )
    answers = [json.loads(line) for line in done.splitlines() if line.startswith("{")]
    assert [answer["sum"] for answer in answers] == [[3.0] * 5] * 2
    assert all(answer["apart"] < 1e-5 for answer in answers)


def test_a_change_of_code_alone_is_one_layer_below_5_mb(built: Built, proved: Proved) -> None:
    before = {target: inspect(getattr(built, target))["RootFS"]["Layers"] for target in ("cpu", "gate")}
    with (built.tree / "sftjob/contract.py").open("a") as file:
        file.write("\n# another revision\n")
    for target, layers in before.items():
        image = built.build(target, f"sftjob:test-{target}")
        changed = inspect(image)["RootFS"]["Layers"]
        assert changed[:-1] == layers[:-1]
        assert changed[-1] != layers[-1]
        ours = built.scripts.layers(image)[-1]
        assert ours.name == "sftjob"
        assert 0 < ours.size_bytes < 5_000_000
        proved(built.scripts.weighed(image, built.scripts.layers(image)))


def test_images_start_as_a_user_without_rights_and_say_what_they_are(built: Built) -> None:
    for image, module in ((built.cpu, "sftjob.train"), (built.gate, "sftjob.gate")):
        config = inspect(image)["Config"]
        assert config["User"] == "10001:10001"
        assert config["Entrypoint"] == ["python", "-m", module]
        assert config["Labels"]["org.opencontainers.image.created"] == CREATED
        owner = (
            "import getpass, json, os, pwd; print(json.dumps([getpass.getuser(), pwd.getpwuid(os.getuid()).pw_dir]))"
        )
        assert python(image, owner) == ["sftjob", f"{Mount.WORK}/home"]


def test_nothing_of_the_image_can_be_written_by_its_user(built: Built) -> None:
    options = [option for option in RESTRICTED if option != "--read-only"]
    folders = ("/opt", "/usr", "/etc", "/bin", "/sbin", "/lib", str(Mount.WORK))
    where = ("--entrypoint=find", built.cpu, *folders, "-writable", "-not", "-type", "l")
    # It also tells of folders into which it may not look, and counts that as a failure.
    assert run_docker("run", *options, *where).stdout.split() == [Mount.WORK]


def test_no_weights_are_in_the_image(built: Built) -> None:
    names = [word for ending in ("safetensors", "gguf", "bin") for word in ("-o", "-name", f"*.{ending}")][1:]
    where = ("/opt", "/usr", str(Mount.WORK), "-xdev", "-size", "+1024k", "(", *names, ")")
    assert not docker("run", *RESTRICTED, "--entrypoint=find", built.cpu, *where)


def test_the_cpu_image_also_evaluates_and_has_the_command_line(built: Built) -> None:
    image = built.cpu
    help_of_evaluation = docker(
        "run", *RESTRICTED, "--entrypoint=python", image, "-m", "sftjob.app.evaluation", "--help"
    )
    assert "usage: python -m sftjob.app.evaluation" in help_of_evaluation
    assert "validate" in docker("run", *RESTRICTED, "--entrypoint=sftjob", image, "--help")


def test_the_gate_is_small_and_has_what_it_needs(built: Built) -> None:
    image = built.gate
    assert "usage" in docker("run", *RESTRICTED, image, "--help")
    there = "import importlib.util as u, json; print(json.dumps([n for n in NAMES if u.find_spec(n)]))"
    names = ["kubernetes", "boto3", "pydantic", "torch", "transformers", "deepspeed"]
    assert python(image, there.replace("NAMES", repr(names))) == ["kubernetes", "boto3", "pydantic"]
    ours = [layer for layer in built.scripts.layers(image) if layer.name != "base"]
    assert sum(layer.size_bytes for layer in ours) < 250_000_000


def test_the_bill_of_materials_names_every_package(built: Built, tmp_path: Path) -> None:
    built.scripts.write_sbom("gate", tmp_path)
    bill = json.loads((tmp_path / "sftjob-gate.cdx.json").read_text())
    named = {each["name"].lower(): each["version"] for each in bill["components"] if each["name"] != "sftjob"}
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "sftjob"
    versions = "{each.name: each.version for each in importlib.metadata.distributions()}"
    installed = python(built.gate, f"import importlib.metadata, json; print(json.dumps({versions}))")
    assert len(installed) > 20
    assert {name.lower(): version for name, version in installed.items() if name != "sftjob"} == named


def test_a_gate_runs_in_each_image(built: Built) -> None:
    """A profile that names one image for everything lets it."""
    for image in (built.cpu, built.gate):
        assert python(image, 'import sftjob.cluster.api, sftjob.gate.loop; print("[0]")') == [0]
