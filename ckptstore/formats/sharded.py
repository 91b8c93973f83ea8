"""The format ``sharded``: a state in the shards that several processes wrote, each its own files.

    shards.json                   for each tensor dtype, shape and chunks, and where each chunk is
    model-00000-of-00004.pt       what rank 0 of 4 holds of the model, by name
    optimizer-00000-of-00004.pt   of the optimizer: tensors, and values such as the learning rate
    other-00000-of-00004.pt       of all else that was saved
    config.json, tokenizer.json, training_state.json, metrics.jsonl, tokenizer.<more>: as a bundle

Each `.pt` is one that plain ``torch.load(..., weights_only=True)`` reads (G1), and holds a flat
dict. It is written by `ckptstore.distributed`, and read by everybody: the whole, a tensor, or, in
another number of processes, the boxes that each of them needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ckptstore import ptfile
from ckptstore.errors import CkptstoreError, CorruptionError, NotFoundError
from ckptstore.formats.base import Contents, Files, Format, NewFiles
from ckptstore.formats.bundle_texts import CONFIG, METRICS, TOKENIZER, TRAINING, log_of, texts_of
from ckptstore.formats.nesting import nested, whole_keys
from ckptstore.formats.reading import TextsReader
from ckptstore.formats.sharding import cut, write_files
from ckptstore.formats.shardreading import ShardFiles
from ckptstore.formats.shards import MODEL, OPTIMIZER, SHARDS, Part, Path, parsed, text_of
from ckptstore.manifest import TensorInfo
from ckptstore.structure import Structure
from ckptstore.texts import parse_json
from ckptstore.tokenizers.files import check_files

__all__ = ["ShardedFormat", "ShardedReader"]


class ShardedFormat(Format):
    """Reads states that were saved in shards, and writes a whole one as shards of bounded size."""

    name: ClassVar[str] = "sharded"
    writable: ClassVar[bool] = True
    takes_later: ClassVar[bool] = True
    texts: ClassVar[tuple[str, ...]] = (CONFIG, TOKENIZER, TRAINING)

    def matches(self, files: Files) -> bool:
        """Whether there is a shards.json of ours."""
        if SHARDS not in files.names():
            return False
        try:
            return "shards" in parse_json(files.text(SHARDS), SHARDS)
        except (CorruptionError, NotFoundError):
            return False

    def read(self, files: Files) -> ShardedReader:
        """Return the checkpoint in a folder, from its JSON files alone.

        Raises:
            CorruptionError: a JSON file is malformed, or says what cannot be.
            UnsafeError: shards.json names a file that is no plain name, or leads elsewhere.
        """
        return ShardedReader(files)

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write a state as files of about 1 GiB each; the caller commits them.

        Raises:
            UnsupportedError: something is not JSON, or has no place in this format.
            UnsafeError: a value could only be read back by running code.
        """
        texts, log = self.texts_of(contents), log_of(contents)
        check_files(contents.tokenizer_files, contents.tokenizer_state)
        parts, new = cut(contents)
        texts[SHARDS] = text_of(parts)
        for file, text in texts.items():
            files.write_text(file, text)
        for file, data in {**({METRICS: log} if log else {}), **contents.tokenizer_files}.items():
            with files.create(file, expected_size=len(data)) as sink:
                sink.write(memoryview(data))
        write_files(new, files)

    @staticmethod
    def texts_of(contents: Contents) -> dict[str, str]:
        """Return config.json, tokenizer.json and training_state.json, which names no files here.

        Raises:
            UnsupportedError: something in them is not JSON, or training_state.json is too large.
        """
        return texts_of(replace(contents, optimizer=None, states={}))


