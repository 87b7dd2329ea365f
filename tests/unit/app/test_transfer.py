import pytest

from sftjob.app.transfer import Transfer, as_bytes

MIB = 2**20


def test_tells_every_ten_seconds_how_far_and_how_long() -> None:
    told: list[str] = []
    now = [0.0]
    transfer = Transfer(told.append, "sending model", 1000 * MIB, clock=lambda: now[0])

    for second in range(1, 31):
        now[0] = float(second)
        transfer.add(4 * MIB)

    assert told == [
        "sending model: 40.0 MiB of 1000.0 MiB, 4.0 MiB/s, 4 min left",
        "sending model: 80.0 MiB of 1000.0 MiB, 4.0 MiB/s, 4 min left",
        "sending model: 120.0 MiB of 1000.0 MiB, 4.0 MiB/s, 4 min left",
    ]


def test_the_end_is_told_by_others() -> None:
    told: list[str] = []
    now = [0.0]
    transfer = Transfer(told.append, "sending", 10, clock=lambda: now[0])
    now[0] = 60.0

    transfer.add(10)

    assert told == []


def test_short_times_are_seconds() -> None:
    told: list[str] = []
    now = [0.0]
    transfer = Transfer(told.append, "sending", 100, clock=lambda: now[0])
    now[0] = 10.0
    transfer.add(20)

    assert told == ["sending: 20 B of 100 B, 2 B/s, 40 s left"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * MIB, "3.0 MiB"), (2**31, "2.0 GiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert as_bytes(size) == text
