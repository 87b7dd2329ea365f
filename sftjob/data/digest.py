"""Which prepared data a job needs: a hash over everything that has a say in it. Imports no tokenizer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sftjob.resolve import ResolvedJob
from sftjob.spec import canonical_json, sha256_hex

PREPARE_VERSION: Final = 1
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


def data_digest(job: ResolvedJob, file_hashes: Sequence[str], tokenizer_sha256: str) -> str:
    """Names prepared data by its content.

    Args:
        job: Its data block's options, template, and `max_length` count; where files lie does not.
        file_hashes: SHA-256 of each data file, in the order of the spec: train, then eval.
        tokenizer_sha256: Of the base model's tokenizer, from `tokenizer_digest`.

    Returns:
        SHA-256 in hex.
    """
    data = job.data
    if len(file_hashes) != len(data.train) + len(data.eval):
        raise ValueError(f"{len(file_hashes)} hashes for {len(data.train)} + {len(data.eval)} files")
    sources = [
        {"sha256": sha256, "format": source.format, "columns": {str(key): name for key, name in source.columns.items()}}
        for sha256, source in zip(file_hashes, (*data.train, *data.eval), strict=True)
    ]
    return sha256_hex(
        canonical_json(
            {
                "version": PREPARE_VERSION,
                "train": sources[: len(data.train)],
                "eval": sources[len(data.train) :],
                "template": data.template,
                "train_on": data.train_on,
                "max_length": job.training.max_length,
                "tokenizer": tokenizer_sha256,
            }
        )
    )


def tokenizer_digest(model: Path) -> str:
    """SHA-256 in hex over the files of a model's folder that make its tokenizer and chat template."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = model / name
        if path.is_file():
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
