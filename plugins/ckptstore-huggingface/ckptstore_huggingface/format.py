"""A model folder as transformers has it.

Read is any: weights in one file or in shards, as safetensors or as torch's own, config.json and
the tokenizer's files, and what a Trainer leaves beside them in its ``checkpoint-N``. Written is the
GPT-2 family, so that ``GPT2LMHeadModel.from_pretrained`` computes what the model's own code does.
"""

from __future__ import annotations

from typing import ClassVar

from ckptstore import CorruptionError, UnsupportedError
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.texts import dump_json
from ckptstore_huggingface import tokenizers
from ckptstore_huggingface.names import BIN, BIN_INDEX, CONFIG, GENERATION, TENSORS, TENSORS_INDEX
from ckptstore_huggingface.texts import read_json

__all__ = ["HuggingFaceFormat"]

_BUNDLES = "training_state.json"


class HuggingFaceFormat(Format):
    """Reads model folders of Hugging Face; writes the GPT-2 family."""

    name: ClassVar[str] = "huggingface"
    writable: ClassVar[bool] = True
    own_folder: ClassVar[bool] = True
    texts: ClassVar[tuple[str, ...]] = (CONFIG, GENERATION)

    def matches(self, files: Files) -> bool:
        """Whether the weights' names are transformers' own, or its config.json lies beside them."""
        names = files.names()
        if files.named is not None or _BUNDLES in names:
            return False
        if any(name in names for name in (TENSORS_INDEX, BIN, BIN_INDEX)):
            return True
        if TENSORS not in names or CONFIG not in names:
            return False
        try:
            config = read_json(files.text(CONFIG), CONFIG)
        except CorruptionError:
            return False  # Whoever reads the weights says what is wrong with it.
        return isinstance(config.get("model_type"), str) or isinstance(
            config.get("architectures"), list
        )

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a folder, from its JSON files and the headers of its weights.

        Raises:
            CorruptionError: a JSON file is malformed, there are no weights, or some are absent.
            UnsafeError: an index names a file outside the folder.
        """
        from ckptstore_huggingface.reader import HuggingFaceReader

        return HuggingFaceReader(files)

    def stored(self, contents: Contents) -> Contents:
        """Return the model as `GPT2LMHeadModel` has it; what else there is has no room.

        Raises:
            UnsupportedError: it is of no family that is written, or not exactly such a model.
        """
        from ckptstore_huggingface.gpt2 import written

        found = written(contents.model, contents.config)
        return Contents(
            model=found.model,
            config=found.config,
            tokenizer_state=tokenizers.stored(contents.tokenizer_state),
        )

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write a model folder; the caller commits it.

        Raises:
            UnsupportedError: as `stored`, or the config is no JSON.
        """
        from ckptstore_safetensors.writing import Planned

        from ckptstore_huggingface.gpt2 import written

        found = written(contents.model, contents.config)
        plan = Planned.of(found.forms, {"format": "pt", **found.ties})
        positions = found.config.get("n_positions")
        others = tokenizers.files_of(
            contents.tokenizer_state, positions if isinstance(positions, int) else None
        )
        try:
            texts = {CONFIG: dump_json(found.config), **others}
        except UnsupportedError as error:
            raise UnsupportedError(f"{CONFIG}: {error}") from error
        for name, text in texts.items():
            if name.endswith(".json"):
                files.write_text(name, text)
                continue
            data = text.encode()
            with files.create(name, expected_size=len(data)) as sink:
                sink.write(memoryview(data))
        with files.create(TENSORS, expected_size=plan.size) as sink:
            plan.write(sink, found.model.__getitem__)
