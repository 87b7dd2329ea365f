"""What a store and the network do on a bad day, each once: F20 to F28 of the fault matrix."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.errors import ConfigurationError, Denied, Exists, NotFound, StorageError, Unavailable
from sftjob.records import Commit
from sftjob.storage import probe, read_commit, restore_latest, s3, upload_folder, write_commit
from sftjob.storage.retry import Patience
from sftjob.storage.s3 import S3Store
from tests.s3_server import S3Server
from tests.storage.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.store_contract import listed, sha256

pytestmark = pytest.mark.storage
PART_BYTES = 5 * 2**20
QUICK = Patience(deadline_seconds=20, first_delay_seconds=0.01, max_delay_seconds=0.05)
BIG = bytes(range(256)) * (6 * 2**12)
"""6 MiB: two parts."""


@pytest.fixture
def server(s3_server: S3Server) -> S3Server:
    """One kind of server; classes whose faults meet the servers' own ways take each kind."""
    return s3_server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint_url) as proxy:
        yield proxy


def _open(server: S3Server, proxy: FaultProxy, patience: Patience = QUICK) -> S3Store:
    return S3Store.open(server.bucket, "run", endpoint_url=proxy.endpoint_url, patience=patience, part_bytes=PART_BYTES)


@pytest.fixture
def store(server: S3Server, proxy: FaultProxy) -> S3Store:
    return _open(server, proxy)


def _hurried() -> Patience:
    """The real deadline and delays on a clock that nobody waits for."""
    slept: list[float] = []
    return Patience(clock=lambda: sum(slept), sleep=slept.append)


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(BIG)
    return path


