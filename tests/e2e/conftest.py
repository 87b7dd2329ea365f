"""A real cluster for tests: two kind nodes, our images in a registry beside them, an S3 server inside.

SFTJOB_E2E_KUBECONFIG names a cluster to use instead of a new one; SFTJOB_E2E_TRAIN_IMAGE and SFTJOB_E2E_GATE_IMAGE,
which its nodes can pull, spare the build; JOBSET_MANIFEST is JobSet's manifest, a file or a URL. Each test has a
namespace of its own; when it fails, what is in there is printed.
"""

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sftjob.storage import ObjectStore, open_store
from tests.e2e import kind
from tests.e2e.forward import forwarded
from tests.e2e.kubectl import Kubectl
from tests.e2e.runs import ClusterRun, render_run
from tests.s3_server import S3Server
from tests.train.test_supervisor_e2e import write_model, write_rows

ROOT: Final = Path(__file__).parents[2]
STORE_NAMESPACE: Final = "sftjob-store"
BUCKET: Final = "sftjob"
PROVED: Final = "proved"
"""Property of a test's report: a line of the table at the end."""

MakeRun = Callable[..., ClusterRun]
Proved = Callable[[str], None]
Weights = dict[tuple[str, str], dict[str, str]]
"""(spec, what happened to the run) → SHA-256 of its exported weights."""


@dataclass(frozen=True)
class Images:
    """References that the nodes can pull."""

    train: str
    gate: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Last of all: the cluster lives until the session ends, and takes its part of the processors until then."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was proved, and how long it took."""
    lines = [
        (report.duration, text)
        for report in terminalreporter.stats.get("passed", [])
        for name, text in report.user_properties
        if name == PROVED
    ]
    if lines:
        terminalreporter.section("proved on a real cluster")
        for seconds, text in lines:
            terminalreporter.write_line(f"{seconds:6.0f} s  {text}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what was in its namespace: it is deleted afterwards."""
    report: pytest.TestReport = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.when == "call" and report.failed and isinstance(namespace, Kubectl):
        report.sections.append((f"namespace {namespace.namespace}", namespace.diagnosis()))
    return report


@pytest.fixture(scope="session")
def kind_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl for a cluster of two nodes; it lives as long as the session."""
    if given := os.environ.get("SFTJOB_E2E_KUBECONFIG"):
        yield Kubectl(Path(given))
        return
    if reason := kind.missing():
        pytest.skip(reason)
    kubeconfig = tmp_path_factory.mktemp("kind") / "kubeconfig"
    with kind.cluster(kubeconfig):
        yield Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def images(kind_cluster: Kubectl) -> Iterator[Images]:
    """This tree's images, built and pushed; by digest, as a careful platform team names them."""
    given = [os.environ.get(f"SFTJOB_E2E_{name}_IMAGE") for name in ("TRAIN", "GATE")]
    if given[0] and given[1]:
        yield Images(train=given[0], gate=given[1])
        return
    with kind.registry():
        yield Images(train=_built("cpu"), gate=_built("gate"))


@pytest.fixture(scope="session")
def s3(kind_cluster: Kubectl) -> Iterator[S3Server]:
    """The S3 server of k8s/versitygw.yaml, as this machine reaches it."""
    manifest = ROOT / "k8s" / "versitygw.yaml"
    kind_cluster("apply", f"--filename={manifest}")
    inside = kind_cluster.at(STORE_NAMESPACE)
    inside("rollout", "status", "deployment/s3", "--timeout=180s", seconds=200)
    keys = next(each["stringData"] for each in yaml.safe_load_all(manifest.read_text()) if each["kind"] == "Secret")
    with forwarded(inside, "service/s3", 7070) as port:
        yield S3Server(
            "versitygw",
            f"http://127.0.0.1:{port}",
            access_key=keys["access-key"],
            secret_key=keys["secret-key"],
            bucket=BUCKET,
        )


@pytest.fixture(scope="session")
def inputs(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny model and rows that it can learn lie below s3://sftjob/smoke, where the specs look for them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "model")
    write_rows(folder / "train.jsonl")
    rows = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(rows[6:]))
    (folder / "eval.jsonl").write_text("".join(rows[:6]))
    for path in folder.rglob("*.*"):
        s3.client().upload_file(str(path), BUCKET, f"smoke/{path.relative_to(folder)}")


@pytest.fixture(scope="session")
def jobset(kind_cluster: Kubectl) -> None:
    """JobSet is installed and answers."""
    if manifest := os.environ.get("JOBSET_MANIFEST"):
        kind_cluster("apply", "--server-side", "--force-conflicts", f"--filename={manifest}")
    elif "jobsets" not in kind_cluster("api-resources", "--api-group=jobset.x-k8s.io", "--output=name"):
        pytest.skip("JobSet is not installed; set JOBSET_MANIFEST to a release's manifests.yaml")
    kind_cluster.at("jobset-system")("rollout", "status", "deployment", "--timeout=180s", seconds=200)


@pytest.fixture
def namespace(kind_cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a new namespace that enforces `restricted` and holds the store's credentials (k8s/namespace.yaml)."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{slug}-{secrets.token_hex(2)}"
    objects = [*yaml.safe_load_all((ROOT / "k8s" / "namespace.yaml").read_text())]
    for each in objects:
        each["metadata"] |= {"name": name} if each["kind"] == "Namespace" else {"namespace": name}
    inside = kind_cluster.at(name)
    inside("apply", "--filename=-", stdin=yaml.safe_dump_all(objects))
    yield inside
    inside("delete", "namespace", name, "--wait=false")


@pytest.fixture
def root(s3: S3Server, inputs: None, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The store in which runs are kept, and the environment that reaches it from this machine."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/runs")


@pytest.fixture
def make_run(namespace: Kubectl, images: Images, root: ObjectStore, tmp_path: Path) -> MakeRun:
    """Renders `specs/NAME.yaml` as a run of its own: `make_run("lora", "training.max_steps=10", engine="jobset")`."""
    salt = secrets.token_hex(4)

    def make(name: str, *overrides: str, **platform: Any) -> ClusterRun:
        profile = {
            "images": {"train": images.train, "eval": images.train, "gate": images.gate},
            "namespace": namespace.namespace,
            "storage": {
                "uri": root.uri,
                "endpoint_url": f"http://s3.{STORE_NAMESPACE}.svc:7070",
                "region": "us-east-1",
                "credentials_secret": {"name": "store", "key": "credentials"},
            },
            **platform,
        }
        file = tmp_path / "profile.yaml"
        file.write_text(yaml.safe_dump(profile))
        spec = Path(__file__).parent / "specs" / f"{name}.yaml"
        return render_run(spec, file, namespace, root, overrides=[f"salt={salt}", *overrides])

    return make


@pytest.fixture(scope="session")
def weights() -> Weights:
    """Of the runs that have ended so far."""
    return {}


@pytest.fixture
def proved(record_property: Callable[[str, object], None]) -> Proved:
    """Adds a line to the table at the end, if the test passes."""
    return lambda text: record_property(PROVED, text)


def _built(target: str) -> str:
    """Builds one target of images/Dockerfile; only what has changed takes time."""
    tag = f"sftjob:smoke-{target}"
    print(f"building the image {target} …", file=sys.stderr, flush=True)
    dockerfile = f"--file={ROOT / 'images' / 'Dockerfile'}"
    kind.run("docker", "build", "--network=host", f"--target={target}", f"--tag={tag}", dockerfile, str(ROOT))
    return kind.push(tag, f"sftjob-{target}")
