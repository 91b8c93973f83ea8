"""What the format makes of the files of one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

from ckptstore import CorruptionError, NotFoundError, TensorInfo, ptfile
from ckptstore.formats.base import Files
from ckptstore.formats.reading import NamingReader
from ckptstore.later import Later, Opened
from ckptstore.structure import Structure
from ckptstore_safetensors.header import Entry, Header, read_header
from ckptstore_safetensors.names import ENDING, MODEL, OPTIMIZER, TREE

__all__ = ["SafetensorsReader"]


class SafetensorsReader(NamingReader):
    """Reads a bundle, or a single file of weights.

    Args:
        files: of the folder, or the one file.
    """

    ENDING = ENDING
    MODEL = MODEL
    OPTIMIZER = OPTIMIZER

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._headers: dict[str, Header] = {}
        self._open: dict[str, Callable[[], BinaryIO]] = {}
        self._opened_later = Opened()

    # -- without reading weights --------------------------------------------------------

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, from the header of its file."""
        infos = self._header(self._model).infos()
        clean = ptfile.repaired_names(infos)
        return {clean[name]: info for name, info in infos.items()}

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a state."""
        name = self._parts().get(part)
        return self._header(name).infos() if name in self._names and name is not None else {}

    def structure(self) -> dict[str, Structure]:
        """Return which tensors are one and the same, and an optimizer's groups."""
        found = {}
        for part, name in self._parts().items():
            if name not in self._names:
                continue
            header = self._header(name)
            said = None
            # Nothing else has groups, and may be of torch's own types, which take torch to read.
            if part != "model" and '"param_groups"' in header.metadata.get(TREE, ""):
                said = self._planted(name, header, dict.fromkeys(header.all()))
            plain = ptfile.structure({}, (), said)
            clean = ptfile.repaired_names(header.all()) if part == "model" else {}
            ties = tuple(tuple(clean.get(n, n) for n in names) for names in _ties(header))
            found[part] = Structure(ties=ties, groups=plain.groups, slots=plain.slots)
        return found

    # -- reading weights ----------------------------------------------------------------

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it; no other bytes are read."""
        from ckptstore_safetensors.reading import load

        entries, where = self._chosen(names), self._in(self._model)
        with self._opened(self._model) as file:
            return dict(load(file, entries, map_location, where))

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the file."""
        from ckptstore_safetensors.reading import mapped

        entries, where = self._chosen(names), self._in(self._model)
        with self._opened(self._model) as file:
            found = dict(mapped(file, entries, where))
            if prove and self._files.manifest is not None:
                file.prove()  # type: ignore[attr-defined]
        return found

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model, by reading straight into their memory."""
        from ckptstore_safetensors.reading import fill

        entries, where = self._chosen(None), self._in(self._model)
        prove = atomic and self._files.manifest is not None
        with self._opened(self._model) as file:
            return fill(file, entries, into, prove=prove, where=where)

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict as tensors that are read when they are written."""
        return self._later(self._model, self._chosen(None))

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where none is named."""
        name = self._optimizer_file()
        state: dict[str, Any] | None = None if name is None else self._nested(name, map_location)
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the same as tensors that are read when they are written."""
        name = self._optimizer_file()
        state: dict[str, Any] | None = None if name is None else self._nested_later(name)
        return state

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state by name."""
        return self._nested(self._state_file(name), map_location)

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        return self._nested_later(self._state_file(name))

    # -- inside -------------------------------------------------------------------------

    def _chosen(self, names: Sequence[str] | None) -> dict[str, Entry]:
        """Return where the model's tensors are, by the names that the model has for them."""
        entries = self._header(self._model).all()
        clean = ptfile.repaired_names(entries)
        found = {clean[name]: entry for name, entry in entries.items()}
        return ptfile.chosen(found, names, self._in(self._model))

    def _header(self, name: str) -> Header:
        """Return what a file says of itself, read once."""
        if name not in self._headers:
            with self._opened(name) as file:
                self._headers[name] = read_header(file, self._in(name))
        return self._headers[name]

    def _nested(self, name: str, map_location: Any) -> Any:
        from ckptstore_safetensors.reading import load

        header = self._header(name)
        with self._opened(name) as file:
            tensors = load(file, header.all(), map_location, self._in(name))
        # A file that somebody else wrote says nothing more than its tensors.
        return self._planted(name, header, tensors) if TREE in header.metadata else dict(tensors)

    def _nested_later(self, name: str) -> Any:
        header = self._header(name)
        tensors = self._later(name, header.all())
        return self._planted(name, header, tensors) if TREE in header.metadata else tensors

    def _later(self, name: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
        """Return tensors of a file that are read when they are written, each entry once."""
        from ckptstore_safetensors.reading import check_byteorder

        where = self._in(name)
        check_byteorder(where)
        opener = self._open.setdefault(name, partial(self._opened, name))
        ones: dict[Entry, Later] = {}
        for entry in entries.values():
            pieces = partial(self._opened_later.pieces, opener, entry.start, entry.nbytes, where)
            ones.setdefault(entry, Later(entry.dtype, entry.shape, entry.nbytes, pieces))
        return {called: ones[entry] for called, entry in entries.items()}

    def _planted(self, name: str, header: Header, tensors: Mapping[str, Any]) -> Any:
        from ckptstore_safetensors.trees import planted

        where = f"{TREE!r} in the header of {self._in(name)}"
        return planted(header.metadata[TREE], tensors.__getitem__, where)

    def _opened(self, name: str) -> BinaryIO:
        try:
            return self._files.open(name)
        except NotFoundError as error:
            if name == MODEL:  # The one file that a checkpoint is nothing without.
                raise CorruptionError(
                    f"{self._files.location} has no {MODEL}, which every checkpoint of this format "
                    f"has ({error}); restore it from a good copy"
                ) from error
            raise


def _ties(header: Header) -> Iterable[tuple[str, ...]]:
    """Return the groups of names that one tensor goes by."""
    groups: dict[str, list[str]] = {}
    for name, one in header.ties.items():
        groups.setdefault(one, [one]).append(name)
    return map(tuple, groups.values())
