"""Tokenizers made on the spot from generated text, and a job to prepare data for."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sftjob.plan import ModelFacts
from sftjob.resolve import ResolvedJob, resolve
from sftjob.spec import JobSpec

SHARED = Path(__file__).resolve().parents[4] / "shared"
END = "<|endoftext|>"

WriteTokenizer = Callable[..., Path]
MakeJob = Callable[..., ResolvedJob]


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's folder with a byte-level BPE tokenizer of about 400 tokens and no chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Trims offsets, as GPT-2's does: a mask that trusted them would lose the blank that leads a word.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    return write_tokenizer(tmp_path_factory.mktemp("tiny"), tokenizer, {"eos_token": END, "bos_token": END})


@pytest.fixture(scope="session")
def marked_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that marks the beginning of every text (as SentencePiece does), merges over line breaks and adds `<s>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*["assistant\nyes"] * 50, "user\n<|im_start|> 0123456789 abcdefghijklmno"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "unk_token": "<unk>"}
    return write_tokenizer(tmp_path_factory.mktemp("marked"), tokenizer, tokens)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, config: dict[str, object]) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 64}))
    return folder


@pytest.fixture
def with_template(tiny_tokenizer_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the tiny tokenizer into a folder that has this chat template, with more control tokens if need be."""

    def write(template: str, control_tokens: Sequence[str] = ()) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        tokenizer = Tokenizer.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control_tokens])
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_bytes((tiny_tokenizer_folder / "tokenizer_config.json").read_bytes())
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return write


@pytest.fixture
def make_job() -> MakeJob:
    """A resolved job; `data` and `training` are blocks of a spec."""

    def make(*, vocab_size: int = 512, training: dict[str, object] | None = None, **data: object) -> ResolvedJob:
        spec = {
            "name": "unit",
            "model": {"path": "model"},
            "data": {"train": [{"path": "train.jsonl"}], "template": "chatml", **data},
            "method": {"type": "full"},
            "training": training or {},
        }
        facts = ModelFacts(
            architecture="LlamaForCausalLM",
            model_type="llama",
            vocab_size=vocab_size,
            hidden_size=8,
            num_hidden_layers=1,
        )
        return resolve(JobSpec.model_validate_json(json.dumps(spec)), facts)

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_base() -> Path:
    folder = SHARED / "models" / "tiny-base"
    if not folder.is_dir():
        pytest.skip("no ../shared/models/tiny-base beside the repository")
    return folder


def _sentences() -> Iterator[str]:
    choose = random.Random(7)
    words = ["count", "the", "red", "and", "blue", "stones", "say", "how", "many", "there", "are", "of", "each"]
    words += ["user", "assistant", "system"]
    for _ in range(400):
        line = " ".join(choose.choices(words, k=choose.randint(3, 9)))
        yield line + choose.choice(["\n", "\n\n", "\n\n\n", ".\n    ", " 12\n"]) + choose.choice(words)
