"""Masks under the prompt formats of real models: text and trained tokens are what an independent count gives."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sftjob.data import Message, Row
from sftjob.data.lengths import fit_length
from sftjob.data.masks import IGNORED, Encoded, encode_batch
from sftjob.data.messages import from_dict
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError
from sftjob.spec.data import TrainOn
from tests.unit.data.chat_styles import STYLES, Chat, Kind, Piece, Style, Tools
from tests.unit.data.conftest import write_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
MODES: tuple[TrainOn, ...] = ("assistant", "last_assistant", "all")


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **more: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(city: str, number: int) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": {"city": city}}
    return {"type": "function", "function": function, "id": f"call{number:05}"}


SYSTEM = {"role": "system", "content": "Count the stones, é."}
WEATHER: Tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
SINGLE: Chat = [user("How many red stones?"), answer("There are 12.")]
MULTI: Chat = [*SINGLE, user("And blue ones?"), answer("4 of each\nand 3."), user("Say that again."), answer("7")]
EDGES: Chat = [
    user("\n\n  Zeile eins\n\n\n\tzwei é\U0001f600 "),
    answer("\n\nblaue\n \n\nSteine 中文\n"),
    user("  \u00a0x\n"),
    answer("\n \U0001f600\U0001f600\n\n"),
]
CALLING: Chat = [
    user("Weather in Kölle?"),
    answer("", tool_calls=[call("Kölle", 1)]),
    {"role": "tool", "content": '{"celsius": 12}', "tool_call_id": "call00001", "name": "get_weather"},
    answer("It has 12 degrees."),
]
CHATS: dict[str, tuple[Chat, Tools]] = {
    "single": (SINGLE, []),
    "multi": (MULTI, []),
    "system": ([SYSTEM, *MULTI], []),
    "edges": (EDGES, []),
    "system edges": ([SYSTEM, *EDGES], []),
    "flags": ([user("a"), answer("b", train=False), user("c"), answer("d"), user("e"), answer("f", train=False)], []),
    "wanted": ([user("a"), answer("b", train=True), user("c"), answer("d")], []),
    "calling": (CALLING, WEATHER),
    "calling twice": ([SYSTEM, *CALLING, *SINGLE, *CALLING], WEATHER),
    "thinking": ([user("2 + 2?"), answer("4", reasoning_content="Two and two\n\nis four."), *SINGLE], []),
}


@dataclass(frozen=True)
class Made:
    """A style with its tokenizer, once as sftjob reads it and once bare."""

    style: Style
    ours: ChatTokenizer
    raw: Tokenizer


@pytest.fixture(scope="session")
def make_style(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Style], Made]:
    bases: dict[Kind, str] = {}
    made: dict[str, Made] = {}

    def make(style: Style) -> Made:
        if style.name not in made:
            base = bases.setdefault(style.kind, _base_tokenizer(style.kind))
            raw = Tokenizer.from_str(base)
            raw.add_special_tokens([AddedToken(text, normalized=False) for text in style.tokens])
            raw.add_tokens([AddedToken(text, normalized=False) for text in style.plain_tokens])
            named: dict[str, object] = {"eos_token": style.eos, **({"bos_token": style.bos} if style.bos else {})}
            folder = write_tokenizer(tmp_path_factory.mktemp(style.name), raw, named)
            template = (TEMPLATES / f"{style.name}.jinja").read_text(encoding="utf-8")
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
            made[style.name] = Made(style, ChatTokenizer.from_folder(folder), raw)
        return made[style.name]

    return make


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def made(request: pytest.FixtureRequest, make_style: Callable[[Style], Made]) -> Made:
    return make_style(request.param)


def test_every_template_has_a_style() -> None:
    assert sorted(path.stem for path in TEMPLATES.glob("*.jinja")) == sorted(style.name for style in STYLES)
    assert len(STYLES) >= 14


@pytest.mark.parametrize("train_on", MODES)
def test_text_and_mask_are_those_of_an_independent_count(made: Made, train_on: TrainOn) -> None:
    for chat, tools in _chats_of(made.style, train_on):
        encoded = _encode(made, chat, tools, train_on)
        expected = _expected(made.style, chat, tools, train_on)
        assert len(encoded) == len(expected)
        for (row, ours), (pieces, trained) in zip(encoded, expected, strict=True):
            assert made.ours.render(row.messages, tools=row.tools) == "".join(piece.text for piece in pieces)
            ids, mask = _recount(made.raw, pieces, trained)
            assert ours.input_ids == ids
            assert [label != IGNORED for label in ours.labels] == mask
            assert all(label in (IGNORED, id) for label, id in zip(ours.labels, ours.input_ids, strict=True))
            assert ours.straddling == 0
            assert ours.trained_by_role == _roles(made.raw, pieces, trained, chat)
            assert _stops(ours) == sum(piece.answer and wanted for piece, wanted in zip(pieces, trained, strict=True))


@pytest.mark.parametrize("train_on", MODES)
@pytest.mark.parametrize("max_length", [2, 7, 16, 40])
def test_counts_of_rows_that_are_cut(made: Made, train_on: TrainOn, max_length: int) -> None:
    for chat, tools in _chats_of(made.style, train_on):
        expected = _expected(made.style, chat, tools, train_on)
        for (_, whole), (pieces, trained) in zip(_encode(made, chat, tools, train_on), expected, strict=True):
            ids, mask = _recount(made.raw, pieces, trained)
            [cut] = fit_length(whole, max_length, "truncate")
            assert cut.input_ids == ids[:max_length]
            assert cut.trained_tokens == sum(cut.trained_by_role.values()) == sum(mask[:max_length])
            assert cut.truncated == (len(ids) > max_length)
            split = fit_length(whole, max_length, "split")
            assert sum(part.trained_tokens for part in split) == sum(mask)
            assert sum(map(_stops, split)) == _stops(whole)
            assert fit_length(whole, max_length, "drop") == (() if len(ids) > max_length else (whole,))


@pytest.mark.parametrize("train_on", MODES)
def test_counts_of_rows_that_lie_one_after_the_other(made: Made, train_on: TrainOn) -> None:
    chats = _chats_of(made.style, train_on)
    rows = [row for chat, tools in chats for row in _encode(made, chat, tools, train_on)]
    ids = [id for _, encoded in rows for id in encoded.input_ids]
    labels = [label for _, encoded in rows for label in encoded.labels]
    at = 0
    for chat, tools in chats:
        for pieces, trained in _expected(made.style, chat, tools, train_on):
            counted, mask = _recount(made.raw, pieces, trained)
            document = slice(at, at + len(counted))
            assert ids[document] == counted
            assert sum(label != IGNORED for label in labels[document]) == sum(mask)
            assert labels[at] == IGNORED, "a document must not be predicted from the one before it"
            at += len(counted)
    assert at == len(ids)


def test_what_generation_stops_at(made: Made) -> None:
    assert made.ours.stop_token_ids[0] == made.raw.token_to_id(made.style.stop)
    assert set(made.ours.stop_token_ids) == {
        made.raw.token_to_id(made.style.stop),
        made.raw.token_to_id(made.style.eos),
    }


def test_a_saved_tokenizer_masks_alike(made: Made, tmp_path: Path) -> None:
    made.ours.save(tmp_path)
    again = replace(made, ours=ChatTokenizer.from_folder(tmp_path))
    assert again.ours.stop_token_ids == made.ours.stop_token_ids
    assert _encode(again, MULTI, [], "assistant") == _encode(made, MULTI, [], "assistant")


@pytest.mark.parametrize("name", ["gemma2", "mistral_v1"])
def test_formats_without_system_refuse_one(make_style: Callable[[Style], Made], name: str) -> None:
    made = make_style(_style(name))
    with pytest.raises(DataError, match=r"^f:1: messages: the chat template refuses the conversation: "):
        _encode(made, [SYSTEM, *SINGLE], [], "assistant")


@pytest.mark.parametrize(
    ("name", "chat", "tools", "field"),
    [
        ("zephyr", CALLING, WEATHER, "tools.0"),
        ("deepseek_v3", CALLING, WEATHER, "tools.0"),
        ("chatml", SINGLE, WEATHER, "tools.0"),
        ("chatml", [user("a"), answer("", tool_calls=[call("x", 1)])], [], "messages.1.tool_calls.0"),
        ("llama3_1", [user("a"), answer("Let me see.", tool_calls=[call("x", 1)])], WEATHER, "messages.1.content"),
        ("phi3", [user("a"), answer("b", reasoning_content="hm")], [], "messages.1.reasoning_content"),
    ],
)
def test_what_a_template_leaves_out_is_named(
    make_style: Callable[[Style], Made], name: str, chat: Chat, tools: Tools, field: str
) -> None:
    with pytest.raises(DataError) as caught:
        _encode(make_style(_style(name)), chat, tools, "assistant")
    line = f"f:1: {field}: the chat template leaves it out; change the row, or set data.template: chatml"
    assert str(caught.value) == line


def test_thoughts_of_earlier_turns_may_go(make_style: Callable[[Style], Made]) -> None:
    qwen = make_style(_style("qwen3"))
    chat = [user("2?"), answer("<think>\nhm\n</think>\n\n4"), *SINGLE]
    (first, _), (second, _) = _encode(qwen, chat, [], "assistant")
    assert [first.id, second.id] == ["f:1#1", "f:1#2"]
    assert "hm" in qwen.ours.render(first.messages)
    assert "hm" not in qwen.ours.render(second.messages)
    with pytest.raises(DataError, match=r"messages\.1\.content: the chat template leaves it out"):
        _encode(qwen, chat, [], "all")


_EDGE = st.sampled_from(["", " ", "\n", "\n\n", "\t", "\n \n", "  \n"])
_WORDS = st.lists(
    st.sampled_from(["red", "blue", " ", "\n", "\n\n", "é", "\U0001f600", "user", "12", "<", "中"]), min_size=1
)
_TEXT = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00▁"), min_size=1), st.builds("".join, _WORDS)
)
_CONTENT = st.builds(lambda before, text, after: before + text + after, _EDGE, _TEXT, _EDGE).filter(
    lambda text: (
        text.strip() and not any(mark in text for mark in ("<|", "<s>", "</s>", "[INST]", "<think>", "</think>"))
    )
)


@st.composite
def _chats(draw: st.DrawFn) -> Chat:
    chat = []
    for _ in range(draw(st.integers(1, 3))):
        chat += [user(draw(_CONTENT)), answer(draw(_CONTENT))]
    return chat


HYPOTHESIS_STYLES = ["chatml", "qwen3", "llama3", "phi3", "mistral_v3", "deepseek_v2", "gemma3", "tulu"]


@pytest.mark.parametrize("name", HYPOTHESIS_STYLES)
@given(chat=_chats(), max_length=st.integers(2, 60), train_on=st.sampled_from(MODES[:2]))
@settings(deadline=None, max_examples=25)
def test_trained_spans_are_the_assistants_turns(
    make_style: Callable[[Style], Made], name: str, chat: Chat, max_length: int, train_on: TrainOn
) -> None:
    made = make_style(_style(name))
    answers = []
    for _, encoded in _encode(made, chat, [], train_on):
        assert encoded.straddling == 0
        for span in encoded.spans:
            answers.append(made.ours.decode(encoded.labels[span.start : span.end]))
            assert span.stop
            assert encoded.labels[span.end - 1] == made.raw.token_to_id(made.style.stop)
        _check_split(encoded, max_length)
    expected = _expected(made.style, chat, [], train_on)
    written = [
        piece.text for pieces, trained in expected for piece, wanted in zip(pieces, trained, strict=True) if wanted
    ]
    assert answers == written


def _check_split(whole: Encoded, max_length: int) -> None:
    found: Counter[tuple[int, int]] = Counter()
    at = 0
    for part in fit_length(whole, max_length, "split"):
        assert len(part.input_ids) <= max_length
        assert part.labels[0] == IGNORED
        assert part.input_ids == whole.input_ids[at : at + len(part.input_ids)]
        found.update((at + place, label) for place, label in enumerate(part.labels) if label != IGNORED)
        trained = [place for span in part.spans for place in range(span.start, span.end)]
        assert trained == [place for place, label in enumerate(part.labels) if label != IGNORED]
        at += len(part.input_ids) - 1
    assert at == len(whole.input_ids) - 1
    assert found == Counter((place, label) for place, label in enumerate(whole.labels) if label != IGNORED)


def _encode(made: Made, chat: Chat, tools: Tools, train_on: TrainOn) -> list[tuple[Row, Encoded]]:
    problems = Problems()
    row = Row(tuple(_message(turn) for turn in chat), file="f", line=1, tools=tuple(tools))
    encoded = encode_batch(made.ours, [row], train_on=train_on, problems=problems)
    problems.raise_any()
    return encoded


def _message(turn: dict[str, Any]) -> Message:
    return from_dict(turn)


def _chats_of(style: Style, train_on: TrainOn) -> list[tuple[Chat, Tools]]:
    """The conversations that a format can show; what it refuses is tested on its own."""
    return [
        (chat, tools)
        for name, (chat, tools) in CHATS.items()
        if (style.system or chat[0]["role"] != "system")
        and (style.tools or not tools)
        # Only the last turn keeps its thoughts, so not all can be trained at once.
        and (name != "thinking" or (style.thoughts and train_on != "all"))
    ]


def _style(name: str) -> Style:
    return next(style for style in STYLES if style.name == name)


def _expected(style: Style, chat: Chat, tools: Tools, train_on: TrainOn) -> list[tuple[list[Piece], list[bool]]]:
    """Rows, each with its pieces and whether they are trained."""
    turns = [at for at, turn in enumerate(chat) if turn["role"] == "assistant"]
    default = turns[-1:] if train_on == "last_assistant" else turns
    wanted = [at for at in turns if chat[at].get("train", at in default)]
    if train_on == "all":
        pieces = style.write(chat, tools)
        end = max(place for place, piece in enumerate(pieces) if piece.answer)
        unwanted = set(turns) - set(wanted)
        return [(pieces, [place <= end and piece.of not in unwanted for place, piece in enumerate(pieces)])]
    rewritten = style.rewrites(chat, tools) and any(at < len(chat) - 1 for at in wanted)
    rows = [[at] for at in wanted] if rewritten else [wanted]
    texts = [style.write(chat[: at + 1] if rewritten else chat, tools) for at in (wanted if rewritten else [0])]
    return [(text, [piece.answer and piece.of in row for piece in text]) for row, text in zip(rows, texts, strict=True)]


def _recount(raw: Tokenizer, pieces: Sequence[Piece], trained: Sequence[bool]) -> tuple[list[int], list[bool]]:
    """Ids and mask from character offsets of the bare tokenizer; a text is cut where a token would straddle."""
    text = "".join(piece.text for piece in pieces)
    ranges, at = [], 0
    for piece, wanted in zip(pieces, trained, strict=True):
        ranges.append((at, at + len(piece.text), piece, wanted))
        at += len(piece.text)
    offsets = raw.encode(text, add_special_tokens=False).offsets
    answers = [start for start, _, piece, wanted in ranges if piece.answer and wanted]
    cuts = [cut for cut in answers if any(start < cut < end for start, end in offsets)]
    ids: list[int] = []
    starts: list[int] = []
    for begin, end in pairwise([0, *cuts, len(text)]):
        encoding = raw.encode(text[begin:end], add_special_tokens=False)
        ids += encoding.ids
        starts += [begin + start for start, _ in encoding.offsets]
    chosen = [(start, end) for start, end, _, wanted in ranges if wanted]
    mask = [any(start <= at < end for start, end in chosen) for at in starts]
    return ids, [False, *mask[1:]]


def _roles(raw: Tokenizer, pieces: Sequence[Piece], trained: Sequence[bool], chat: Chat) -> dict[str, int]:
    """Trained tokens of each role: the roles' masks, one at a time."""
    roles: Counter[str] = Counter()
    _, mask = _recount(raw, pieces, trained)
    for position in {piece.of for piece in pieces if piece.of < len(chat)}:
        own = [piece.of == position for piece in pieces]
        roles[chat[position]["role"]] += sum(
            both and whole for both, whole in zip(_mask_of(raw, pieces, trained, own), mask, strict=True)
        )
    return {role: count for role, count in roles.items() if count}


