"""The keys of nanoGPT's file, and the one dict that a checkpoint is written as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ckptstore import UnsupportedError, ptfile
from ckptstore.formats.base import Contents
from ckptstore_nanogpt.meta import GPT2_SIZES

__all__ = [
    "ARGS",
    "BEST",
    "CONFIG",
    "FILE",
    "MODEL",
    "OPTIMIZER",
    "OWN",
    "SETTINGS",
    "STEP",
    "TOKENIZER",
    "is_tokenizer",
    "root_of",
]

FILE = "ckpt.pt"
MODEL, OPTIMIZER, ARGS = "model", "optimizer", "model_args"
STEP, BEST, CONFIG, TOKENIZER = "iter_num", "best_val_loss", "config", "tokenizer"
SETTINGS = "training_config"
OWN = (MODEL, OPTIMIZER, ARGS, STEP, BEST, CONFIG)
_NONE_YET = 1e9  # What train.py begins with, before it has measured any loss.


def is_tokenizer(value: Any) -> bool:
    """Whether a value is a tokenizer as ckptstore keeps it, and none of a fork's own."""
    return isinstance(value, Mapping) and isinstance(value.get("token_kind"), str)


def root_of(contents: Contents) -> dict[str, Any]:
    """Return the one dict that holds all of a checkpoint.

    Raises:
        UnsupportedError: something of it would be read back as something else.
    """
    config = contents.config
    for called, value in (("config", config), ("tokenizer", contents.tokenizer_state)):
        if value is not None and ptfile.as_json(dict(value)) is ptfile.NOT_JSON:
            raise UnsupportedError(f"the {called} holds more than JSON has; leave that out of it")
    fields = {name: value for name, value in contents.training_state.items() if name != "step"}
    states = dict(contents.states)
    root: dict[str, Any] = {
        MODEL: contents.model,
        OPTIMIZER: contents.optimizer,
        ARGS: None if config is None else dict(config),
        STEP: contents.step,
    }
    root[BEST] = fields.pop(BEST) if BEST in fields else states.pop(BEST, _NONE_YET)
    for settings in (CONFIG, SETTINGS):
        for there in (fields, states):
            if settings in there and CONFIG not in root:
                root[CONFIG] = there.pop(settings)
    tokenizer = contents.tokenizer_state
    if tokenizer is not None and not _is_assumed(tokenizer, config):
        root[TOKENIZER] = dict(tokenizer)
    for name, state in states.items():
        _add(root, _key_of(name, state), state, f"the state {name!r}")
    for name, field in fields.items():
        _add(root, name, field, f"the field {name!r} of the training state")
    return root


def _is_assumed(tokenizer: Mapping[str, Any], config: Mapping[str, Any] | None) -> bool:
    """Whether nanoGPT takes this tokenizer where nothing else is said."""
    size = (config or {}).get("vocab_size")
    return dict(tokenizer) == {"token_kind": "gpt2"} and size in GPT2_SIZES


def _key_of(name: str, state: Any) -> str:
    """Return the key under which a state is read as a state again, and not as a field."""
    plain = ptfile.as_json(state)
    small = plain is not ptfile.NOT_JSON and len(json.dumps(plain)) < ptfile.MOST_FIELDS
    return f"{name}_state_dict" if small else name


def _add(root: dict[str, Any], key: str, value: Any, what: str) -> None:
    if key in root or key in OWN or (key == TOKENIZER and is_tokenizer(value)):
        raise UnsupportedError(
            f"{what} would stand under {key!r}, where nanoGPT keeps something else; "
            "give it another name, or choose another format"
        )
    root[key] = value
