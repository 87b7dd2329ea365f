"""Conversations that are lists of messages: `messages` and `sharegpt`."""

from sftjob.data.formats.fields import Fields
from sftjob.data.formats.tools import read_tools
from sftjob.data.formats.turns import check_order, read_turns, with_system
from sftjob.data.messages import Row


def from_messages(fields: Fields) -> Row:
    """Takes OpenAI's chat form: `messages`, a list of `{role, content}`, and optionally `system` and `tools`.

    Roles are system (first, if at all), user, assistant and tool (after a turn with `tool_calls`); an assistant's turn
    comes last. `content` is text or a list of text parts, and may be null beside `tool_calls`. A message may also have
    `name`, `tool_call_id`, `reasoning_content`, and `train` or `weight` for whether an assistant's turn is trained.
    Messages of `{from, value}` are taken as ShareGPT's. Images, other roles and other keys are refused.
    """
    column = fields.name("messages")
    tools = read_tools(fields)
    turns = with_system(fields, read_turns(fields, fields.get("messages"), column))
    return fields.row(check_order(fields, turns, column), tools=tools)


def from_sharegpt(fields: Fields) -> Row:
    """Takes ShareGPT's form: `conversations`, a list of `{from, value}`, and optionally `system` and `tools`.

    Speakers are human or user; gpt, assistant, chatgpt, bard or bing; system; function_call, whose value is JSON
    `{name, arguments}` or a list of them; and observation or tool. The order is as in `messages`, and so is what a
    message of `{role, content}` may have.
    """
    column = fields.name("conversations")
    tools = read_tools(fields)
    turns = with_system(fields, read_turns(fields, fields.get("conversations"), column, sharegpt=True))
    return fields.row(check_order(fields, turns, column), tools=tools)
