"""ChatTokenizer: which tokens are added, what is saved, and what a folder must have."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from sftjob.data import Message
from sftjob.data.digest import OWN_FILE, TOKENIZER_FILES, tokenizer_digest
from sftjob.data.template import ChatTemplate, TemplateRefusal
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, InputMissing
from sftjob.spec.data import TemplateText

CHAT = (Message("user", "red"), Message("assistant", " blue "))
WithTemplate = Callable[..., Path]


def test_chatml_adds_two_tokens(tiny_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    base = tokenizer.base_vocab_size
    assert tokenizer.added_token_ids == (base, base + 1)
    assert tokenizer.vocab_size == base + 2
    assert tokenizer.special_tokens == {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    assert tokenizer.stop_token_ids == (base + 1,)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.plain_eos_token_id) == (base + 1, 0, 0)


def test_chatml_text(tiny_tokenizer_folder: Path, marked_tokenizer_folder: Path) -> None:
    plain = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    assert plain.render(CHAT) == "<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n blue <|im_end|>\n"
    prompt = "<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n"
    assert plain.render(CHAT[:1], add_generation_prompt=True) == prompt
    begun = ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml")
    assert begun.render(CHAT[:1], add_generation_prompt=True) == f"<s>{prompt}"


def test_a_config_that_adds_no_bos_wins_over_the_post_processor(marked_tokenizer_folder: Path, tmp_path: Path) -> None:
    config = json.loads((marked_tokenizer_folder / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": False}))
    (tmp_path / "tokenizer.json").write_bytes((marked_tokenizer_folder / "tokenizer.json").read_bytes())
    assert ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml").adds_bos
    assert not ChatTokenizer.from_folder(tmp_path, template="chatml").adds_bos


def test_what_is_saved_is_the_same_tokenizer(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    tokenizer.save(tmp_path)
    again = ChatTokenizer.from_folder(tmp_path)
    assert again.added_token_ids == ()
    for name in ("special_tokens", "vocab_size", "stop_token_ids", "plain_eos_token", "special_ids", "adds_bos"):
        assert getattr(again, name) == getattr(tokenizer, name), name
    assert again.template.sha256 == tokenizer.template.sha256
    assert again.encode(again.render(CHAT)) == tokenizer.encode(tokenizer.render(CHAT))
    # The base tokenizer's own way to begin texts survives, though it is not used on rendered ones.
    original = json.loads((tiny_tokenizer_folder / "tokenizer.json").read_text())
    assert json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"] == original["post_processor"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 64


def test_the_models_own_template(with_template: WithTemplate) -> None:
    folder = with_template("{% for m in messages %}\n  {{ m['content'] }}{{ eos_token }}\n  {% endfor %}")
    tokenizer = ChatTokenizer.from_folder(folder)
    # Blocks are trimmed and stripped as transformers does.
    assert tokenizer.render(CHAT) == "  red<|endoftext|>\n   blue <|endoftext|>\n"
    assert tokenizer.added_token_ids == ()


def test_a_template_in_the_config(with_template: WithTemplate) -> None:
    folder = with_template("unused")
    (folder / "chat_template.jinja").unlink()
    source = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for written in (source, [{"name": "rag", "template": "no"}, {"name": "default", "template": source}]):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": written}))
        assert ChatTokenizer.from_folder(folder).render(CHAT) == "red<|endoftext|> blue <|endoftext|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for %}",
            "data.template: the chat template does not compile: Expected an expression, got 'end of statement",
        ),
        (
            "{{ raise_exception('Use tools.') }}",
            "data.template: the chat template refuses a plain exchange: Use tools.; set data.template: chatml",
        ),
        ("{{ messages + 1 }}", "data.template: the chat template refuses a plain exchange: can only concatenate list"),
        ("{{ messages.append(1) }}", "data.template: the chat template refuses a plain exchange: access to attribute"),
        (
            "{{ messages | length }}{{ eos_token }}",
            "data.template: the chat template's generation prompt is no beginning of the answered text;",
        ),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "data.template: the chat template ends an answer with no control token, so generation could not stop;",
        ),
        (
            "{% for m in messages %}{{ eos_token + m['content'] }}{% endfor %}",
            "data.template: the chat template ends an answer with no control token, so generation could not stop;",
        ),
    ],
    ids=["syntax", "raises", "type error", "mutates", "no prefix", "no stop", "stop before the text"],
)
def test_templates_that_do_not_work(with_template: WithTemplate, template: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        ChatTokenizer.from_folder(with_template(template))
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)


def test_no_template(tiny_tokenizer_folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatTokenizer.from_folder(tiny_tokenizer_folder)
    assert str(caught.value) == "data.template: the model has no chat template; set data.template: chatml"


OWN = "{% for m in messages %}{{ m['role'] + m['content'] + eos_token }}{% endfor %}"


def test_a_template_of_the_users_own(with_template: WithTemplate, tmp_path: Path) -> None:
    folder = with_template("{{ raise_exception('not this one') }}")
    tokenizer = ChatTokenizer.from_folder(folder, template=TemplateText(jinja=OWN))
    assert tokenizer.render(CHAT) == "userred<|endoftext|>assistant blue <|endoftext|>"
    assert tokenizer.added_token_ids == ()
    assert tokenizer.stop_token_ids == (0,)
    tokenizer.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / OWN_FILE).read_text()) == {
        "plain_eos_token": "<|endoftext|>",
        "template_sha256": hashlib.sha256(OWN.encode()).hexdigest(),
    }
    assert ChatTokenizer.from_folder(tmp_path / "saved").render(CHAT) == tokenizer.render(CHAT)


def test_a_template_of_the_users_own_whose_tokens_the_model_lacks(tiny_tokenizer_folder: Path) -> None:
    text = TemplateText(jinja=OWN.replace("eos_token", "'<|my_end|>'"))
    with pytest.raises(ConfigurationError, match=r"^data\.template: .* ends an answer with no control token"):
        ChatTokenizer.from_folder(tiny_tokenizer_folder, template=text)


def test_the_first_control_token_after_an_answer_ends_it(with_template: WithTemplate) -> None:
    folder = with_template(
        "{% for m in messages %}{{ m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{{ '' if add_generation_prompt else eos_token }}",
        ["<|end|>"],
    )
    tokenizer = ChatTokenizer.from_folder(folder)
    end = tokenizer.token_id("<|end|>")
    assert tokenizer.stop_token_ids == (end, tokenizer.eos_token_id)
    assert tokenizer.find_stop("a<|end|>\n<|endoftext|> ") == (1, 8)
    assert tokenizer.find_stop("a<|end|>b") is None
    assert tokenizer.find_stop("a<|end|> ", 8) is None
    assert list(tokenizer.trailing_controls("<|end|>a<|end|>\n<|endoftext|> ")) == [(16, 29), (8, 15)]


def test_folders_that_are_not_whole(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"tokenizer\.json: no such file; use a model that has one"):
        ChatTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json: not a tokenizer: Model missing"):
        ChatTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tiny_tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}")
    with pytest.raises(
        ConfigurationError, match=r"tokenizer_config\.json: eos_token: missing or not in the vocabulary"
    ):
        ChatTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"tokenizer_config\.json: not JSON"):
        ChatTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert ChatTokenizer.from_folder(tmp_path, template="chatml").special_tokens == {
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
    }


def test_what_templates_may_use() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m['content'] | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}{{ x }}",
        {"x": "<x>"},
    )
    years = {str(datetime.now().year), str(datetime.now().year - 1)}
    assert template.render((Message("user", "<é"), Message("user", "b"))) in {f'"<é"{year}<x>' for year in years}


def test_a_refusal_hides_the_rows_text() -> None:
    template = ChatTemplate("{{ raise_exception(messages[0]['content'] + '!') }}", {})
    with pytest.raises(TemplateRefusal, match=r"^an error whose text quotes the row$"):
        template.render((Message("user", "a secret"),))


def test_the_digest_covers_every_file(tmp_path: Path) -> None:
    digests = [tokenizer_digest(tmp_path)]
    for name in TOKENIZER_FILES:
        (tmp_path / name).write_text("{}")
        digests.append(tokenizer_digest(tmp_path))
    (tmp_path / "model.safetensors").write_text("weights")
    assert len({*digests, tokenizer_digest(tmp_path)}) == len(TOKENIZER_FILES) + 1
