"""A hand-written evaluation, small enough to read and with every part that a report shows."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from sftjob.records import Answer, Evaluation, Metric, Score, SplitCounts

MakeEvaluation = Callable[..., Evaluation]


@pytest.fixture
def make_evaluation() -> MakeEvaluation:
    return evaluation


def evaluation(**changes: Any) -> Evaluation:
    name = changes.get("name", "sums")
    values: dict[str, Any] = {
        "run_id": f"{name}-1a2b3c4d",
        "eval_id": "0123456789abcdef",
        "name": name,
        "method": "lora",
        "step": 40,
        "base_model": "tiny",
        "base_identity": "someone/tiny@" + "c" * 40,
        "data_digest": "a" * 64,
        "held_out_digest": "b" * 64,
        "trainable_parameters": 4096,
        "total_parameters": 204_800,
        "scores": (
            score("base", "template", loss=6.0, accuracy=0.125, exact=0),
            score("base", "plain", loss=2.5, accuracy=0.5, exact=1),
            score("tuned", "template", loss=0.25, accuracy=0.75, exact=3),
        ),
        "answers": (
            *answers("base", "template", ("", "?", "?", "?", "?")),
            *answers("base", "plain", ("It is\na | pipe.", "4", "4", "4", "4")),
            *answers("tuned", "template", ("Pipes **run** <b>deep</b>.", "4", "6", "8", "11")),
        ),
        "data": {
            "train": SplitCounts(
                rows=1000,
                kept=998,
                truncated=3,
                without_trained_token=2,
                tokens=40_000,
                trained_tokens=9000,
                longest=97,
            ),
            "eval": SplitCounts(rows=4, kept=4, tokens=160, trained_tokens=36, longest=45),
        },
        "metrics": (*map(train_line, (10, 20, 30, 40)), eval_line(20), eval_line(40)),
        "seconds_training": 83.4,
        "settings": {"training.learning_rate": 2e-4, "method.type": "lora", "training.gradient_checkpointing": False},
        "time": "2026-11-24T03:14:00+00:00",
    }
    return Evaluation(**{**values, **changes})


def score(model: str, prompt_format: Any, *, loss: float, accuracy: float, exact: int | None) -> Score:
    return Score(
        model=model,
        prompt_format=prompt_format,
        rows=4,
        trained_tokens=36,
        loss=loss,
        perplexity=math.exp(loss),
        token_accuracy=accuracy,
        generated=0 if exact is None else 4,
        exact_match=None if exact is None else exact / 4,
    )


def answers(model: str, prompt_format: Any, texts: tuple[str, ...]) -> list[Answer]:
    own, *held_out = texts
    first = Answer(id="prompt 1", model=model, prompt_format=prompt_format, prompt="Say `something`.", answer=own)
    return [
        first,
        *(
            Answer(
                id=f"test.jsonl:{number}",
                model=model,
                prompt_format=prompt_format,
                prompt=f"{number} + {number}?",
                reference=str(2 * number),
                answer=text,
                match=text == str(2 * number),
            )
            for number, text in enumerate(held_out, start=2)
        ),
    ]


def train_line(step: int) -> Metric:
    return Metric(
        attempt=1,
        step=step,
        epoch=step / 10,
        loss=20 / step,
        loss_hex=(20 / step).hex(),
        learning_rate=2e-4 * (1 - step / 40),
        grad_norm=10 / step,
        tokens_seen=100 * step,
        time="2026-11-24T03:00:00+00:00",
    )


def eval_line(step: int) -> Metric:
    return Metric(kind="eval", attempt=1, step=step, epoch=step / 10, loss=25 / step, loss_hex="", time="")
