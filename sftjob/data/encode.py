"""Rows → tokens on all cores, block by block and in order.

Rendering a template is Python, so blocks go to processes. They are started only for data that are worth it, and each
loads the tokenizer once; what comes back are bytes, not objects.
"""

import json
import multiprocessing
import os
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from sftjob.data.audit import SplitTally
from sftjob.data.inputs import InputFile
from sftjob.data.lengths import fit_length
from sftjob.data.masks import encode_batch
from sftjob.data.messages import Row, as_dicts
from sftjob.data.problems import Problems
from sftjob.data.rows import read_split
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError, SpecError
from sftjob.inputs import Progress
from sftjob.spec import TemplateFile, TemplateText
from sftjob.spec.data import Data, Mixing, Overlong, TrainOn

BLOCK_ROWS: Final = 512
FIRST_BLOCKS: Final = 8
"""Encoded in this process: fewer rows are done before another process has started."""
_BLOCKS_AHEAD: Final = 3
"""For each process; bounds the memory that waiting blocks take."""
_CGROUP_CPUS: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How rows become tokens."""

    model: Path
    """Folder of the tokenizer."""
    template: Literal["model", "chatml"] | TemplateText
    train_on: TrainOn
    max_length: int
    overlong: Overlong
    texts: bool = False
    """Keep the messages of each row, for held-out rows."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows as tokens, in order; a row may have become none, or several."""

    input_ids: bytes
    """int32 of all rows, one after the other."""
    labels: bytes
    lengths: Sequence[int]
    """Tokens of each row."""
    texts: Sequence[str]
    """A line of JSON a row: id and messages."""
    tally: SplitTally
    problems: Problems
    """Of the rows that cannot be used."""


def encode_options(data: Data, *, model: Path, max_length: int, held_out: bool) -> EncodeOptions:
    """How a spec wants the rows of a split encoded."""
    return EncodeOptions(
        model=model,
        template=template_of(data),
        train_on=data.train_on,
        max_length=max_length,
        overlong=data.overlong,
        texts=held_out,
    )


def encode_split(
    files: Sequence[InputFile],
    tokenizer: ChatTokenizer,
    options: EncodeOptions,
    *,
    mixing: Mixing,
    problems: Problems,
    tally: SplitTally,
    progress: Progress = print,
) -> Iterator[Block]:
    """Reads and encodes the files of a split.

    Args:
        files: in the order of the spec.
        tokenizer: that of the options.
        options: how their rows are encoded.
        mixing: how weighted files are mixed.
        problems: gets the rows that cannot be used; the caller raises.
        tally: gets the counts; they are whole when the last block is through.
        progress: is given lines for people.
    """
    before, refused_late = problems.rows, 0
    rows = read_split(files, mixing=mixing, problems=problems, counts=tally.counts, progress=progress)
    for block in encode_rows(rows, tokenizer, options):
        tally.merge(block.tally)
        problems.merge(block.problems)
        refused_late += block.problems.rows
        yield block
    tally.finish(problems.rows - before, seen=refused_late)


def template_of(data: Data) -> Literal["model", "chatml"] | TemplateText:
    """The template of a spec that is pinned: a file has become text by then."""
    if isinstance(data.template, TemplateFile):
        raise SpecError(
            "the template file was not put into the spec", field="data.template.path", hint="write `jinja:`"
        )
    return data.template


def require_embeddings(tokenizer: ChatTokenizer, model: Path, rows: int) -> None:
    """Raises DataError for a tokenizer with ids beyond the model's embeddings, `rows` of them."""
    if tokenizer.base_vocab_size > rows:
        raise DataError(
            f"the tokenizer needs {tokenizer.base_vocab_size:,} embeddings, the model has {rows:,} (vocab_size)",
            file=f"{model.name}/tokenizer.json",
            field="model",
            hint="use the tokenizer that the model was trained with",
        )


def encode_rows(
    rows: Iterable[Row], tokenizer: ChatTokenizer, options: EncodeOptions, *, processes: int | None = None
) -> Iterator[Block]:
    """Yields blocks in the order of the rows.

    Args:
        rows: conversations and texts.
        tokenizer: that of the options; other processes load it for themselves.
        options: how they are encoded.
        processes: at most so many; by default as many as this process may use cores.

    Raises:
        ConfigurationError: the template and the tokenizer do not fit each other.
    """
    blocks = _blocks(rows)
    for block in islice(blocks, FIRST_BLOCKS):
        yield encode_block(tokenizer, block, options)
    processes = available_cpus() if processes is None else processes
    if processes > 1:
        yield from _in_processes(blocks, options, processes)
    else:
        yield from (encode_block(tokenizer, block, options) for block in blocks)


def encode_block(tokenizer: ChatTokenizer, rows: Sequence[Row], options: EncodeOptions) -> Block:
    """Encodes some rows in this process."""
    tally, problems = SplitTally(), Problems()
    ids, labels, lengths, texts = array("i"), array("i"), array("i"), []
    encoded_rows = encode_batch(tokenizer, rows, train_on=options.train_on, problems=problems)
    usable = {_place(row) for row, _ in encoded_rows}
    for row in rows:
        tally.add_row(row, usable=_place(row) in usable)
    tally.counts["unrolled"] = len(encoded_rows) - len(usable)
    for row, whole in encoded_rows:
        pieces = fit_length(whole, options.max_length, _overlong(options))
        tally.add_encoded(whole, pieces)
        for piece in (piece for piece in pieces if piece.trained_tokens):
            ids.extend(piece.input_ids)
            labels.extend(piece.labels)
            lengths.append(len(piece.input_ids))
            if options.texts:
                texts.append(_line(row))
    return Block(
        input_ids=ids.tobytes(),
        labels=labels.tobytes(),
        lengths=lengths,
        texts=texts,
        tally=tally,
        problems=problems,
    )


def _place(row: Row) -> tuple[object, ...]:
    return row.file, row.line, row.index, row.copy


def available_cpus() -> int:
    """Cores that this process may use: of its affinity, or of its container's quota where that is less."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_CPUS.read_text().split()
        return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus


def _overlong(options: EncodeOptions) -> Overlong:
    """A held-out row is scored as one: where others are split, it is cut."""
    return "truncate" if options.texts and options.overlong == "split" else options.overlong


def _line(row: Row) -> str:
    value = {"id": row.id, "messages": as_dicts(row.messages), "tools": row.tools, "text": row.text}
    return json.dumps({key: item for key, item in value.items() if item or key == "messages"})


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while block := list(islice(iterator, BLOCK_ROWS)):
        yield block


def _in_processes(blocks: Iterator[list[Row]], options: EncodeOptions, processes: int) -> Iterator[Block]:
    first = next(blocks, None)
    if first is None:
        return
    # Spawned, not forked: tokenizers and pyarrow have threads by now.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start, initargs=(options,)) as pool:
        waiting: deque[Future[Block]] = deque([pool.submit(_encode, first)])
        try:
            for block in blocks:
                waiting.append(pool.submit(_encode, block))
                if len(waiting) > _BLOCKS_AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: tuple[ChatTokenizer, EncodeOptions] | None = None
"""Set in a worker process alone."""


def _start(options: EncodeOptions) -> None:
    global _worker  # noqa: PLW0603 - the one way in which a pool's processes keep what they need
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = ChatTokenizer.from_folder(options.model, template=options.template), options


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever when their parent was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _encode(rows: Sequence[Row]) -> Block:
    if _worker is None:
        raise RuntimeError("not a worker process")
    tokenizer, options = _worker
    return encode_block(tokenizer, rows, options)
