import threading

import pytest

from sftjob.train.background import Background


def test_gives_the_value() -> None:
    assert Background(lambda: 7, "t").wait() == 7


def test_raises_what_the_call_raised() -> None:
    def fail() -> None:
        raise LookupError("x")

    background = Background(fail, "t")
    with pytest.raises(LookupError, match="x"):
        background.wait()
    with pytest.raises(LookupError, match="x"):
        background.check()


def test_a_check_that_raises_leaves_the_call_behind() -> None:
    forever = threading.Event()

    def stop() -> None:
        raise TimeoutError("enough")

    background = Background(forever.wait, "t")
    with pytest.raises(TimeoutError, match="enough"):
        background.wait(stop, every=0.001)
    background.check()
    forever.set()
