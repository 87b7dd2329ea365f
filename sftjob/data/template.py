"""Chat templates, rendered as transformers renders them, without importing transformers.

The environment follows `transformers.utils.chat_template_utils`: sandboxed and immutable, trimmed blocks, loop
controls, `raise_exception`, `strftime_now`, its `tojson`, and a `generation` tag that renders its body.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import Final, Never

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sftjob.data.messages import ROLES, Message, Tool, as_dicts
from sftjob.errors import ConfigurationError

IM_START: Final = "<|im_start|>"
IM_END: Final = "<|im_end|>"
CHATML: Final = (
    "{%- set begun = tools and messages and messages[0]['role'] == 'system' -%}\n"
    "{%- if tools -%}\n"
    "{{- '<|im_start|>system\\n' + (messages[0]['content'] + '\\n\\n' if begun else '') -}}\n"
    "{{- 'You may call these functions:\\n<tools>\\n' -}}\n"
    "{%- for tool in tools -%}{{- (tool | tojson) + '\\n' -}}{%- endfor -%}\n"
    "{{- '</tools>\\nFor each call, write its name and its arguments as JSON:\\n<tool_call>\\n' -}}\n"
    '{{- \'{"name": "...", "arguments": {...}}\\n</tool_call><|im_end|>\\n\' -}}\n'
    "{%- endif -%}\n"
    "{%- for message in (messages[1:] if begun else messages) -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "{%- if message['reasoning_content'] -%}\n"
    "{{- '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- if message['role'] == 'tool' -%}\n"
    "{{- '<tool_response>\\n' + message['content'] + '\\n</tool_response>' -}}\n"
    "{%- else -%}\n"
    "{{- message['content'] or '' -}}\n"
    "{%- endif -%}\n"
    "{%- if message['tool_calls'] -%}\n"
    "{%- for call in message['tool_calls'] -%}\n"
    "{{- '\\n' if message['content'] or not loop.first else '' -}}\n"
    "{{- '<tool_call>\\n{\"name\": ' + (call['function']['name'] | tojson) -}}\n"
    "{{- ', \"arguments\": ' + (call['function']['arguments'] | tojson) + '}\\n</tool_call>' -}}\n"
    "{%- endfor -%}\n"
    "{%- endif -%}\n"
    "{{- '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)
"""ChatML (https://github.com/openai/openai-python/blob/v0.28.1/chatml.md): no system message unless a row has one.

Tools and thoughts are written as Hermes models do (https://github.com/NousResearch/Hermes-Function-Calling): the
functions in the system turn, one line of JSON each; calls in `<tool_call>`; results in turns of the role `tool`.
"""
CHATML_WITH_BOS: Final = "{{- bos_token -}}\n" + CHATML
"""For models whose tokenizer begins every text with a token of its own, as their pre-training did."""

# Templates are programs that people write; these are the ways in which one can go wrong.
_TEMPLATE_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class TemplateRefusal(Exception):
    """The template raised an error over a conversation. The text is the template's own, on one line."""


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compiles the template.

        Args:
            source: Jinja source.
            special_tokens: What the template sees beside the messages: `bos_token`, `eos_token` and so on.

        Raises:
            ConfigurationError: its syntax is wrong.
        """
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._variables = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigurationError(
                f"the chat template does not compile: {_one_line(error)}",
                field="data.template",
                hint="repair the model's chat template, or set data.template: chatml",
            ) from error

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Its turns; their `train` flags are not for templates.
            tools: Functions that the assistant may call.
            add_generation_prompt: End where the assistant's answer begins.

        Raises:
            TemplateRefusal: the template raised an error.
        """
        try:
            return self._template.render(
                messages=as_dicts(
                    [message if message.train is None else replace(message, train=None) for message in messages]
                ),
                tools=[dict(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except _TEMPLATE_ERRORS as error:
            raise TemplateRefusal(self._own_words(error, [*as_dicts(messages), *tools])) from error

    def _own_words(self, error: Exception, shown: Sequence[object]) -> str:
        """What of an error's text is the template's and not a row's, which must not reach a log."""
        text = _one_line(error)
        hidden = _without_row_text(text, shown)
        if hidden != text or not isinstance(error, _Raised):
            return hidden
        # A part of a row, or one that the template has changed, is in no list: keep the words that it wrote itself.
        own = takewhile(lambda word: word in self.source or word in ROLES, text.split())
        return " ".join(own) or "an error whose text quotes the row"


def _environment() -> ImmutableSandboxedEnvironment:
    # One clock reading for all renders: a second that passes between two of them must not change a prefix.
    now = datetime.now()
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = now.strftime
    return environment


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks assistant text for other tools; here it is only its body."""

    tags: Final = {"generation"}  # type: ignore[misc]  # declared so by jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Raised(jinja2.TemplateError):
    """The template itself refuses, in words of its own and perhaps of the row."""


def _raise_exception(message: str) -> Never:
    raise _Raised(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _without_row_text(text: str, row: object) -> str:
    """Templates may quote the message that they refuse; a row's text must not reach a log."""
    quoted = any(len(written) > 3 and written[:30] in text for written in _strings(row))
    return "an error whose text quotes the row" if quoted else text


def _strings(value: object) -> Iterator[str]:
    """All texts in a JSON value but names of roles and types, which are nobody's secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("role", "type"):
                yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
