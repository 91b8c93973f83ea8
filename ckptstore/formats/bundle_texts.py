"""What a bundle says in texts: its JSON files and metrics.jsonl, from what is to be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore.errors import UnsafeError, UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.manifest import MANIFEST, plain_name
from ckptstore.texts import dump_json, dump_json_lines

__all__ = [
    "CONFIG",
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

MODEL, OPTIMIZER = "model.pt", "optimizer.pt"
CONFIG, TOKENIZER, TRAINING = "config.json", "tokenizer.json", "training_state.json"
METRICS = "metrics.jsonl"
FILE = "_file"
_MOST_TRAINING = 1024


def state_file(name: str) -> str:
    """Return the name of a state's file.

    Raises:
        UnsupportedError: it cannot have one.
    """
    file = f"{name}.pt"
    try:
        plain_name(file, "state=")
    except UnsafeError as error:
        raise UnsupportedError(
            f"a state cannot be called {name!r}: its file would be {file!r}; choose a plain name"
        ) from error
    # The last two are the legacy format's, and such a file is never replaced or removed.
    taken = (MODEL, OPTIMIZER, MANIFEST.replace(".json", ".pt"), "latest.pt", "final.pt")
    if file.lower() in taken or not name or name.startswith("."):
        raise UnsupportedError(
            f"a state cannot be called {name!r}, for another file is; choose a different name"
        )
    return file


def texts_of(contents: Contents) -> dict[str, str]:
    """Return the JSON files of a bundle by name."""
    values: dict[str, Mapping[str, Any] | None] = {
        CONFIG: contents.config,
        TOKENIZER: contents.tokenizer_state,
    }
    texts = {}
    for name, value in values.items():
        if value is not None:
            texts[name] = _dumped(name, value)
    training = _training_fields(contents)
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


def _training_fields(contents: Contents) -> dict[str, Any]:
    """Return training_state.json: step and file names come from what is saved, never before it."""
    fields: dict[str, Any] = {}
    if contents.step is not None:
        fields["step"] = contents.step
    if contents.optimizer is not None:
        fields["optimizer_file"] = OPTIMIZER
    for name in contents.states:
        fields[name + FILE] = state_file(name)
    for name, value in contents.training_state.items():
        stale = name.endswith(FILE) and isinstance(value, str) and value.endswith(".pt")
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
