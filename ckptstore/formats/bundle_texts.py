"""What a bundle says in texts: its JSON files and metrics.jsonl, from what is to be saved.

Formats that differ in the files of tensors alone take these from here, with their own ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore.errors import UnsafeError, UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.manifest import MANIFEST, plain_name
from ckptstore.texts import dump_json, dump_json_lines

__all__ = [
    "CONFIG",
    "ENDING",
    "FILE",
    "METRICS",
    "MODEL",
    "OPTIMIZER",
    "TOKENIZER",
    "TRAINING",
    "log_of",
    "state_file",
    "texts_of",
]

ENDING = ".pt"
MODEL, OPTIMIZER = f"model{ENDING}", f"optimizer{ENDING}"
CONFIG, TOKENIZER, TRAINING = "config.json", "tokenizer.json", "training_state.json"
METRICS = "metrics.jsonl"
FILE = "_file"
_MOST_TRAINING = 1024


def state_file(name: str, ending: str = ENDING) -> str:
    """Return the name of a state's file.

    Args:
        name: of the state.
        ending: that the format's files have; the model's and the optimizer's have it, too.

    Raises:
        UnsupportedError: it cannot have one.
    """
    file = f"{name}{ending}"
    try:
        plain_name(file, "state=")
    except UnsafeError as error:
        raise UnsupportedError(
            f"a state cannot be called {name!r}: its file would be {file!r}; choose a plain name"
        ) from error
    taken = {"model", "optimizer"}
    if ending == ENDING:
        # The last two are the legacy format's, and such a file is never replaced or removed.
        taken |= {MANIFEST.removesuffix(".json"), "latest", "final"}
    if name.lower() in taken or not name or name.startswith("."):
        raise UnsupportedError(
            f"a state cannot be called {name!r}, for another file is; choose a different name"
        )
    return file


def texts_of(contents: Contents, ending: str = ENDING) -> dict[str, str]:
    """Return the JSON files of a bundle by name.

    Args:
        contents: what is to be saved.
        ending: of the files that training_state.json names.

    Raises:
        UnsupportedError: something is not JSON, training_state.json would reach 1 KB, or a state
            has a name that no file can have.
    """
    values: dict[str, Mapping[str, Any] | None] = {
        CONFIG: contents.config,
        TOKENIZER: contents.tokenizer_state,
    }
    texts = {}
    for name, value in values.items():
        if value is not None:
            texts[name] = _dumped(name, value)
    training = _training_fields(contents, ending)
    if training:
        texts[TRAINING] = _dumped(TRAINING, training)
        if len(texts[TRAINING].encode()) >= _MOST_TRAINING:
            largest = max(training, key=lambda field: len(dump_json(training[field])))
            raise UnsupportedError(
                f"{TRAINING} would have {len(texts[TRAINING].encode())} bytes, and stays under "
                f"{_MOST_TRAINING}; its largest field is {largest!r}: pass it in state= instead"
            )
    return texts


def log_of(contents: Contents) -> bytes:
    """Return the content of metrics.jsonl."""
    try:
        return dump_json_lines(contents.metrics_log).encode()
    except UnsupportedError as error:
        raise UnsupportedError(f"{METRICS}: {error}") from error


def _training_fields(contents: Contents, ending: str) -> dict[str, Any]:
    """Return training_state.json: step and file names come from what is saved, never before it."""
    fields: dict[str, Any] = {}
    if contents.step is not None:
        fields["step"] = contents.step
    if contents.optimizer is not None:
        fields["optimizer_file"] = f"optimizer{ending}"
    for name in contents.states:
        fields[name + FILE] = state_file(name, ending)
    for name, value in contents.training_state.items():
        stale = name.endswith(FILE) and isinstance(value, str) and value.endswith((ENDING, ending))
        if name not in ("step", "optimizer_file") and name not in fields and not stale:
            fields[name] = value
    return fields


def _dumped(name: str, value: Mapping[str, Any]) -> str:
    if not isinstance(value, Mapping):
        raise UnsupportedError(f"{name} has to be a JSON object, not a {type(value).__name__}")
    try:
        return dump_json(dict(value))
    except UnsupportedError as error:
        raise UnsupportedError(f"{name}: {error}") from error
