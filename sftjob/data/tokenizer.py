"""A model's tokenizer and chat template by way of the bare `tokenizers` library.

Importing transformers takes more than ten seconds and `tokenizers` a fifth of one; preparing data and checking it need
nothing more. What `save` writes gives `AutoTokenizer` the same ids and the same text, which a test proves.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Self

from tokenizers import AddedToken, Encoding, Tokenizer

from sftjob.data.digest import OWN_FILE
from sftjob.data.messages import Message, Tool
from sftjob.data.template import CHATML, CHATML_WITH_BOS, IM_END, IM_START, ChatTemplate, TemplateRefusal
from sftjob.errors import ConfigurationError, InputMissing
from sftjob.spec.data import TemplateText

_TOKEN_NAMES: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_KEPT_SETTINGS: Final = ("model_max_length", "padding_side", "clean_up_tokenization_spaces")
_USE_CHATML: Final = "set data.template: chatml"

JsonObject = dict[str, object]


class ChatTokenizer:
    """Text ↔ token ids, and conversations → text. Made by `from_folder`."""

    template: ChatTemplate
    special_tokens: Mapping[str, str]
    """`eos_token`, `pad_token` and the others that the tokenizer has. `eos_token` ends a turn under ChatML."""
    plain_eos_token: str
    """What ended a text in the base model's pre-training; differs from `eos_token` where ChatML was added."""
    added_token_ids: tuple[int, ...]
    """Tokens that the template needs and the base model has never seen."""
    base_vocab_size: int
    """Rows of the embedding that the tokenizer needed before any token was added."""
    vocab_size: int
    """Rows of the embedding that it needs now: the largest id + 1."""
    special_ids: frozenset[int]
    """Ids of all control tokens."""
    special_texts: tuple[str, ...]
    control_tokens: re.Pattern[str]
    """Finds a control token in a text."""
    stop_token_ids: tuple[int, ...]
    """Where generation has to stop: the token that ends an assistant's turn and, if another, `eos_token`."""
    adds_bos: bool
    """The tokenizer begins plain text with `bos_token`; chat templates write it themselves."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        special_tokens: Mapping[str, str],
        *,
        plain_eos_token: str,
        adds_bos: bool,
        base_vocab_size: int,
        settings: Mapping[str, object],
    ) -> None:
        """Takes over `tokenizer`, to which all tokens have been added already."""
        self.template = ChatTemplate(template, special_tokens)
        self.special_tokens = dict(special_tokens)
        self.plain_eos_token = plain_eos_token
        self.adds_bos = adds_bos
        self.base_vocab_size = base_vocab_size
        self.vocab_size = _vocab_size(tokenizer)
        self.added_token_ids = tuple(range(base_vocab_size, self.vocab_size))
        added = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        self.special_texts = tuple(token.content for token in added.values() if token.special)
        by_length = sorted(self.special_texts, key=len, reverse=True)
        self.control_tokens = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        self._special_lengths = tuple(dict.fromkeys(map(len, by_length)))
        self._controls = {token.content: id for id, token in added.items() if token.special}
        self._settings = dict(settings)
        self._post_processor = tokenizer.post_processor
        # Without post-processing, texts get no tokens of their own and offsets are those of the text, not trimmed.
        tokenizer.post_processor = None
        self._tokenizer = tokenizer
        self.stop_token_ids = ()
        self.stop_token_ids = tuple(dict.fromkeys((self._turn_end(), self.eos_token_id)))

    @classmethod
    def from_folder(cls, folder: Path, *, template: Literal["model", "chatml"] | TemplateText = "model") -> Self:
        """Loads tokenizer.json, tokenizer_config.json and the chat template of a model's folder.

        Args:
            folder: The model's folder, or one that `save` has written.
            template: `model` takes the folder's own template; `chatml` takes ours and adds the tokens that it lacks.
                A template of the user's own adds none: it is written for the tokens that the model has.

        Raises:
            ConfigurationError: there is no template, it does not compile, it refuses a plain exchange, or it ends an
                answer with no token at which generation could stop.
            InputMissing: there is no tokenizer.json.
        """
        tokenizer = _load_tokenizer(folder)
        config = _read_json(folder, "tokenizer_config.json")
        tokens = _special_tokens(folder, config, tokenizer)
        adds_bos = _adds_bos(tokenizer, config, tokens.get("bos_token"))
        base_vocab_size = _vocab_size(tokenizer)
        eos = tokens.get("eos_token")
        if template == "chatml":
            source = CHATML_WITH_BOS if adds_bos else CHATML
            tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (IM_START, IM_END)])
            tokens = {"pad_token": eos or IM_END, **tokens, "eos_token": IM_END}
        else:
            source = template.jinja if isinstance(template, TemplateText) else _own_template(folder, config)
            tokens = {"pad_token": _required_eos(eos, folder), **tokens}
        plain_eos = _read_json(folder, OWN_FILE).get("plain_eos_token")
        return cls(
            tokenizer,
            source,
            tokens,
            plain_eos_token=plain_eos if isinstance(plain_eos, str) else eos or IM_END,
            adds_bos=adds_bos,
            base_vocab_size=base_vocab_size,
            settings={key: config[key] for key in _KEPT_SETTINGS if key in config},
        )

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation; with `add_generation_prompt`, up to where the assistant's answer begins.

        Raises:
            TemplateRefusal: the template raised an error over these messages.
        """
        return self.template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)

    def find_stop(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """The token that ends a turn, as characters [start, end) of a text that ends with the turn.

        Templates may write more control tokens after it, and blanks: it is the first of the control tokens at which
        generation stops among those that end the text, or the first of all if it stops at none of them.

        Args:
            text: A rendered text.
            start: Where the turn begins; what is before is not looked at.
        """
        controls = list(self.trailing_controls(text, start))
        stops = (place for place in reversed(controls) if self._controls[text[slice(*place)]] in self.stop_token_ids)
        return next(stops, controls[-1]) if controls else None

    def trailing_controls(self, text: str, start: int = 0) -> Iterator[tuple[int, int]]:
        """The control tokens that end a text, from the last one on, with nothing but blanks between and after them."""
        end = len(text)
        while True:
            while end > start and text[end - 1].isspace():
                end -= 1
            begin = next((end - n for n in self._special_lengths if text[max(end - n, 0) : end] in self._controls), -1)
            if begin < start:
                return
            yield begin, end
            end = begin

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added to it."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids and character offsets of many texts, on all cores; nothing is added to them."""
        encodings: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_id(self, token: str) -> int:
        """Id of a token of the vocabulary; KeyError for any other text."""
        id: int | None = self._tokenizer.token_to_id(token)
        if id is None:
            raise KeyError(token)
        return id

    @property
    def eos_token_id(self) -> int:
        return self.token_id(self.special_tokens["eos_token"])

    @property
    def pad_token_id(self) -> int:
        return self.token_id(self.special_tokens["pad_token"])

    @property
    def plain_eos_token_id(self) -> int:
        return self.token_id(self.plain_eos_token)

    def save(self, folder: Path) -> None:
        """Writes the files from which `AutoTokenizer` and `from_folder` make the same tokenizer again."""
        folder.mkdir(parents=True, exist_ok=True)
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        whole.post_processor = self._post_processor
        whole.save(str(folder / "tokenizer.json"))
        # The plain fast class takes tokenizer.json as it is; a model's own class would rebuild parts of it.
        config = {**self._settings, **self.special_tokens, "tokenizer_class": "PreTrainedTokenizerFast"}
        _write_json(folder / "tokenizer_config.json", config)
        own = {"plain_eos_token": self.plain_eos_token, "template_sha256": self.template.sha256}
        _write_json(folder / OWN_FILE, own)
        (folder / "chat_template.jinja").write_text(self.template.source, encoding="utf-8")

    def _turn_end(self) -> int:
        """The token with which the template ends an assistant's turn."""
        exchange = (Message("user", "Hello"), Message("assistant", "World"))
        try:
            prompt = self.render(exchange[:1], add_generation_prompt=True)
            text = self.render(exchange)
        except TemplateRefusal as error:
            raise ConfigurationError(
                f"the chat template refuses a plain exchange: {error}", field="data.template", hint=_USE_CHATML
            ) from error
        if not text.startswith(prompt):
            raise ConfigurationError(
                "the chat template's generation prompt is no beginning of the answered text",
                field="data.template",
                hint=_USE_CHATML,
            )
        if stop := self.find_stop(text, len(prompt)):
            return self._controls[text[slice(*stop)]]
        raise ConfigurationError(
            "the chat template ends an answer with no control token, so generation could not stop",
            field="data.template",
            hint=_USE_CHATML,
        )


def _load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputMissing(
            "no such file", file=str(path), hint="use a model that has one, or save it with AutoTokenizer"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigurationError(f"not a tokenizer: {str(error)[:200]}", file=str(path)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_json(folder: Path, name: str) -> JsonObject:
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError("not JSON", file=str(path), hint="restore the model's file") from error
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _special_tokens(folder: Path, config: JsonObject, tokenizer: Tokenizer) -> dict[str, str]:
    """The named tokens that are in the vocabulary; all of them become control tokens, as in transformers."""
    written = {**_read_json(folder, "special_tokens_map.json"), **config}
    texts = {name: _token_text(written.get(name)) for name in _TOKEN_NAMES}
    tokens = {name: text for name, text in texts.items() if text and tokenizer.token_to_id(text) is not None}
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in tokens.values() if text not in known])
    return tokens


def _token_text(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _required_eos(eos: str | None, folder: Path) -> str:
    if eos is None:
        raise ConfigurationError(
            "missing or not in the vocabulary",
            file=str(folder / "tokenizer_config.json"),
            field="eos_token",
            hint=f"restore the model's file, or {_USE_CHATML}",
        )
    return eos


def _adds_bos(tokenizer: Tokenizer, config: JsonObject, bos: str | None) -> bool:
    flag = config.get("add_bos_token")
    if bos is None or isinstance(flag, bool):
        return bool(flag) and bos is not None
    ids: list[int] = tokenizer.encode("", add_special_tokens=True).ids
    return ids[:1] == [tokenizer.token_to_id(bos)]


def _vocab_size(tokenizer: Tokenizer) -> int:
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def _own_template(folder: Path, config: JsonObject) -> str:
    """The folder's template: chat_template.jinja, or the key of tokenizer_config.json, or its `default` of several."""
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if isinstance(template, str) and template:
        return template
    raise ConfigurationError("the model has no chat template", field="data.template", hint=_USE_CHATML)