def _mask_of(raw: Tokenizer, pieces: Sequence[Piece], trained: Sequence[bool], own: Sequence[bool]) -> list[bool]:
    """The tokens that begin in some pieces, of the text that is cut as for all."""
    text_ids, _ = _recount(raw, pieces, trained)
    marked = [replace(piece, answer=piece.answer and wanted) for piece, wanted in zip(pieces, trained, strict=True)]
    cut_here = [True] * len(pieces)
    ids, _ = _recount(raw, marked, cut_here)
    assert ids == text_ids
    at, spans = 0, []
    for piece, mine in zip(pieces, own, strict=True):
        spans.append((at, at + len(piece.text), mine))
        at += len(piece.text)
    starts = _starts(raw, marked)
    return [any(mine and start <= place < end for start, end, mine in spans) for place in starts]


def _starts(raw: Tokenizer, pieces: Sequence[Piece]) -> list[int]:
    text = "".join(piece.text for piece in pieces)
    offsets = raw.encode(text, add_special_tokens=False).offsets
    answers, at = [], 0
    for piece in pieces:
        if piece.answer and any(start < at < end for start, end in offsets):
            answers.append(at)
        at += len(piece.text)
    starts = []
    for begin, end in pairwise([0, *answers, len(text)]):
        starts += [begin + start for start, _ in raw.encode(text[begin:end], add_special_tokens=False).offsets]
    return starts


