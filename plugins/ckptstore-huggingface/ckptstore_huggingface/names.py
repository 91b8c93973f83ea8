"""The names that the files of a Hugging Face model folder have."""

from __future__ import annotations

import re

__all__ = [
    "BIN",
    "BIN_INDEX",
    "CONFIG",
    "GENERATION",
    "MERGES",
    "OPTIMIZER",
    "OTHERS",
    "SHARD",
    "STATES",
    "TENSORS",
    "TENSORS_INDEX",
    "TOKENIZER",
    "TOKENIZER_CONFIG",
    "TRAINER",
    "VOCABULARY",
]

TENSORS, TENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
TRAINER, OPTIMIZER = "trainer_state.json", "optimizer.pt"
STATES = {"scheduler": "scheduler.pt", "scaler": "scaler.pt"}
SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)")
"""What transformers calls a shard; under any other name it is somebody's choice."""

OTHERS = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
    MERGES,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
)
"""Files that go with a model to use it, and that are not looked into here."""
