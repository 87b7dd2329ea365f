"""What several units need: a model folder written by hand, small enough to be read in a test."""

import json
import struct
from pathlib import Path

import pytest

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """config.json, tokenizer.json and one safetensors file with a single tensor."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return folder
