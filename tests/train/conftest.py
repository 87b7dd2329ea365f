"""Models and rows that several rings train on; made once a session."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from sftjob.resolved import ResolvedMethod
from tests.train import tiny
from tests.train.tiny import Run


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Bits are compared across processes, and the number of threads may change the order of a sum."""
    import torch  # noqa: PLC0415 - only when a test of this ring runs

    torch.set_num_threads(1)
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied embeddings, without rows for the ChatML tokens."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tied")


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("models") / "untied", tied=False)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path
) -> Callable[[ResolvedMethod], Run]:
    """Uninterrupted runs of `tiny.job`, each done once."""
    runs: dict[str, Run] = {}

    def get(method: ResolvedMethod) -> Run:
        if method.type not in runs:
            work = tiny.prepare(
                tmp_path_factory.mktemp("finished") / method.type, tiny.job(method), model=tiny_model, data=tiny_data
            )
            runs[method.type] = tiny.run_here(work)
        return runs[method.type]

    return get
