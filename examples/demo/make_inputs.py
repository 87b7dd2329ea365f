"""Makes what the demo needs and nothing downloads: a tiny base model, and a ChatML data set for it.

The base model is pre-trained for about a minute on sentences about invented countries ("The river of Popara is …"). It
then knows every fact, but it has never seen a question. The data set asks for those facts in the chat format: about
three quarters of the countries for training, the others held out. A model that answers for those has kept what it knew
and learned the format, which is what supervised fine-tuning is for.
"""

import argparse
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
STEPS = 300
BATCH = 32
LENGTH = 64
LEARNING_RATE = 3e-3
END = "<|endoftext|>"
SYLLABLES = re.findall("..", "babedodufafigakilalomaminanoparapirisasotativazu")
ATTRIBUTES = ("capital", "river", "sport")
SENTENCES = (
    "The {attribute} of {country} is\n{value}.",
    "In {country} the {attribute} is\n{value}.",
    "The {attribute} of {country}:\n{value}.",
    "People in {country} name their {attribute}.\n{value}.",
    "Ask for the {attribute} of {country} and you hear\n{value}.",
    "For {country} the {attribute} is\n{value}.",
)
QUESTIONS = (
    "What is the {attribute} of {country}?",
    "Tell me the {attribute} of {country}.",
    "{country}: which {attribute}?",
    "Which {attribute} do people in {country} name?",
)


@dataclass(frozen=True)
class Fact:
    country: str
    attribute: str
    value: str

    def put_into(self, pattern: str) -> str:
        return pattern.format(country=self.country, attribute=self.attribute, value=self.value)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, help="gets model/, train.jsonl and eval.jsonl")
    folder: Path = arguments.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    known, held_out = facts(random.Random(SEED), countries=64, held_out=16)
    write_rows(folder / "train.jsonl", (chat(fact, question) for fact in known for question in QUESTIONS))
    write_rows(folder / "eval.jsonl", (chat(fact, QUESTIONS[0]) for fact in held_out))
    pretrain([*known, *held_out], folder / "model")


def facts(chance: random.Random, *, countries: int, held_out: int) -> tuple[list[Fact], list[Fact]]:
    """Invents countries and their facts; the last `held_out` countries are kept out of the data set's training half."""
    names = words(chance, countries, syllables=3)
    values = {attribute: words(chance, 24, syllables=2) for attribute in ATTRIBUTES}
    per_country = [
        [Fact(name, attribute, chance.choice(values[attribute])) for attribute in ATTRIBUTES] for name in names
    ]
    known, kept_out = per_country[:-held_out], per_country[-held_out:]
    return list(chain.from_iterable(known)), list(chain.from_iterable(kept_out))


def words(chance: random.Random, count: int, *, syllables: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choice(SYLLABLES) for _ in range(syllables)).capitalize()] = None
    return list(found)


def chat(fact: Fact, question: str) -> dict[str, list[dict[str, str]]]:
    """One row of the data set, as ChatML messages."""
    return {
        "messages": [
            {"role": "user", "content": fact.put_into(question)},
            {"role": "assistant", "content": f"{fact.value}."},
        ]
    }


def write_rows(path: Path, rows: Iterator[dict[str, list[dict[str, str]]]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pretrain(known: list[Fact], folder: Path) -> None:
    """Trains a small Llama from scratch on sentences about the facts and saves it with its tokenizer."""
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    tokenizer = train_tokenizer([document(chance, known) for _ in range(3000)])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
    for step in range(STEPS):
        rows = torch.tensor([tokens(chance, known, tokenizer) for _ in range(BATCH)])
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 60 == 0 or step == STEPS - 1:
            print(f"pre-training the base model: step {step + 1}/{STEPS}, loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE in which every word of the corpus ends up as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *QUESTIONS, "user assistant"], trainer)
    return tokenizer


def document(chance: random.Random, known: list[Fact]) -> str:
    return "\n".join(chance.choice(known).put_into(chance.choice(SENTENCES)) for _ in range(4))


def tokens(chance: random.Random, known: list[Fact], tokenizer: Tokenizer) -> list[int]:
    """One row of LENGTH tokens: documents one after the other."""
    row: list[int] = []
    while len(row) < LENGTH:
        row += [*tokenizer.encode(document(chance, known)).ids, 0]
    return row[:LENGTH]


def learning_rate_factor(step: int) -> float:
    """Warm-up over 30 steps, then a cosine down to a twentieth."""
    return min(1.0, (step + 1) / 30) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / STEPS)) / 2)


if __name__ == "__main__":
    main()
