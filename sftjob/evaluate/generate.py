"""Greedy answers: the same prompt gives the same tokens, whatever stands beside it in the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import GenerationConfig

from sftjob.evaluate.batches import Progress, batches_by_length
from sftjob.methods import Model


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    on_progress: Progress | None = None,
) -> list[list[int]]:
    """Continues every prompt with the most probable token until a stop token or `max_new_tokens`.

    Args:
        model: in evaluation mode; its device is used.
        prompts: token ids, at least one each.
        batch_size: prompts at once, filled up on the left.
        stop_token_ids: end an answer and are not part of it.
        pad_token_id: neither attended to nor part of an answer.

    Returns:
        New token ids only, in the order of the prompts.
    """
    answers: dict[int, list[int]] = {}
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_token_ids),
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    with torch.inference_mode(), _settings_of(model, config):
        for batch in batches_by_length(prompts, batch_size, len):
            new = _continue(model, [prompts[index] for index in batch], config, pad_token_id)
            answers.update(zip(batch, (_until_stop(ids, stop_token_ids) for ids in new), strict=True))
            if on_progress:
                on_progress(len(answers), len(prompts))
    return [answers[index] for index in range(len(prompts))]


@contextmanager
def _settings_of(model: Model, config: GenerationConfig) -> Iterator[None]:
    """Sets the model's own generation settings aside; transformers would mix in a repetition penalty, say."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    own = inner.generation_config
    inner.generation_config = config
    try:
        yield
    finally:
        inner.generation_config = own


def _continue(
    model: Model, prompts: Sequence[Sequence[int]], config: GenerationConfig, pad_token_id: int
) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[*[pad_token_id] * (width - len(prompt)), *prompt] for prompt in prompts])
    mask = torch.tensor([[*[0] * (width - len(prompt)), *[1] * len(prompt)] for prompt in prompts])
    output = model.generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
    )
    new: list[list[int]] = output[:, width:].tolist()
    return new


def _until_stop(ids: Sequence[int], stop_token_ids: Sequence[int]) -> list[int]:
    """What comes before the first stop token; the filler behind it goes with it."""
    ends = (index for index, id in enumerate(ids) if id in stop_token_ids)
    return list(ids[: next(ends, len(ids))])