class ShardedReader(TextsReader):
    """Reads one sharded state.

    Args:
        files: of the state.

    Attributes:
        parts: what shards.json says: ``model``, ``optimizer``, and states by name.
        shards: reads chunks.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        if SHARDS not in self._names:
            raise CorruptionError(
                f"{files.location} has no {SHARDS}, so nothing says what it holds"
            )
        self._where = f"{SHARDS} in {files.location}"
        self.parts = parsed(parse_json(files.text(SHARDS), self._where), self._where)
        self._model = self.parts.get(MODEL, Part())
        self.shards = ShardFiles(files, self.parts, self._where)
        self.has_optimizer = OPTIMIZER in self.parts and self._is_there(self.parts[OPTIMIZER])

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, from shards.json alone."""
        return _infos(self._model)

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a state."""
        found = self.parts.get(part)
        return _infos(found) if found is not None and self._is_there(found) else {}

    def structure(self) -> dict[str, Structure]:
        """Return which names are one tensor, and the groups of the optimizer."""
        found = {}
        ties: dict[str, list[str]] = {}
        for name, tensor in self._model.tensors.items():
            if tensor.same_as is not None:
                ties.setdefault(tensor.same_as, [tensor.same_as]).append(name)
        if ties:
            found[MODEL] = Structure(ties=tuple(map(tuple, ties.values())))
        if self.has_optimizer:
            part = self.parts[OPTIMIZER]
            values, named = self.shards.looked(part.values)
            stubs: dict[Any, Any] = {tensor.path: None for tensor in part.tensors.values()}
            by_path = {part.values[name].path: value for name, value in values.items()}
            whole = nested({**stubs, **by_path}, self._where)
            found[OPTIMIZER] = ptfile.structure({}, named, whole)
        return found

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, put together of their chunks."""
        where = f"the model in {self._files.location}"
        entries = {**self._model.tensors, **self._model.values}
        wanted = ptfile.chosen(entries, names, where)
        loaded = self._load(self._model, [*wanted], map_location)
        return {name: loaded[name] for name in wanted}

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model, each with its chunks."""
        tensors = {name: self._model.tensors.get(name) for name in into}
        found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        if len(found) < len(into) or any(
            tensor.shape != tuple(into[name].shape) for name, tensor in found.items()
        ):
            return False
        chunked = {name: self._model.chunked(tensor) for name, tensor in found.items()}
        self._require(self._model)
        if atomic:
            self.shards.prove(chunked.values())
        try:
            self.shards.fill(chunked, into)
        except CkptstoreError as error:
            told = type(error)(
                f"{error}; the model holds a part of what was read by now, so restore it from a "
                "good checkpoint before it is used (atomic=True proves all before anything is "
                "overwritten)"
            )
            told.committed = error.committed
            raise told from error
        return True

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict without reading it."""
        self._require(self._model)
        return self._later(self._model, MODEL)[0]

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict: by names of parameters, where it was saved so."""
        if OPTIMIZER not in self.parts:
            return None
        state: dict[str, Any] = whole_keys(self._nested(self.parts[OPTIMIZER], map_location))
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the optimizer's state dict without reading its tensors."""
        if OPTIMIZER not in self.parts:
            return None
        state: dict[str, Any] = whole_keys(self.state_later(OPTIMIZER))
        return state

    def states(self) -> tuple[str, ...]:
        """Return the names of the other parts."""
        return tuple(name for name in self.parts if name not in (MODEL, OPTIMIZER))

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return another part, nested as it was."""
        return self._nested(self._state(name), map_location)

    def state_later(self, name: str) -> Any:
        """Return another part without reading its tensors."""
        part = self.parts[OPTIMIZER] if name == OPTIMIZER else self._state(name)
        self._require(part)
        by_name, paths = self._later(part, name)
        return nested({paths[name]: value for name, value in by_name.items()}, self._where)

    def files(self) -> tuple[str, ...]:
        """Return the model's files, and all the others that are there or that the manifest has."""
        others = (name for part in self.parts.values() for name in part.files())
        return self._listed(self.weights(), others)

    def weights(self) -> tuple[str, ...]:
        """Return the files that hold the model, and the one that says so."""
        return (*self._model.files(), SHARDS)

    def for_inference(self) -> tuple[str, ...]:
        """Return the model's files, config and tokenizer, with the files that it has."""
        return self._for_inference(self.weights())

    # -- inside -------------------------------------------------------------------------

    def _nested(self, part: Part, map_location: Any) -> Any:
        loaded = self._load(part, [*part.tensors, *part.values], map_location)
        paths = _paths(part)
        return nested({paths[name]: value for name, value in loaded.items()}, self._where)

    def _load(self, part: Part, names: Sequence[str], map_location: Any) -> dict[str, Any]:
        self._require(part)
        chunked = {name: part.chunked(part.tensors[name]) for name in names if name in part.tensors}
        values = {name: part.values[name] for name in names if name in part.values}
        loaded = self.shards.loaded(chunked, map_location)
        return {**loaded, **self.shards.values(values, map_location)}

    def _later(self, part: Part, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        chunked = {name: part.chunked(tensor) for name, tensor in part.tensors.items()}
        later = self.shards.later(chunked)
        return {**later, **self.shards.values(part.values, "cpu")}, _paths(part)

    def _state(self, name: str) -> Part:
        if name not in self.states():
            there = ", ".join(map(repr, self.states())) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        return self.parts[name]

    def _is_there(self, part: Part) -> bool:
        return all(name in self._names for name in part.files())

    def _require(self, part: Part) -> None:
        absent = [name for name in part.files() if name not in self._names]
        if absent and part is self._model:
            raise CorruptionError(
                f"{self._files.location} has no {absent[0]}, which holds a part of the model; "
                "restore it from a good copy"
            )
        if absent:
            raise NotFoundError(
                f"no {absent[0]} in {self._files.location}, though its {SHARDS} names it: an "
                "inference copy; copy that file too, or start without it"
            )


def _infos(part: Part) -> dict[str, TensorInfo]:
    return {name: tensor.info for name, tensor in part.tensors.items()}


def _paths(part: Part) -> dict[str, Path]:
    paths = {name: tensor.path for name, tensor in part.tensors.items()}
    return paths | {name: value.path for name, value in part.values.items()}
