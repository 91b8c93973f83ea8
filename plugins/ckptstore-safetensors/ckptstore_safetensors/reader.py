"""What the format makes of the files of one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

from ckptstore import CorruptionError, NotFoundError, TensorInfo, UnsafeError, ptfile
from ckptstore.formats.base import Files, Reader
from ckptstore.later import Later, Opened
from ckptstore.manifest import plain_name
from ckptstore.structure import Structure
from ckptstore.texts import parse_json, parse_json_lines
from ckptstore.tokenizers.files import carried_in
from ckptstore_safetensors.header import Entry, Header, read_header
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

__all__ = ["SafetensorsReader"]

_MOST_METRICS = 64 * 2**20


class SafetensorsReader(Reader):
    """Reads a bundle, or a single file of weights.

    Args:
        files: of the folder, or the one file.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._names = frozenset(files.names())
        self._model = files.named or MODEL
        self._headers: dict[str, Header] = {}
        self._open: dict[str, Callable[[], BinaryIO]] = {}
        self._opened_later = Opened()
        self._optimizer: str | None = None
        self._states: dict[str, str] = {}
        self._carried: Mapping[str, bytes] = {}
        if files.named is None:
            self._read_texts()

    def _read_texts(self) -> None:
        self.config = self._json(CONFIG)
        self.tokenizer_state = self._json(TOKENIZER)
        if self.tokenizer_state is not None:
            self._carried = carried_in(self._files)
        self.training_state = self._json(TRAINING)
        fields = self.training_state or {}
        self.step = self._step(fields.get("step"))
        optimizer = fields.get(OPTIMIZER_FILE)
        if optimizer is not None:
            self._optimizer = plain_name(optimizer, self._where(TRAINING))
        self.has_optimizer = self._optimizer in self._names
        self._states = {
            name.removesuffix(FILE): value
            for name, value in fields.items()
            if name.endswith(FILE) and name != OPTIMIZER_FILE and _is_state(value)
        }
        for chosen in {self._optimizer, *self._states.values()} & (self._names - {OPTIMIZER}):
            self._check_inside(str(chosen))

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

    def states(self) -> tuple[str, ...]:
        """Return the names of the further states."""
        return tuple(self._states)

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """Return the files beside tokenizer.json that have its name and another ending."""
        return self._carried

    def files(self) -> tuple[str, ...]:
        """Return the files that are there, and those that the manifest has besides."""
        if self._files.named is not None:
            return (self._model,)
        named = [MODEL, CONFIG, TOKENIZER, *self._carried, TRAINING]
        if self._optimizer is not None:
            named.append(self._optimizer)
        named += [*self._states.values(), METRICS]
        manifest = self._files.manifest
        listed = {*manifest.texts, *manifest.files} if manifest is not None else set()
        there = [name for name in named if name in self._names or name in listed]
        return tuple(dict.fromkeys([*there, *sorted(listed)]))

    def for_inference(self) -> tuple[str, ...]:
        """Return model, config and tokenizer, with the files that it has."""
        if self._files.named is not None:
            return ()
        there = tuple(name for name in (MODEL, CONFIG, TOKENIZER) if name in self._names)
        return (*there, *self._carried)

    # -- reading weights ----------------------------------------------------------------

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it; no other bytes are read."""
        from ckptstore_safetensors.reading import load

        entries, where = self._chosen(names), self._where(self._model)
        with self._opened(self._model) as file:
            return dict(load(file, entries, map_location, where))

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the file."""
        from ckptstore_safetensors.reading import mapped

        entries, where = self._chosen(names), self._where(self._model)
        with self._opened(self._model) as file:
            found = dict(mapped(file, entries, where))
            if prove and self._files.manifest is not None:
                file.prove()  # type: ignore[attr-defined]
        return found

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model, by reading straight into their memory."""
        from ckptstore_safetensors.reading import fill

        entries, where = self._chosen(None), self._where(self._model)
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

    def _optimizer_file(self) -> str | None:
        if self._optimizer is not None and not self.has_optimizer:
            raise NotFoundError(
                f"no {self._optimizer} in {self._files.location}, though its {TRAINING} names it: "
                "an inference copy; copy that file too, or start with a fresh optimizer"
            )
        return self._optimizer

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state by name."""
        return self._nested(self._state_file(name), map_location)

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        return self._nested_later(self._state_file(name))

    def _state_file(self, name: str) -> str:
        if name not in self._states:
            there = ", ".join(map(repr, self._states)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        file = self._states[name]
        if file not in self._names:
            raise NotFoundError(
                f"no {file} in {self._files.location}, though its {TRAINING} names it; "
                "copy that file too"
            )
        return file

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return what metrics.jsonl holds; nothing where there is none."""
        manifest = self._files.manifest
        if METRICS not in (self._names if manifest is None else manifest.files):
            return ()
        with self._files.open(METRICS) as file:
            data = file.read(_MOST_METRICS + 1)
        where = self._where(METRICS)
        if len(data) > _MOST_METRICS:
            raise CorruptionError(f"{where} is larger than {_MOST_METRICS // 2**20} MiB; not read")
        return parse_json_lines(data, where)

    # -- inside -------------------------------------------------------------------------

    def _parts(self) -> dict[str, str]:
        """Return the file of each part."""
        optimizer = {"optimizer": self._optimizer} if self.has_optimizer and self._optimizer else {}
        return {"model": self._model, **optimizer, **self._states}

    def _chosen(self, names: Sequence[str] | None) -> dict[str, Entry]:
        """Return where the model's tensors are, by the names that the model has for them."""
        entries = self._header(self._model).all()
        clean = ptfile.repaired_names(entries)
        found = {clean[name]: entry for name, entry in entries.items()}
        return ptfile.chosen(found, names, self._where(self._model))

    def _header(self, name: str) -> Header:
        """Return what a file says of itself, read once."""
        if name not in self._headers:
            with self._opened(name) as file:
                self._headers[name] = read_header(file, self._where(name))
        return self._headers[name]

    def _nested(self, name: str, map_location: Any) -> Any:
        from ckptstore_safetensors.reading import load

        header = self._header(name)
        with self._opened(name) as file:
            tensors = load(file, header.all(), map_location, self._where(name))
        # A file that somebody else wrote says nothing more than its tensors.
        return self._planted(name, header, tensors) if TREE in header.metadata else dict(tensors)

    def _nested_later(self, name: str) -> Any:
        header = self._header(name)
        tensors = self._later(name, header.all())
        return self._planted(name, header, tensors) if TREE in header.metadata else tensors

    def _later(self, name: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
        """Return tensors of a file that are read when they are written, each entry once."""
        from ckptstore_safetensors.reading import check_byteorder

        where = self._where(name)
        check_byteorder(where)
        opener = self._open.setdefault(name, partial(self._opened, name))
        ones: dict[Entry, Later] = {}
        for entry in entries.values():
            pieces = partial(self._opened_later.pieces, opener, entry.start, entry.nbytes, where)
            ones.setdefault(entry, Later(entry.dtype, entry.shape, entry.nbytes, pieces))
        return {called: ones[entry] for called, entry in entries.items()}

    def _planted(self, name: str, header: Header, tensors: Mapping[str, Any]) -> Any:
        from ckptstore_safetensors.trees import planted

        where = f"{TREE!r} in the header of {self._where(name)}"
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

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self._names:
            return None
        return parse_json(self._files.text(name), self._where(name))

    def _step(self, value: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise CorruptionError(
            f"{self._where(TRAINING)} has the step {value!r}, not a whole number; correct it"
        )

    def _check_inside(self, name: str) -> None:
        """Refuse a file that data chose, where it is a link to somewhere outside (G5)."""
        if self._files.leads_out(name):
            raise UnsafeError(
                f"{self._where(TRAINING)} names {name!r}, a link that leads out of "
                f"{self._files.location}; not followed, put the file itself in its place"
            )

    def _where(self, name: str) -> str:
        return f"{name} in {self._files.location}"


def _is_state(value: Any) -> bool:
    """Whether a field ``<name>_file`` names a file of ours, or is about something else."""
    try:
        file = plain_name(value, TRAINING)
    except UnsafeError:
        return False
    return file.endswith(ENDING) and file not in (MODEL, OPTIMIZER)


def _ties(header: Header) -> Iterable[tuple[str, ...]]:
    """Return the groups of names that one tensor goes by."""
    groups: dict[str, list[str]] = {}
    for name, one in header.ties.items():
        groups.setdefault(one, [one]).append(name)
    return map(tuple, groups.values())