class TestBursts:
    @pytest.fixture
    def server(self, each_s3_server: S3Server) -> S3Server:
        return each_s3_server

    @pytest.mark.parametrize(
        ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (409, "ConditionalRequestConflict")]
    )
    def test_every_kind_of_request_passes(
        self, store: S3Store, proxy: FaultProxy, tmp_path: Path, status: int, code: str
    ) -> None:
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            proxy.add(Fault("status", method=method, times=8, status=status, code=code))

        store.put_bytes("a", b"x", if_absent=True)
        assert store.get_bytes("a") == b"x"
        if status != 409:
            assert store.head("a").size == 1
        store.delete("a")

        assert [fault.hits for fault in proxy.faults[:2]] == [8, 8]
        assert proxy.faults[3].hits == 8

    def test_in_every_request_of_an_upload_in_parts(
        self, store: S3Store, proxy: FaultProxy, big_file: Path, tmp_path: Path
    ) -> None:
        faults = [
            proxy.add(Fault("status", method="POST", contains="uploads", times=3)),
            proxy.add(Fault("status", method="PUT", contains="partNumber=2", times=3)),
            proxy.add(Fault("status", method="POST", contains="uploadId", times=3)),
            proxy.add(Fault("status", method="HEAD", times=3)),
        ]

        store.put_file("big", big_file, sha256=sha256(BIG))
        store.get_file("big", tmp_path / "out", size=len(BIG), sha256=sha256(BIG))

        assert [fault.hits for fault in faults] == [3, 3, 3, 3]
        parts = [path for method, path in proxy.requests if method == "PUT" and "partNumber" in path]
        assert len(parts) == 2 + 3, "only the refused part is sent again"

    def test_a_body_that_was_damaged_on_its_way_up(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.add(Fault("status", method="PUT", status=400, code="BadDigest", times=2))

        store.put_bytes("a", b"x")

        assert store.get_bytes("a") == b"x"


class TestOutage:
    def test_ends_at_the_deadline_and_names_all(self, server: S3Server, proxy: FaultProxy) -> None:
        store = _open(server, proxy, _hurried())
        proxy.add(Fault("status", times=10_000))

        with pytest.raises(
            Unavailable,
            match=rf"{proxy.endpoint_url}, bucket {server.bucket},.*SlowDown.* \(\d+ tries in \d\d s\)",
        ) as error:
            store.put_bytes("commits/1.json", b"x", if_absent=True)
        assert error.value.exit_code == ExitCode.STORAGE
        assert "\n" not in str(error.value)
        assert len(proxy.requests) > 10

    def test_a_server_that_is_gone(self, server: S3Server) -> None:
        with fault_proxy(server.endpoint_url) as gone:
            store = _open(server, gone, _hurried())

        with pytest.raises(Unavailable, match=rf"{gone.endpoint_url}, bucket .*EndpointConnectionError"):
            store.list()

    def test_in_the_middle_of_an_upload_nothing_is_visible(
        self, server: S3Server, proxy: FaultProxy, big_file: Path
    ) -> None:
        store = _open(server, proxy, _hurried())
        proxy.add(Fault("status", method="PUT", contains="partNumber=2", times=10_000))

        with pytest.raises(Unavailable, match="run/big"):
            store.put_file("big", big_file, sha256=sha256(BIG))
        assert listed(store) == []
        assert store.abort_stale_uploads() == 0, "the failed upload has cleaned up behind itself"


class TestLostReplies:
    @pytest.fixture
    def server(self, each_s3_server: S3Server) -> S3Server:
        return each_s3_server

    def test_conditional_put_recognises_its_own_work(self, store: S3Store, proxy: FaultProxy) -> None:
        fault = proxy.add(Fault("lose_reply", method="PUT"))

        store.put_bytes("commits/1.json", b"ours", if_absent=True)

        assert fault.hits == 1
        assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "GET"]

    def test_conditional_put_after_a_lost_race(self, store: S3Store, proxy: FaultProxy) -> None:
        store.put_bytes("commits/1.json", b"theirs")
        proxy.add(Fault("lose_reply", method="PUT"))

        with pytest.raises(Exists):
            store.put_bytes("commits/1.json", b"ours", if_absent=True)
        assert store.get_bytes("commits/1.json") == b"theirs"

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("lose_reply", method="PUT", contains="partNumber=1"),
            Fault("lose_reply", method="POST", contains="uploadId"),
        ],
        ids=["part", "completion"],
    )
    def test_upload_in_parts(
        self, store: S3Store, proxy: FaultProxy, big_file: Path, tmp_path: Path, fault: Fault
    ) -> None:
        proxy.add(fault)

        store.put_file("big", big_file, sha256=sha256(BIG))
        store.get_file("big", tmp_path / "out", size=len(BIG), sha256=sha256(BIG))

        assert fault.hits == 1

    def test_completed_upload_that_is_not_known_any_more(
        self, store: S3Store, proxy: FaultProxy, big_file: Path
    ) -> None:
        proxy.add(Fault("lose_reply", method="POST", contains="uploadId"))
        gone = proxy.add(Fault("status", method="POST", contains="uploadId", status=404, code="NoSuchUpload"))

        store.put_file("big", big_file, sha256=sha256(BIG))

        assert gone.hits == 1
        assert store.head("big").size == len(BIG)

    def test_upload_that_somebody_has_aborted(self, store: S3Store, proxy: FaultProxy, big_file: Path) -> None:
        proxy.add(Fault("status", method="POST", contains="uploadId", status=404, code="NoSuchUpload"))

        with pytest.raises(NotFound, match="run/big"):
            store.put_file("big", big_file, sha256=sha256(BIG))
        assert listed(store) == []

    def test_upload_that_somebody_else_has_completed(
        self, store: S3Store, proxy: FaultProxy, big_file: Path, tmp_path: Path
    ) -> None:
        other = bytes(len(BIG))
        (tmp_path / "other").write_bytes(other)
        store.put_file("big", tmp_path / "other", sha256=sha256(other))
        proxy.add(Fault("status", method="POST", contains="uploadId", status=404, code="NoSuchUpload"))

        with pytest.raises(StorageError, match="of another upload"):
            store.put_file("big", big_file, sha256=sha256(BIG))

    def test_delete(self, store: S3Store, proxy: FaultProxy) -> None:
        store.put_bytes("a", b"x")
        proxy.add(Fault("lose_reply", method="DELETE"))

        store.delete("a")

        assert listed(store) == []


