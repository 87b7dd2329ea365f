"""The folder of models that pods share: whole or absent, verified, and done without where it does not work."""

import errno
import fcntl
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob import model_source
from sftjob.contract import keys
from sftjob.errors import DiskFull, InputMissing, Unavailable
from sftjob.inputs import hash_input
from sftjob.model_cache import cached_model, hub_folder, stored_key
from sftjob.model_source import fetch_model
from sftjob.spec import HubModel, PinnedModel, StoredModel
from sftjob.storage import FolderStore

KEY = "a" * 64


class Fill:
    """Puts a model into a folder and counts how often."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        shutil.copytree(self.model, folder, dirs_exist_ok=True)


@pytest.fixture
def fill(model_folder: Path) -> Fill:
    return Fill(model_folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def told() -> list[str]:
    return []


def get(cache: Path, fill: Callable[[Path], None], told: list[str], *, size: int = 100) -> Path | None:
    return cached_model(cache, KEY, fill, name="tiny", size=size, progress=told.append)


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir() if not path.name.endswith(".lock"))


class TestFilling:
    def test_is_done_once(self, cache: Path, fill: Fill, told: list[str]) -> None:
        first, second = get(cache, fill, told), get(cache, fill, told)

        assert first == second == cache / "models" / KEY
        assert fill.count == 1
        assert told == [f"using tiny from the cache ({first})"]
        assert hash_input(cache / "models" / KEY) == hash_input(fill.model)

    def test_leaves_nothing_when_it_fails(self, cache: Path, fill: Fill, told: list[str]) -> None:
        def broken(folder: Path) -> None:
            fill(folder)
            raise Unavailable("no answer", file="s3://bucket/x")

        with pytest.raises(Unavailable):
            get(cache, broken, told)

        assert entries(cache) == []
        assert get(cache, fill, told) == cache / "models" / KEY

    def test_removes_what_a_killed_pod_has_left(self, cache: Path, fill: Fill, told: list[str]) -> None:
        (cache / "models" / f".{KEY}.killed").mkdir(parents=True)

        get(cache, fill, told)

        assert entries(cache) == [KEY]

    def test_several_pods_fill_it_once(self, cache: Path, fill: Fill, told: list[str]) -> None:
        inside, go = threading.Event(), threading.Event()

        def slow(folder: Path) -> None:
            inside.set()
            assert go.wait(20)
            fill(folder)

        waiting = threading.Event()

        def progress(line: str) -> None:
            told.append(line)
            if "waiting for it" in line:
                waiting.set()

        found: list[Path | None] = []

        def other() -> None:
            found.append(cached_model(cache, KEY, slow, name="tiny", size=1, progress=progress))

        first = threading.Thread(target=lambda: found.append(get(cache, slow, [])))
        second = threading.Thread(target=other)
        first.start()
        assert inside.wait(20)
        second.start()
        assert waiting.wait(20)
        go.set()
        first.join()
        second.join()

        assert found == [cache / "models" / KEY] * 2
        assert fill.count == 1
        assert told == [
            "another pod is putting tiny into the cache; waiting for it",
            f"using tiny from the cache ({cache / 'models' / KEY}), where another pod has put it",
        ]

    def test_a_killed_holder_lets_go(self, cache: Path, fill: Fill, told: list[str]) -> None:
        (cache / "models").mkdir(parents=True)
        code = (
            "import fcntl, sys\n"
            "file = open(sys.argv[1], 'a')\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code, str(cache / "models" / f"{KEY}.lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()

            def progress(line: str) -> None:
                told.append(line)
                holder.kill()

            assert cached_model(cache, KEY, fill, name="tiny", size=1, progress=progress)
        assert told == ["another pod is putting tiny into the cache; waiting for it"]

    def test_works_on_a_file_system_without_locks(
        self, cache: Path, fill: Fill, told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        other = cache / "models" / f".{KEY}.others"
        other.mkdir(parents=True)

        assert get(cache, fill, told)
        assert other.is_dir(), "it may be that of a pod that fills it at this moment"


class TestVerifying:
    @pytest.mark.parametrize("damage", ["content", "missing", "manifest"])
    def test_damage_is_found_and_repaired(self, cache: Path, fill: Fill, told: list[str], damage: str) -> None:
        entry = get(cache, fill, told)
        assert entry is not None
        weights = entry / "model.safetensors"
        match damage:
            case "content":
                weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
            case "missing":
                weights.unlink()
            case "manifest":
                (entry / ".sftjob.json").write_text("[")

        assert get(cache, fill, told) == entry
        assert fill.count == 2
        assert told == [f"tiny in the cache is damaged and fetched again ({entry})"]
        assert hash_input(entry) == hash_input(fill.model)


class TestDoingWithout:
    def test_a_full_one(self, cache: Path, fill: Fill, told: list[str]) -> None:
        assert get(cache, fill, told, size=10**18) is None
        assert fill.count == 0
        assert told[0].startswith(f"the cache {cache} cannot be used (1000000000.0 GB do not fit into ")
        assert told[0].endswith("): fetching tiny without it")

    def test_one_that_fills_up_meanwhile(self, cache: Path, told: list[str]) -> None:
        def full(folder: Path) -> None:
            raise DiskFull("No space left on device", file=str(folder / "model.safetensors"))

        assert get(cache, full, told) is None
        assert told == [f"the cache {cache} cannot be used (No space left on device): fetching tiny without it"]
        assert entries(cache) == []

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
    def test_one_that_cannot_be_written(
        self, cache: Path, fill: Fill, told: list[str], monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refused(path: Path, *_: object, **__: object) -> None:
            raise OSError(number, "refused", str(path))

        monkeypatch.setattr(Path, "mkdir", refused)

        assert get(cache, fill, told) is None
        assert len(told) == 1

    def test_one_that_cannot_be_written_but_has_the_model(
        self, cache: Path, fill: Fill, told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = get(cache, fill, told)

        def refused(path: Path, *_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(path))

        monkeypatch.setattr(Path, "mkdir", refused)

        assert get(cache, fill, told) == entry
        assert fill.count == 1

    def test_a_place_that_is_no_folder(self, cache: Path, fill: Fill, told: list[str]) -> None:
        cache.write_text("x")

        assert get(cache, fill, told) is None

    def test_the_stores_own_troubles_are_not_the_caches(self, cache: Path, told: list[str]) -> None:
        def refused(_folder: Path) -> None:
            raise InputMissing("not there", file="s3://bucket/model")

        with pytest.raises(InputMissing):
            get(cache, refused, told)
        assert told == []


def test_other_files_under_the_same_address_are_another_model() -> None:
    one = [("config.json", 2, "v1"), ("model.safetensors", 8, "v1")]

    assert stored_key("s3://a/b", one) == stored_key("s3://a/b", list(reversed(one)))
    assert len({stored_key("s3://a/b", one), stored_key("s3://a/c", one)}) == 2
    assert stored_key("s3://a/b", one) != stored_key("s3://a/b", [one[0], ("model.safetensors", 8, "v2")])


class TestFetchModel:
    def test_a_pinned_model_is_fetched_once_by_all_pods(
        self, model_folder: Path, cache: Path, tmp_path: Path, told: list[str]
    ) -> None:
        source = PinnedModel(sha256=hash_input(model_folder), name="tiny")
        root = FolderStore(tmp_path / "root")
        for path in model_folder.iterdir():
            root.put_bytes(keys.input(source.sha256, path.name), path.read_bytes())

        pods = [
            fetch_model(source, tmp_path / pod / "model", store_root=root, inputs={}, progress=told.append, cache=cache)
            for pod in ("a", "b")
        ]

        assert pods == [cache / "models" / source.sha256] * 2
        assert not (tmp_path / "a").exists()
        assert sum("fetching" in line and "model.safetensors" in line for line in told) == 1

    def test_a_stored_model_that_was_written_again_is_another(
        self, model_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderStore(model_folder)
        monkeypatch.setattr(model_source, "open_store", lambda *_uri, **_options: store)
        source = StoredModel(uri="s3://bucket/tiny")

        def fetch() -> Path:
            return fetch_model(source, tmp_path / "pod", store_root=None, inputs={}, cache=cache)

        first = fetch()
        assert fetch() == first
        weights = store.get_bytes("model.safetensors")
        store.put_bytes("model.safetensors", weights[:-1] + b"\x01")
        second = fetch()

        assert second != first
        assert (second / "model.safetensors").read_bytes() == weights[:-1] + b"\x01"

    def test_without_a_cache_that_works_it_goes_into_the_pod(
        self, model_folder: Path, cache: Path, tmp_path: Path, told: list[str]
    ) -> None:
        cache.write_text("no folder")
        source = PinnedModel(sha256=hash_input(model_folder), name="tiny")
        root = FolderStore(tmp_path / "root")
        for path in model_folder.iterdir():
            root.put_bytes(keys.input(source.sha256, path.name), path.read_bytes())

        into = tmp_path / "pod"
        found = fetch_model(source, into, store_root=root, inputs={}, progress=told.append, cache=cache)

        assert found == into
        assert told[0].endswith("fetching tiny without it")


class TestHub:
    SOURCE = HubModel(hub="a/b", revision="0" * 40)

    @pytest.fixture
    def caches(self, monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
        """The cache that each call was given; the hub itself is not asked."""
        from sftjob import hub  # noqa: PLC0415 - half a second that the other tests need not wait

        given: list[Path | None] = []

        def link(_source: HubModel, folder: Path, _progress: object, *, cache: Path | None = None) -> None:
            given.append(cache)
            (folder / "config.json").symlink_to(__file__)
            if len(given) < self.fails:
                raise self.error

        self.fails, self.error = 0, hub.CacheRefused("cannot be written")
        monkeypatch.setattr(hub, "link_model", link)
        return given

    def test_its_models_are_kept_there(self, caches: list[Path | None], cache: Path, tmp_path: Path) -> None:
        fetch_model(self.SOURCE, tmp_path / "pod", store_root=None, inputs={}, cache=cache)

        assert caches == [hub_folder(cache)] == [cache / "hub"]

    @pytest.mark.parametrize("full", [False, True])
    def test_the_pods_own_is_used_where_it_does_not_work(
        self, caches: list[Path | None], cache: Path, tmp_path: Path, told: list[str], full: bool
    ) -> None:
        self.fails = 2
        if full:
            self.error = DiskFull("no space left")

        fetch_model(self.SOURCE, tmp_path / "pod", store_root=None, inputs={}, cache=cache, progress=told.append)

        assert caches == [cache / "hub", None]
        assert len(told) == 1
        assert told[0].startswith(f"the cache {cache} cannot be used (")
        assert told[0].endswith("): fetching without it")
