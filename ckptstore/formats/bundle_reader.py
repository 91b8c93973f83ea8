"""What the bundle makes of the files of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, NotFoundError
from ckptstore.formats.base import Files
from ckptstore.formats.bundle_texts import ENDING, MODEL, OPTIMIZER
from ckptstore.formats.reading import NamingReader
from ckptstore.later import Opened
from ckptstore.manifest import FileEntry, TensorInfo
from ckptstore.structure import Structure

__all__ = ["BundleReader"]


class BundleReader(NamingReader):
    """Reads a bundle.

    Args:
        files: of the folder.
    """

    ENDING = ENDING
    MODEL = MODEL
    OPTIMIZER = OPTIMIZER

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._known: dict[str, ptfile.PtFile] = {}
        self._opened_later = Opened()

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors: from the manifest, or from the directory of model.pt."""
        self._require(MODEL)
        return dict(ptfile.repaired(self._index(MODEL)))

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a state."""
        name = self._parts().get(part)
        return dict(self._index(name)) if name in self._names and name is not None else {}

    def _index(self, name: str) -> Mapping[str, TensorInfo]:
        entry = self._entry(name)
        if entry is not None and entry.tensors is not None:
            return entry.tensors
        return self._pt(name).tensors

    def structure(self) -> dict[str, Structure]:
        """Return what the pickles say: from the manifest, or each from its own file."""
        parts = self._parts().items()
        found = {part: self._said(name) for part, name in parts if name in self._names}
        model = found.get("model")
        if model is not None:
            clean = ptfile.repaired_names(name for tie in model.ties for name in tie)
            ties = tuple(tuple(clean[name] for name in tie) for tie in model.ties)
            found["model"] = replace(model, ties=ties)
        return found

    def _said(self, name: str) -> Structure:
        entry = self._entry(name)
        if entry is not None and entry.structure is not None:
            return entry.structure
        return self._pt(name).structure()

    def _entry(self, name: str) -> FileEntry | None:
        manifest = self._files.manifest
        return manifest.files.get(name) if manifest is not None else None

    def _pt(self, name: str) -> ptfile.PtFile:
        """Return what a file says of itself, read once; a manifest that says it spares that."""
        if name not in self._known:
            with self._files.open(name) as file:
                self._known[name] = ptfile.read(file, self._in(name))
        return self._known[name]

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, without prefixes and wrapper."""
        return self._state(names, map_location=map_location)

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into model.pt."""
        return self._state(names, mmap=True, prove=prove)

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model with those of model.pt."""
        from ckptstore import tensors

        self._require(MODEL)
        with self._opened(MODEL) as file:
            return tensors.fill(
                file,
                into,
                part=ptfile.repaired,
                proved=self._files.manifest is not None,
                atomic=atomic,
                where=self._in(MODEL),
            )

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict as tensors that are read when they are written."""
        self._require(MODEL)
        state = self._later(MODEL)
        return None if state is None else ptfile.repaired(self._checked(state))

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where none is named."""
        name = self._optimizer_file()
        if name is None:
            return None
        state: dict[str, Any] = self._load(name, map_location=map_location)
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the same as tensors that are read when they are written."""
        name = self._optimizer_file()
        state: dict[str, Any] | None = None if name is None else self._later(name)
        return state

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state by name."""
        return self._load(self._state_file(name), map_location=map_location)

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        file = self._state_file(name)
        state = self._later(file)
        return self._load(file) if state is None else state

    def _state(self, names: Sequence[str] | None, **options: Any) -> dict[str, Any]:
        self._require(MODEL)
        state = self._checked(self._load(MODEL, names=names, **options))
        return state if names is not None else ptfile.repaired(state)  # type: ignore[return-value]

    def _checked(self, state: Any) -> Mapping[str, Any]:
        if not isinstance(state, Mapping):
            raise CorruptionError(
                f"{self._in(MODEL)} holds a {type(state).__name__}, not a state dict"
            )
        return state

    def _load(self, name: str, **options: Any) -> Any:
        from ckptstore import tensors

        with self._opened(name) as file:
            return tensors.load(
                file,
                proved=self._files.manifest is not None,
                where=self._in(name),
                **options,
            )

    def _later(self, name: str) -> Any:
        from ckptstore import tensors

        return tensors.later(
            partial(self._opened, name),
            proved=self._files.manifest is not None,
            opened=self._opened_later,
            where=self._in(name),
        )

    def _opened(self, name: str) -> BinaryIO:
        try:
            return self._files.open(name)
        except NotFoundError as error:
            if name == MODEL:  # The one file that a checkpoint is nothing without.
                raise CorruptionError(str(error)) from error
            raise

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise CorruptionError(
                f"{self._files.location} has no {name}, which every bundle has; "
                "restore it from a good copy"
            )