def _stops(encoded: Encoded) -> int:
    return sum(span.stop for span in encoded.spans)


def _base_tokenizer(kind: Kind) -> str:
    choose = random.Random(3)
    words = [
        "red",
        "blue",
        "stones",
        "user",
        "assistant",
        "system",
        "model",
        "There",
        "are",
        "of",
        "each",
        "and",
        "how",
    ]
    lines = [" ".join(choose.choices(words, k=7)) + choose.choice(["\n", "\n\n", ".\n  "]) for _ in range(300)]
    if kind == "bytes":
        return _bytes_tokenizer([line + choose.choice(words) for line in lines])
    return _metaspace_tokenizer([line.strip() for line in lines], legacy=kind == "sentencepiece")


def _bytes_tokenizer(lines: Sequence[str]) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return str(tokenizer.to_str())


def _metaspace_tokenizer(lines: Sequence[str], *, legacy: bool) -> str:
    """As SentencePiece models are converted: `▁` for blanks, bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *bytes_], show_progress=False)
    tokenizer.train_from_iterator([line.replace("\n", " ") for line in lines], trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    value = json.loads(tokenizer.to_str())
    if legacy:
        value["pre_tokenizer"] = None
    else:
        value["pre_tokenizer"]["prepend_scheme"] = "first"
    value["added_tokens"] = value["added_tokens"][:1]
    return json.dumps(value)
