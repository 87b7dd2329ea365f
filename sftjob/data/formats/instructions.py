"""A question and its answer in columns: `alpaca` and `prompt_completion`."""

from dataclasses import replace

from sftjob.data.formats.fields import Fields, checked_text
from sftjob.data.formats.tools import read_tools
from sftjob.data.formats.turns import Turn, check_order, read_turns, with_system
from sftjob.data.messages import Message, Row
from sftjob.data.raw_rows import json_type


def from_alpaca(fields: Fields) -> Row:
    """Takes `instruction` and `output`, and optionally `input`, `history` and `system`; all are text but `history`.

    The user says the instruction and, after a blank line, the input. `history` is a list of earlier
    `[question, answer]` pairs. Optional columns may be missing, null or empty.
    """
    instruction, given = fields.text("instruction"), fields.optional_text("input")
    question = f"{instruction}\n\n{given}" if given else instruction
    turns = [
        *_history(fields),
        Turn(Message("user", question), fields.name("instruction")),
        Turn(Message("assistant", fields.text("output")), fields.name("output")),
    ]
    return fields.row(turn.message for turn in with_system(fields, turns))


def from_prompt_completion(fields: Fields) -> Row:
    """Takes `prompt` and `completion`, both text or both lists of messages, and optionally `system` and `tools`.

    Of lists (TRL's conversational form) only the assistant's turns in the completion train. Messages are as in the
    format `messages`.
    """
    tools = read_tools(fields)
    prompt, completion = fields.get("prompt"), fields.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return fields.row(_conversation(fields, prompt, completion), tools=tools)
    turns = [
        Turn(Message("user", fields.text("prompt")), fields.name("prompt")),
        Turn(Message("assistant", fields.text("completion")), fields.name("completion")),
    ]
    return fields.row((turn.message for turn in with_system(fields, turns)), tools=tools)


def _history(fields: Fields) -> list[Turn]:
    field, pairs = fields.name("history"), fields.get("history")
    if pairs is None:
        return []
    if not isinstance(pairs, list):
        fields.report(field, f"must be a list of [question, answer] pairs, not {json_type(pairs)}")
        return []
    turns = []
    for position, pair in enumerate(pairs):
        place = f"{field}.{position}"
        if not isinstance(pair, list) or len(pair) != 2:
            what = f"a list of {len(pair)}" if isinstance(pair, list) else json_type(pair)
            fields.report(place, f"must be a [question, answer] pair, not {what}")
            continue
        question, answer = (checked_text(text, f"{place}.{at}", fields.report) for at, text in enumerate(pair))
        turns += [Turn(Message("user", question), place), Turn(Message("assistant", answer), place)]
    return turns


def _conversation(fields: Fields, prompt: list[object], completion: list[object]) -> tuple[Message, ...]:
    asked = [_untrained(fields, turn) for turn in read_turns(fields, prompt, fields.name("prompt"))]
    answered = read_turns(fields, completion, fields.name("completion"))
    if answered and all(turn.message.role != "assistant" for turn in answered):
        fields.report(fields.name("completion"), "no assistant turn", "a row needs an answer to learn from")
        return ()
    return check_order(fields, [*with_system(fields, asked), *answered], fields.name("completion"))


def _untrained(fields: Fields, turn: Turn) -> Turn:
    if turn.message.role != "assistant":
        return turn
    if turn.message.train:
        fields.report(turn.field, "marked as trained, but stands in a prompt", "move it to the completion")
    return replace(turn, message=replace(turn.message, train=False))
