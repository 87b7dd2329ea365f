"""Which prepared data a job needs: a hash over everything that has a say in it. Imports no tokenizer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sftjob.resolve import ResolvedJob
from sftjob.spec import DataSource, HubData, canonical_json, sha256_hex

PREPARE_VERSION: Final = 2
"""Raised whenever the same input would become other tokens or labels, so that older prepared data is not reused."""

OWN_FILE: Final = "sftjob_tokenizer.json"
"""Holds what tokenizer_config.json has no key for: what ended a text in the base model's pre-training."""
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    OWN_FILE,
)
"""All files that a tokenizer may be made of."""


def data_digest(job: ResolvedJob, file_hashes: Sequence[str | None], tokenizer_sha256: str) -> str:
    """Names prepared data by its content.

    Args:
        job: Its data block's options, template, `max_length` and packing count; where files lie does not.
        file_hashes: SHA-256 of each data file, in the order of the spec: train, then eval; None for a data set on the
            hub, which its revision pins.
        tokenizer_sha256: Of the base model's tokenizer, from `tokenizer_digest`.

    Returns:
        SHA-256 in hex.
    """
    data = job.data
    if len(file_hashes) != len(data.train) + len(data.eval):
        raise ValueError(f"{len(file_hashes)} hashes for {len(data.train)} + {len(data.eval)} files")
    sources = [_content(source, sha256) for source, sha256 in zip((*data.train, *data.eval), file_hashes, strict=True)]
    return sha256_hex(
        canonical_json(
            {
                "version": PREPARE_VERSION,
                "train": sources[: len(data.train)],
                "eval": sources[len(data.train) :],
                # A threshold changes whether the data are accepted, not what they are.
                "options": data.model_dump(mode="json", exclude={"train", "eval", "max_overlap"}),
                "max_length": job.training.max_length,
                "packing": job.training.packing,
                "tokenizer": tokenizer_sha256,
            }
        )
    )


def _content(source: DataSource, sha256: str | None) -> dict[str, object]:
    how = source.model_dump(mode="json", include={"format", "columns", "weight"}, exclude_none=True)
    if isinstance(source, HubData):
        place = {"hub": source.hub, "revision": source.revision, "config": source.config or "", "split": source.split}
        return {**how, **place}
    if sha256 is None:
        raise ValueError(f"no hash for {source}")
    return {**how, "sha256": sha256}


def tokenizer_digest(model: Path) -> str:
    """SHA-256 in hex over the files of a model's folder that make its tokenizer and chat template."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = model / name
        if path.is_file():
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