class TestDamagedDownloads:
    @pytest.mark.parametrize("action", ["short_body", "flip_byte"])
    @pytest.mark.parametrize("size", [1000, len(BIG)])
    def test_passing_damage_is_repaired(
        self, store: S3Store, proxy: FaultProxy, tmp_path: Path, action: Any, size: int
    ) -> None:
        store.put_bytes("file", BIG[:size])
        fault = proxy.add(Fault(action, method="GET"))

        store.get_file("file", tmp_path / "out", size=size, sha256=sha256(BIG[:size]))

        assert fault.hits == 1
        assert (tmp_path / "out").read_bytes() == BIG[:size]

    def test_only_the_short_part_is_read_again(self, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        store.put_bytes("file", BIG)
        proxy.add(Fault("short_body", method="GET", skip=1, times=2))

        store.get_file("file", tmp_path / "out", size=len(BIG), sha256=sha256(BIG))

        assert [method for method, _ in proxy.requests].count("GET") == 2 + 2

    def test_part_that_is_short_and_says_so(self, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        store.put_bytes("file", BIG)
        fault = proxy.add(Fault("cut_body", method="GET"))

        store.get_file("file", tmp_path / "out", size=len(BIG), sha256=None)

        assert fault.hits == 1
        assert (tmp_path / "out").read_bytes() == BIG

    def test_short_small_object(self, store: S3Store, proxy: FaultProxy) -> None:
        store.put_bytes("commits/1.json", b"0123456789")
        proxy.add(Fault("short_body", method="GET", times=2))

        assert store.get_bytes("commits/1.json") == b"0123456789"

    def test_lasting_damage_is_refused_by_name(self, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        store.put_bytes("file", BIG)
        proxy.add(Fault("flip_byte", method="GET", times=10_000))

        with pytest.raises(StorageError, match=r"run/file: has sha256 .* instead of"):
            store.get_file("file", tmp_path / "out", size=len(BIG), sha256=sha256(BIG))
        assert list(tmp_path.iterdir()) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "code", "words"),
        [
            (403, "AccessDenied", "s3:ListBucket"),
            (403, "RequestTimeTooSkewed", "clock"),
            (401, "Unauthorized", "grant"),
        ],
    )
    def test_is_never_an_absent_object_nor_asked_twice(
        self, store: S3Store, proxy: FaultProxy, status: int, code: str, words: str
    ) -> None:
        proxy.add(Fault("status", times=10_000, status=status, code=code))

        for ask in (store.get_bytes, store.delete, store.list, lambda key: store.put_bytes(key, b"x", if_absent=True)):
            proxy.requests.clear()
            with pytest.raises(Denied, match=words) as error:
                ask("checkpoints")
            assert error.value.exit_code == ExitCode.CREDENTIALS
            assert len(proxy.requests) == 1

    def test_head_tells_of_the_missing_right(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.add(Fault("status", method="HEAD", times=10_000, status=403))

        with pytest.raises(Denied, match=r"without s3:ListBucket AWS answers so for an absent object"):
            store.head("absent")

    def test_resume_without_rights_is_no_new_start(self, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        proxy.add(Fault("status", method="GET", times=10_000, status=403, code="AccessDenied"))

        with pytest.raises(Denied):
            restore_latest(store, tmp_path / "resume", spec_sha256="0" * 64, world_size=1, warn=print)


class TestExpiredToken:
    @pytest.mark.parametrize(
        "answer",
        [
            (400, "ExpiredToken"),
            # A key that was replaced: the mounted Secret has the new one by now.
            (403, "InvalidAccessKeyId"),
            (403, "SignatureDoesNotMatch"),
        ],
    )
    def test_new_credentials_are_taken_up(
        self, store: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str]
    ) -> None:
        made = self._count_clients(monkeypatch)
        proxy.add(Fault("status", method="PUT", status=answer[0], code=answer[1]))

        store.put_bytes("a", b"x")

        assert store.get_bytes("a") == b"x"
        assert len(made) == 2

    @pytest.mark.parametrize(
        ("answer", "words"),
        [((400, "ExpiredToken"), "AWS_SESSION_TOKEN"), ((403, "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID")],
    )
    def test_without_new_credentials(
        self, store: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], words: str
    ) -> None:
        made = self._count_clients(monkeypatch)
        proxy.add(Fault("status", times=10_000, status=answer[0], code=answer[1]))

        with pytest.raises(Denied, match=words):
            store.put_bytes("a", b"x")
        assert len(made) == len(proxy.requests) == 2

    @staticmethod
    def _count_clients(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        made: list[Any] = []
        new_client = s3._new_client
        monkeypatch.setattr(s3, "_new_client", lambda *where: made.append(new_client(*where)) or made[-1])
        return made


class TestProbe:
    def test_store_that_ignores_conditions(self, s3_servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        # moto: the header is part of what versitygw verifies the signature of.
        server = s3_servers("moto").with_new_bucket()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with fault_proxy(server.endpoint_url) as proxy:
            proxy.add(Fault("strip_condition", method="PUT", times=10_000))
            store = _open(server, proxy)

            with pytest.raises(ConfigurationError, match=r"8 of 8 writers.*storage\.single_writer: true"):
                probe(store, single_writer=False)
            assert listed(store) == []
            probe(store, single_writer=True)

    def test_passes_through_a_burst(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.add(Fault("status", method="PUT", times=12))
        proxy.add(Fault("lose_reply", method="PUT", skip=3, times=3))

        probe(store, single_writer=False)

    def test_wrong_credentials_are_a_few_requests(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.add(Fault("status", times=10_000, status=403, code="SignatureDoesNotMatch"))

        with pytest.raises(Denied, match="AWS_SECRET_ACCESS_KEY"):
            probe(store, single_writer=False)
        assert len(proxy.requests) <= 2


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(BIG)
        (folder / "optimizer.pt").write_bytes(b"state")
        return folder

    def _commit(self, store: S3Store, folder: Path, step: int) -> Commit:
        (folder / "step").write_text(str(step))
        files = upload_folder(store, folder, keys.checkpoint(step, 1))
        commit = Commit(run_id="run", attempt=1, step=step, spec_sha256="0" * 64, world_size=1, files=files)
        write_commit(store, commit)
        return commit

    @pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.pt", "step"])
    def test_flipped_byte_falls_back_aloud(self, store: S3Store, folder: Path, tmp_path: Path, victim: str) -> None:
        self._commit(store, folder, 5)
        self._commit(store, folder, 10)
        key = keys.checkpoint(10, 1, victim)
        data = bytearray(store.get_bytes(key))
        data[len(data) // 2] ^= 1
        store.put_bytes(key, bytes(data))
        warnings: list[str] = []

        commit = restore_latest(store, tmp_path / "resume", spec_sha256="0" * 64, world_size=1, warn=warnings.append)

        assert commit is not None
        assert commit.step == 5
        assert (tmp_path / "resume" / "step").read_text() == "5"
        assert (tmp_path / "resume" / "model.safetensors").read_bytes() == BIG
        assert [key in warning for warning in warnings] == [True]

    def test_publishing_that_is_cut_off_anywhere_leaves_no_commit(
        self, server: S3Server, proxy: FaultProxy, folder: Path, tmp_path: Path
    ) -> None:
        store = _open(server, proxy, Patience(deadline_seconds=0))
        self._commit(store, folder, 5)
        for number in range(len(proxy.requests)):
            proxy.faults[:] = [Fault("status", skip=number, times=10_000)]
            with pytest.raises(Unavailable):
                self._commit(store, folder, 10)
            proxy.faults.clear()
            with pytest.raises(NotFound):
                read_commit(store, 10)

        self._commit(store, folder, 10)
        assert read_commit(store, 10).step == 10
