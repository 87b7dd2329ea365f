"""What `ChatTokenizer.save` and `prepare` write is to transformers and datasets what it is to us."""

import json
import random
from array import array
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sftjob.data import Message
from sftjob.data.arrow import ArrowRows
from sftjob.data.masks import encode_messages
from sftjob.data.messages import ToolCall, as_dicts
from sftjob.data.tokenizer import ChatTokenizer

pytestmark = pytest.mark.train

SHARED = Path(__file__).resolve().parents[3] / "shared"
CHATS = (
    (Message("user", "Red?"), Message("assistant", "\n\n  blue é \U0001f600")),
    (
        Message("system", "a\tb"),
        Message("user", "1"),
        Message("assistant", "2"),
        Message("user", "3 "),
        Message("assistant", "4"),
    ),
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
OWN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n"
    "    {% if m['role'] == 'assistant' %}\n"
    "[A] {{ m['content'] | trim }}{{ eos_token }}\n"
    "    {% else %}\n"
    "[U] {{ m['content'] | tojson }}{% generation %}{% endgeneration %}\n"
    "    {% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}[A]{% endif %}"
)


@pytest.fixture(params=["chatml", "chatml with bos", "own template", "tiny-base"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> ChatTokenizer:
    folder = tmp_path / "model"
    if request.param == "tiny-base":
        folder = SHARED / "models" / "tiny-base"
        if not folder.is_dir():
            pytest.skip("no ../shared/models/tiny-base beside the repository")
        return ChatTokenizer.from_folder(folder, template="chatml")
    _write_tokenizer(folder, bos=request.param == "chatml with bos")
    if request.param != "own template":
        return ChatTokenizer.from_folder(folder, template="chatml")
    (folder / "chat_template.jinja").write_text(OWN_TEMPLATE)
    return ChatTokenizer.from_folder(folder)


@pytest.mark.parametrize("beside_a_model", [False, True])
def test_auto_tokenizer_gives_the_same(tokenizer: ChatTokenizer, tmp_path: Path, beside_a_model: bool) -> None:
    from transformers import AutoTokenizer, LlamaConfig  # noqa: PLC0415 - collecting must stay quick

    folder = tmp_path / "saved"
    tokenizer.save(folder)
    if beside_a_model:
        # A config.json beside it makes AutoTokenizer consider the model's own class.
        LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    for chat in CHATS:
        for messages, prompt in ((chat, False), (chat[:-1], True)):
            text = tokenizer.render(messages, add_generation_prompt=prompt)
            conversation = as_dicts(messages)
            assert theirs.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt) == text
            ids = theirs.apply_chat_template(conversation, add_generation_prompt=prompt, return_dict=False)
            assert ids == tokenizer.encode(text)


def test_tools_are_rendered_as_transformers_does(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415 - collecting must stay quick

    tokenizer.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    call = ToolCall("add", {"a": 1, "b": "zwei é <"}, id="c1")
    chat = (
        Message("user", "1 + 2?"),
        Message("assistant", "", tool_calls=(call, call), reasoning_content="hm"),
        Message("tool", "3", tool_call_id="c1", name="add"),
    )
    for tools in ([TOOL], [TOOL, TOOL], None):
        text = tokenizer.render(chat, tools=tools or (), add_generation_prompt=True)
        conversation = as_dicts(chat)
        assert text == theirs.apply_chat_template(conversation, tools=tools, tokenize=False, add_generation_prompt=True)


def test_datasets_reads_the_arrow_file(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    from datasets import Dataset  # noqa: PLC0415 - collecting must stay quick

    rows = [encode_messages(tokenizer, chat) for chat in CHATS]
    with ArrowRows(tmp_path / "train.arrow") as arrow:
        for row in rows:
            ids, labels = (array("i", values).tobytes() for values in (row.input_ids, row.labels))
            arrow.write(ids, labels, [len(row.input_ids)])
    dataset = Dataset.from_file(str(tmp_path / "train.arrow"))
    assert dataset.to_list() == [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
    assert dataset.data.schema.field("labels").type == pa.list_(pa.int32())


def _write_tokenizer(folder: Path, *, bos: bool) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    choose = random.Random(1)
    tokenizer.train_from_iterator((" ".join(choose.choices(["red", "blue", "user"], k=5)) for _ in range(50)), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    # The class that a Llama's files name would rebuild parts of the tokenizer; what we save must not.
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "LlamaTokenizer", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
