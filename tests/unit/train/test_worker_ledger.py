import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftjob.errors import ConfigurationError, Diverged
from sftjob.train.ledger import Ledger, LedgerState, StepSums, read_ledger


def _ledger(state: LedgerState | None = None, seconds: float = 1.0) -> Ledger:
    """A ledger whose clock moves by `seconds` at every look."""

    def ticks() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += seconds

    clock = ticks()
    return Ledger(state or LedgerState(train_rows=9), clock=lambda: next(clock))


def _sums(loss: float, *, tokens: int = 10, trained_tokens: int = 4, grad_norm: float = 1.0) -> StepSums:
    return StepSums(loss, tokens, trained_tokens, grad_norm)


class TestLedger:
    def test_window_is_the_mean_over_steps_of_the_loss_per_trained_token(self) -> None:
        ledger = _ledger()
        ledger.finish_step(1, _sums(8.0, trained_tokens=4))
        ledger.finish_step(2, _sums(8.0, trained_tokens=8))
        assert ledger.close_window().loss == (2.0 + 1.0) / 2
        ledger.finish_step(3, _sums(12.0, trained_tokens=4))
        assert ledger.close_window().loss == 3.0

    def test_adds_up(self) -> None:
        ledger = _ledger(LedgerState(step=5, train_rows=9, seconds=100.0, tokens_seen=1000, trained_tokens_seen=400))
        ledger.finish_step(6, _sums(1.0))
        state = ledger.state
        assert (state.step, state.tokens_seen, state.trained_tokens_seen, state.seconds) == (6, 1010, 404, 101.0)

    def test_speed_leaves_out_what_is_not_training(self) -> None:
        now = [0.0]
        ledger = Ledger(LedgerState(train_rows=9), clock=lambda: now[0])
        now[0] = 2.0
        ledger.finish_step(1, _sums(1.0, tokens=10))
        now[0] = 50.0
        ledger.start_clock()
        now[0] = 53.0
        ledger.finish_step(2, _sums(1.0, tokens=10))
        assert ledger.close_window().tokens_per_second == 20 / 5
        assert (ledger.seconds_per_step, ledger.state.seconds) == (2.5, 5.0)

    @pytest.mark.parametrize(
        ("sums", "what"),
        [
            (_sums(math.nan), "the loss is nan at step 3"),
            (_sums(math.inf), "the loss is inf at step 3"),
            (_sums(1.0, grad_norm=math.inf), "the gradient's norm is inf at step 3"),
        ],
        ids=["nan", "inf", "gradient"],
    )
    def test_what_is_not_finite_is_not_booked(self, sums: StepSums, what: str) -> None:
        ledger = _ledger()
        ledger.finish_step(2, _sums(1.0))
        before = ledger.state
        with pytest.raises(Diverged, match=what):
            ledger.finish_step(3, sums)
        assert ledger.state == before

    def test_a_step_without_trained_tokens_has_no_loss(self) -> None:
        ledger = _ledger()
        ledger.finish_step(1, _sums(0.0, trained_tokens=0))
        assert ledger.close_window().loss == 0.0


class TestState:
    def test_comes_back_bit_for_bit(self, tmp_path: Path) -> None:
        ledger = _ledger(seconds=0.1)
        for step in range(1, 8):
            ledger.finish_step(step, _sums(math.pi * step, trained_tokens=3))
        ledger.owe_evaluation(True)
        ledger.save(tmp_path)
        read = read_ledger(tmp_path, train_rows=9)
        assert read == ledger.state
        assert read.window_loss.hex() == ledger.state.window_loss.hex()
        assert read.evaluation_owed

    def test_a_window_goes_on_where_it_was(self, tmp_path: Path) -> None:
        whole, first = _ledger(), _ledger()
        for step in (1, 2, 3):
            whole.finish_step(step, _sums(step / 7))
        first.finish_step(1, _sums(1 / 7))
        first.save(tmp_path)
        second = _ledger(read_ledger(tmp_path, train_rows=9))
        second.finish_step(2, _sums(2 / 7))
        second.finish_step(3, _sums(3 / 7))
        assert second.close_window().loss.hex() == whole.close_window().loss.hex()

    @pytest.mark.parametrize("content", [None, b"{", b'{"train_rows": "many"}'], ids=["absent", "cut", "wrong"])
    def test_unreadable(self, content: bytes | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "sftjob_state.json").write_bytes(content)
        with pytest.raises(ConfigurationError, match="not a checkpoint of this program; start another run"):
            read_ledger(tmp_path, train_rows=9)

    def test_of_other_data(self, tmp_path: Path) -> None:
        _ledger().save(tmp_path)
        with pytest.raises(ConfigurationError, match="trained on 9 rows, the data have 8"):
            read_ledger(tmp_path, train_rows=8)
