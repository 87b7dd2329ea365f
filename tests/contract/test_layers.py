"""Imports point one way, and each leg starts without what only the other one needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

Modules = Mapping[str, ast.Module]

CHAIN = ["contract", "errors", "records", "spec", "resolved", "plan", "resolve", "storage", "container"]
CHAIN += ["model_folder", "inputs", "hub", "model_cache", "model_source", "data", "methods"]
ALLOWED: dict[str, set[str]] = {
    **{unit: set(CHAIN[:place]) for place, unit in enumerate(CHAIN)},
    "train": set(CHAIN),
    "evaluate": set(CHAIN),
    "report": set(CHAIN[: CHAIN.index("storage") + 1]),
    "place": {"contract", "errors", "spec"},
    "render": {"contract", "errors", "spec", "place"},
    "cluster": {"contract", "errors", "records", "spec", "place", "render"},
    "gate": {"contract", "errors", "records", "spec", "storage", "container", "cluster"},
}
ALLOWED["app"] = {*ALLOWED, *CHAIN}
ALLOWED["cli"] = {*ALLOWED["app"], "app"}
"""What each part of the package may import besides itself. A new part has to be given its place here."""

THIRD_PARTY: dict[str, set[str]] = {
    "boto3": {"sftjob.storage.s3"},
    "botocore": {"sftjob.storage.s3", "sftjob.storage.s3_errors", "sftjob.storage.s3_parts"},
    "huggingface_hub": {"sftjob.hub"},
    "kubernetes": {"sftjob.cluster.api", "sftjob.cluster.credentials"},
}
"""The only modules that may import these."""
HEAVY = ("torch", "transformers", "trl", "peft", "datasets")
HEAVY_UNITS = {"data", "methods", "train", "evaluate"}
HEAVY_MODULES = {"sftjob.app.evaluation_models"}


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all imports, those inside functions and for type checkers included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def unit(name: str) -> str:
    """`sftjob.render.pod` belongs to `render`; `sftjob` itself, which imports nothing, to nobody."""
    return f"{name}.".split(".")[1]


def violations(modules: Modules) -> Iterator[str]:
    for name, tree in modules.items():
        for target in imported(tree):
            # `from sftjob import __version__` and `from sftjob import hub` look alike.
            if not target.startswith("sftjob.") or target == "sftjob.__version__":
                continue
            if unit(target) != unit(name) and unit(target) not in ALLOWED[unit(name)]:
                yield f"{name} imports {target}"


class TestOurOwn:
    def test_every_part_has_its_place(self, modules: Modules) -> None:
        assert {unit(name) for name in modules} - {""} <= ALLOWED.keys()

    def test_imports_point_one_way(self, modules: Modules) -> None:
        assert not list(violations(modules))

    def test_the_root_imports_nothing(self, modules: Modules) -> None:
        assert not list(imported(modules["sftjob"]))

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("sftjob.spec.job", "from sftjob.resolve import resolve"),
            ("sftjob.train.worker", "import sftjob.evaluate.score"),
            ("sftjob.report.html", "def f():\n    from sftjob import train"),
            ("sftjob.place", "from sftjob.render import render"),
            ("sftjob.data.prepare", "if TYPE_CHECKING:\n    from sftjob.methods.base import FineTuning"),
        ],
    )
    def test_a_wrong_import_is_found(self, name: str, line: str) -> None:
        assert len(list(violations({name: ast.parse(line)}))) == 1


class TestThirdParties:
    @pytest.mark.parametrize("package", THIRD_PARTY)
    def test_only_where_they_belong(self, modules: Modules, package: str) -> None:
        importers = {name for name, tree in modules.items() for target in imported(tree) if top(target) == package}

        assert importers <= THIRD_PARTY[package]

    def test_named_importers_exist(self, modules: Modules) -> None:
        assert {name for names in THIRD_PARTY.values() for name in names} <= modules.keys()

    def test_training_libraries_stay_in_the_container(self, modules: Modules) -> None:
        importers = {name for name, tree in modules.items() for target in imported(tree) if top(target) in HEAVY}

        assert {name for name in importers if unit(name) not in HEAVY_UNITS} == HEAVY_MODULES


UNKNOWN_TO_THE_CORE = ("tokenizers", "jinja2", "pyarrow", "numpy", "boto3", "huggingface_hub")
LAPTOP = "import sftjob.spec, sftjob.spec.load, sftjob.place, sftjob.render"
ABSENT = {
    LAPTOP: (*HEAVY, "boto3", "botocore", "kubernetes", "huggingface_hub", "numpy"),
    "import sftjob.resolve, sftjob.plan, sftjob.storage, sftjob.records": (*HEAVY, "boto3", "huggingface_hub"),
    "import sftjob.train.supervisor, sftjob.model_source": (*HEAVY, "numpy"),
    "import sftjob.report": (*HEAVY, "boto3", "matplotlib"),
    "import sftjob.gate.__main__": (*HEAVY, "boto3", "kubernetes", "huggingface_hub", "numpy"),
    "import sftjob.app": (*HEAVY, "boto3", "kubernetes", "huggingface_hub"),
    # README: the core alone audits and converts JSON and CSV files.
    "import sftjob.app.data, sftjob.app.data_source, sftjob.data.formats": (*HEAVY, *UNKNOWN_TO_THE_CORE),
    "import sftjob.cli": (*HEAVY, "boto3", "kubernetes", "huggingface_hub", "matplotlib", "pygments"),
}


class TestFreshProcess:
    @pytest.mark.parametrize(("statement", "absent"), ABSENT.items(), ids=[line[7:40] for line in ABSENT])
    def test_leaves_out(self, statement: str, absent: tuple[str, ...]) -> None:
        assert not {top(name) for name in loaded_by(statement)} & set(absent)

    def test_sees_what_is_loaded(self) -> None:
        assert "yaml" in loaded_by(LAPTOP)


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
