"""The bundle: our format, a folder of readable files.

    config.json          architecture; any JSON object
    tokenizer.json       {"token_kind": ...}
    training_state.json  {"step": ..., "optimizer_file": ..., "<name>_file": ..., more fields}
    model.pt             the state dict alone
    optimizer.pt         the optimizer's state dict
    <name>.pt            a further state
    tokenizer.<more>     what the tokenizer needs beside its state, such as tokenizer.tiktoken
    metrics.jsonl        what was measured since the training began, a JSON object on each line

Only model.pt has to be there. What is absent is None, and what is unknown is kept.
"""

from __future__ import annotations

from typing import ClassVar

from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.formats.bundle_reader import BundleReader
from ckptstore.formats.bundle_texts import (
    CONFIG,
    METRICS,
    MODEL,
    OPTIMIZER,
    TOKENIZER,
    TRAINING,
    log_of,
    state_file,
    texts_of,
)
from ckptstore.tokenizers.files import check_files

__all__ = ["BundleFormat"]


class BundleFormat(Format):
    """Reads and writes bundles, committed or not."""

    name: ClassVar[str] = "bundle"
    writable: ClassVar[bool] = True
    takes_later: ClassVar[bool] = True
    texts: ClassVar[tuple[str, ...]] = (CONFIG, TOKENIZER, TRAINING)

    def matches(self, files: Files) -> bool:
        """Whether there is a model.pt."""
        return MODEL in files.names()

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a folder, from its JSON files alone.

        Raises:
            CorruptionError: a JSON file is malformed, or there is no model.pt.
            UnsafeError: training_state.json names an optimizer file that is no plain name.
        """
        return BundleReader(files)

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write a bundle; the caller commits it.

        Raises:
            UnsupportedError: something is not JSON, training_state.json would reach 1 KB, or a
                state has a name that no file can have.
            UnsafeError: a value could only be read back by running code.
        """
        parts = [(MODEL, contents.model, "the model")]
        if contents.optimizer is not None:
            parts.append((OPTIMIZER, contents.optimizer, "the optimizer"))
        for name, state in contents.states.items():
            parts.append((state_file(name), state, f"the state {name!r}"))
        texts, log = texts_of(contents), log_of(contents)
        check_files(contents.tokenizer_files, contents.tokenizer_state)
        from ckptstore import tensors

        # All is checked before the first byte is written.
        ready = [(file, tensors.checked(state, what)) for file, state, what in parts]
        for file, text in texts.items():
            files.write_text(file, text)
        if log:
            with files.create(METRICS, expected_size=len(log)) as sink:
                sink.write(memoryview(log))
        for file, data in contents.tokenizer_files.items():
            with files.create(file, expected_size=len(data)) as sink:
                sink.lend(memoryview(data))
        # What takes longest to be digested begins first, and the others go on beside it.
        for file, part in sorted(ready, key=lambda item: -item[1].size):
            with files.create(file, expected_size=part.size) as sink:
                part.save(sink)
