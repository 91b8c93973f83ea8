"""A bundle whose tensors are in ``.safetensors`` files, as most other programs read them.

    config.json             architecture; any JSON object
    tokenizer.json          {"token_kind": ...}
    training_state.json     {"step": ..., "optimizer_file": ..., "<name>_file": ..., more fields}
    model.safetensors       the state dict alone
    optimizer.safetensors   the optimizer's state dict: its tensors, and a text with all the rest
    <name>.safetensors      a further state, likewise
    metrics.jsonl           what was measured since the training began, a JSON object on each line
    tokenizer.*             what the tokenizer needs beside its state, where it is carried

Only model.safetensors has to be there. What is absent is None, and what is unknown is kept. A
location may also name one ``.safetensors`` file, which is weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ckptstore import UnsafeError, UnsupportedError
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.manifest import plain_name
from ckptstore.texts import dump_json, dump_json_lines
from ckptstore.tokenizers.files import check_files
from ckptstore_safetensors.names import (
    CONFIG,
    ENDING,
    FILE,
    METRICS,
    MODEL,
    OPTIMIZER,
    OPTIMIZER_FILE,
    TOKENIZER,
    TRAINING,
    TREE,
)
from ckptstore_safetensors.reader import SafetensorsReader

__all__ = ["SafetensorsFormat"]

_MOST_TRAINING = 1024


class SafetensorsFormat(Format):
    """Reads and writes bundles whose tensors are in ``.safetensors`` files, committed or not."""

    name: ClassVar[str] = "safetensors"
    writable: ClassVar[bool] = True
    takes_later: ClassVar[bool] = True
    yields_to: ClassVar[tuple[str, ...]] = ("huggingface",)
    texts: ClassVar[tuple[str, ...]] = (CONFIG, TOKENIZER, TRAINING)

    def matches(self, files: Files) -> bool:
        """Whether there is a model.safetensors, or the location names a ``.safetensors`` file."""
        if files.named is not None:
            return files.named.endswith(ENDING)
        return MODEL in files.names()

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a folder, from its JSON files alone, or in one file.

        Raises:
            CorruptionError: a JSON file is malformed, or there is no model.safetensors.
            UnsafeError: training_state.json names an optimizer file that is no plain name.
        """
        return SafetensorsReader(files)

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write a bundle; the caller commits it.

        Raises:
            UnsupportedError: something has no place in a ``.safetensors`` file or in JSON,
                training_state.json would reach 1 KB, or a state has a name that no file can have.
            UnsafeError: a value could only be read back by running code.
        """
        from ckptstore_safetensors.trees import flattened
        from ckptstore_safetensors.writing import planned

        texts, log = _texts(contents), _log(contents)
        carried = contents.tokenizer_files
        check_files(carried, contents.tokenizer_state)
        # All is checked before the first byte is written.
        ready = {MODEL: planned(contents.model, "the model")}
        nested = {} if contents.optimizer is None else {OPTIMIZER: contents.optimizer}
        called = {OPTIMIZER: "the optimizer"}
        for name, state in contents.states.items():
            nested[_state_file(name)] = state
            called[_state_file(name)] = f"the state {name!r}"
        for file, state in nested.items():
            tree, tensors = flattened(state, called[file])
            ready[file] = planned(tensors, called[file], {TREE: tree})
        for file, text in texts.items():
            files.write_text(file, text)
        for file, data in {**({METRICS: log} if log else {}), **carried}.items():
            with files.create(file, expected_size=len(data)) as sink:
                sink.write(memoryview(data))
        # What takes longest to be digested begins first, and the others go on beside it.
        for file, (plan, kept) in sorted(ready.items(), key=lambda item: -item[1][0].size):
            with files.create(file, expected_size=plan.size) as sink:
                plan.write(sink, kept.__getitem__)


def _state_file(name: str) -> str:
    file = f"{name}{ENDING}"
    try:
        plain_name(file, "state=")
    except UnsafeError as error:
        raise UnsupportedError(
            f"a state cannot be called {name!r}: its file would be {file!r}; choose a plain name"
        ) from error
    if file.lower() in (MODEL, OPTIMIZER) or not name or name.startswith("."):
        raise UnsupportedError(
            f"a state cannot be called {name!r}, for another file is; choose a different name"
        )
    return file


def _texts(contents: Contents) -> dict[str, str]:
    """Return the JSON files by name."""
    texts = {}
    for name, value in ((CONFIG, contents.config), (TOKENIZER, contents.tokenizer_state)):
        if value is not None:
            texts[name] = _dumped(name, value)
    training = _training_fields(contents)
    if training:
        texts[TRAINING] = _dumped(TRAINING, training)
        size = len(texts[TRAINING].encode())
        if size >= _MOST_TRAINING:
            largest = max(training, key=lambda field: len(dump_json(training[field])))
            raise UnsupportedError(
                f"{TRAINING} would have {size} bytes, and stays under {_MOST_TRAINING}; its "
                f"largest field is {largest!r}: pass it in state= instead"
            )
    return texts


def _training_fields(contents: Contents) -> dict[str, Any]:
    """Return training_state.json: step and file names come from what is saved, never before it."""
    fields: dict[str, Any] = {}
    if contents.step is not None:
        fields["step"] = contents.step
    if contents.optimizer is not None:
        fields[OPTIMIZER_FILE] = OPTIMIZER
    for name in contents.states:
        fields[name + FILE] = _state_file(name)
    for name, value in contents.training_state.items():
        stale = name.endswith(FILE) and isinstance(value, str) and value.endswith((ENDING, ".pt"))
        if name not in ("step", OPTIMIZER_FILE) and name not in fields and not stale:
            fields[name] = value
    return fields


def _dumped(name: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        raise UnsupportedError(f"{name} has to be a JSON object, not a {type(value).__name__}")
    try:
        return dump_json(dict(value))
    except UnsupportedError as error:
        raise UnsupportedError(f"{name}: {error}") from error


def _log(contents: Contents) -> bytes:
    try:
        return dump_json_lines(contents.metrics_log).encode()
    except UnsupportedError as error:
        raise UnsupportedError(f"{METRICS}: {error}") from error
