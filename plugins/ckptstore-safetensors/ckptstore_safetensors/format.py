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

from typing import ClassVar

from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.formats.bundle_texts import (
    CONFIG,
    METRICS,
    TOKENIZER,
    TRAINING,
    log_of,
    state_file,
    texts_of,
)
from ckptstore.tokenizers.files import check_files
from ckptstore_safetensors.names import ENDING, MODEL, OPTIMIZER, TREE
from ckptstore_safetensors.reader import SafetensorsReader

__all__ = ["SafetensorsFormat"]


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

        texts, log = texts_of(contents, ENDING), log_of(contents)
        carried = contents.tokenizer_files
        check_files(carried, contents.tokenizer_state)
        # All is checked before the first byte is written.
        ready = {MODEL: planned(contents.model, "the model")}
        nested = {} if contents.optimizer is None else {OPTIMIZER: contents.optimizer}
        called = {OPTIMIZER: "the optimizer"}
        for name, state in contents.states.items():
            file = state_file(name, ENDING)
            nested[file], called[file] = state, f"the state {name!r}"
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
