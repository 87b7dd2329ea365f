"""From a file of conversations to packed tokens: `sftjob.data.prepare` beside what `SFTTrainer` does when it is made.

    python benchmarks/prepare_rows.py [--rows 100000] [--processes 2]

Both read the same JSON Lines file, render the same ChatML, tokenise with the same tokenizer and pack by best fit into
512 tokens. Ours also masks by turn, audits and hashes what it writes; TRL's trains on every token, which is less work.
TRL is timed alone and with `dataset_num_proc`; its time is that of the constructor, less that of one for ready tokens.
"""

import argparse
import json
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lengths import lognormal_lengths
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

MAX_LENGTH = 512
WORDS = 2000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder, "model"), Path(folder, "train.jsonl")
        make_tokenizer(model)
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows(given.rows)))
        print(f"{given.rows:,} rows, {data.stat().st_size / 2**20:.0f} MiB, {given.processes} cores")
        ours, packs = timed(lambda: prepare_ours(model, data, Path(folder, "out")))
        print(f"sftjob                 {ours:6.1f} s  {packs:,} packs")
        for processes in (None, given.processes):
            theirs, packs = prepare_theirs(model, data, processes, Path(folder, f"trl-{processes}"))
            name = "TRL" if processes is None else f"TRL, {processes} processes"
            print(f"{name:<22} {theirs:6.1f} s  {packs:,} packs   sftjob / TRL {ours / theirs:.2f} (goal 1.2)")


def rows(count: int) -> Iterator[dict[str, Any]]:
    choose = random.Random(1)
    vocabulary = words()
    for length in lognormal_lengths(count, seed=0):
        text = choose.choices(vocabulary, k=max(2, length * 3 // 4))
        asked = " ".join(text[: len(text) // 3])
        answered = " ".join(text[len(text) // 3 :])
        yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def words() -> list[str]:
    choose = random.Random(2)
    return ["".join(choose.choices("abcdefghijklmnoprstuvw", k=choose.randint(2, 9))) for _ in range(WORDS)]


def make_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words())] * 20, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


def prepare_ours(model: Path, data: Path, out: Path) -> int:
    from sftjob.data.inputs import InputFile, PrepareInput  # noqa: PLC0415 - its imports count
    from sftjob.data.prepare import prepare  # noqa: PLC0415
    from sftjob.plan import ModelFacts  # noqa: PLC0415
    from sftjob.resolve import resolve  # noqa: PLC0415
    from sftjob.spec import JobSpec  # noqa: PLC0415

    spec = {
        "name": "bench",
        "model": {"path": str(model)},
        "data": {"train": [{"path": str(data)}], "template": "chatml"},
        "method": {"type": "full"},
        "training": {"max_length": MAX_LENGTH, "packing": True},
    }
    facts = ModelFacts(
        architecture="LlamaForCausalLM", model_type="llama", vocab_size=9000, hidden_size=8, num_hidden_layers=1
    )
    job = resolve(JobSpec.model_validate_json(json.dumps(spec)), facts)
    files = (InputFile(name=data.name, path=data),)
    prepared = prepare(job, PrepareInput(train=files, model=model, out=out, attempt=1, digest="0" * 64))
    return prepared.splits["train"].packs or 0


def prepare_theirs(model: Path, data: Path, processes: int | None, cache: Path) -> tuple[float, int]:
    warnings.simplefilter("ignore")
    import datasets  # noqa: PLC0415
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    from sftjob.data.tokenizer import ChatTokenizer  # noqa: PLC0415

    datasets.disable_progress_bars()
    ChatTokenizer.from_folder(model, template="chatml").save(cache / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(cache / "tokenizer")
    tiny = LlamaForCausalLM(
        LlamaConfig(vocab_size=9000, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )

    def construct(rows: Any, *, packing: bool) -> Any:
        config = SFTConfig(
            output_dir=str(cache / "out"),
            packing=packing,
            packing_strategy="bfd",
            max_length=MAX_LENGTH,
            dataset_num_proc=processes if packing else None,
            report_to=[],
            use_cpu=True,
            bf16=False,
        )
        return SFTTrainer(model=tiny, args=config, train_dataset=rows, processing_class=tokenizer)

    def whole() -> Any:
        read = datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=str(cache / "cache"))
        return construct(read, packing=True).train_dataset

    ready = datasets.Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}])
    construct(ready, packing=False)
    constructor, _ = timed(lambda: construct(ready, packing=False))
    seconds, packed = timed(whole)
    return seconds - constructor, len(packed)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


if __name__ == "__main__":
    main()
