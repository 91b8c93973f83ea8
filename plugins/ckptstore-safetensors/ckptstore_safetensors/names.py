"""The names of the files and fields of a bundle in this format."""

from __future__ import annotations

__all__ = [
    "CONFIG",
    "ENDING",
    "FILE",
    "METRICS",
    "MODEL",
    "OPTIMIZER",
    "OPTIMIZER_FILE",
    "TOKENIZER",
    "TRAINING",
    "TREE",
]

ENDING = ".safetensors"
MODEL, OPTIMIZER = f"model{ENDING}", f"optimizer{ENDING}"
CONFIG, TOKENIZER, TRAINING = "config.json", "tokenizer.json", "training_state.json"
METRICS = "metrics.jsonl"
FILE = "_file"
OPTIMIZER_FILE = f"optimizer{FILE}"
TREE = "ckptstore"
"""Under this name a file's ``__metadata__`` says how its tensors are a nested state."""
