"""The folders of torch.distributed.checkpoint: ``.metadata``, and files of slices beside it.

Rule 1: what is there is known from ``.metadata`` alone; of the slices, opening reads a few small
ones, of what is no tensor. Rule 2: a read reads the slices that it needs, and no others. Rule 3:
nothing was committed here by us: each slice's CRCs are checked, and the folder is "not verified".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ckptstore import CorruptionError, NotFoundError, UnsupportedError, ptfile
from ckptstore.formats.base import Files, Format, Reader
from ckptstore.formats.nesting import nested, whole_keys
from ckptstore.later import Opened
from ckptstore.manifest import TensorInfo
from ckptstore.structure import Structure
from ckptstore_dcp.later import later
from ckptstore_dcp.loading import fill, load, look
from ckptstore_dcp.metadata import Chunk, Entry, Item, read_metadata
from ckptstore_dcp.parts import Group, found_in
from ckptstore_dcp.slices import Slices

__all__ = ["DcpFormat"]

METADATA, SUFFIX = ".metadata", ".distcp"
_OF_A_RANK = re.compile(r"__(\d+)\.metadata")
_CONFIG = "config"
_STEPS = (("step",), ("global_step",), ("train_state", "step"))
# Opening a folder reads small reads only.
_MOST_LOOKED_AT, _MOST_LENGTH = 256, 64 * 2**10


class DcpFormat(Format):
    """Reads what `torch.distributed.checkpoint.save` writes, whatever the number of processes."""

    name: ClassVar[str] = "dcp"
    yields_to: ClassVar[tuple[str, ...]] = ("bundle",)

    def matches(self, files: Files) -> bool:
        """Whether there is a ``.metadata``, or one of a rank, and files of slices."""
        names = files.names()
        described = any(name == METADATA or _OF_A_RANK.fullmatch(name) for name in names)
        return described and any(name.endswith(SUFFIX) for name in names)

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a folder.

        Raises:
            CorruptionError: what describes it is damaged.
            UnsafeError: reading it would run code, or lead elsewhere.
            UnsupportedError: it holds no model that could be told from its other parts; or each of
                several processes described its own part.
        """
        return _DcpReader(files)


class _DcpReader(Reader):
    def __init__(self, files: Files) -> None:
        self._files = files
        self._metadata = _metadata_of(files)
        self._where = f"{self._metadata} in {files.location}"
        with files.open(self._metadata) as file:
            data = file.read(ptfile.MOST_PICKLE + 1)
        self._entries = read_metadata(data, self._where)
        self._slices = Slices(files, self._where)
        self._opened = Opened()
        self._parts = found_in(self._entries.values(), self._where)
        self._model = _repaired(self._parts.model)
        self.has_optimizer = bool(self._parts.optimizer)
        looked_at = look(self._worth_a_look(), self._slices)
        self._values = {name: value for name, (_, value) in looked_at.items()}
        self.step = self._step()
        self.config = self._read_config()
        self.training_state, alone = self._fields()
        self._states: dict[str, Group | Entry] = {}
        others: dict[str, Group | Entry] = {**alone, **self._parts.groups}
        for key, part in others.items():
            self._states[_free(_plain(key), {*self._states, "model", "optimizer"})] = part

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, from the metadata alone."""
        return self._infos({(name,): entry for name, entry in self._model.items()})

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a state; objects that hold some are read."""
        if part == "optimizer":
            return self._infos(self._parts.optimizer)
        state = self._states.get(part)
        if state is None:
            return {}
        return self._infos({(): state} if isinstance(state, Entry) else state)

    def structure(self) -> dict[str, Structure]:
        """Return what is known of the optimizer: its groups, and what it keeps."""
        if not self.has_optimizer:
            return {}
        group = self._parts.optimizer
        found = look((entry for entry in group.values() if not entry.is_tensor), self._slices)
        plain = {path: found.get(entry.name, (None, None))[1] for path, entry in group.items()}
        named = {name for pt, _ in found.values() for name in pt.named}
        return {"optimizer": ptfile.structure({}, named, nested(plain, self._where))}

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, put together of their chunks."""
        where = f"the model in {self._files.location}"
        wanted = ptfile.chosen(self._model, names, where)
        loaded = self._load(wanted.values(), map_location)
        return {name: loaded[entry.name] for name, entry in wanted.items()}

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict as tensors that are read when they are written."""
        found = self._later(self._model.values())
        return {name: found[entry.name] for name, entry in self._model.items()}

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model, each with its chunks."""
        return fill(self._model, into, self._slices, self._where, atomic)

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict: in DCP's own form, by names, where it was saved so."""
        if not self.has_optimizer:
            return None
        loaded = self._load(self._parts.optimizer.values(), map_location)
        state: dict[str, Any] = whole_keys(self._nested(self._parts.optimizer, loaded))
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the same as tensors that are read when they are written."""
        if not self.has_optimizer:
            return None
        found = self._later(self._parts.optimizer.values())
        state: dict[str, Any] = whole_keys(self._nested(self._parts.optimizer, found))
        return state

    def states(self) -> tuple[str, ...]:
        """Return the names of the other parts."""
        return tuple(self._states)

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return another part, nested as it was."""
        return self._state(name, lambda entries: self._load(entries, map_location))

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        return self._state(name, self._later)

    def _state(self, name: str, values: Callable[[Iterable[Entry]], Mapping[str, Any]]) -> Any:
        if name not in self._states:
            there = ", ".join(map(repr, self._states)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        state = self._states[name]
        if isinstance(state, Entry):
            return values([state])[state.name]
        return self._nested(state, values(state.values()))

    def files(self) -> tuple[str, ...]:
        """Return the metadata, and the files of slices that are there."""
        named = {item.file for item in self._items().values()}
        return (self._metadata, *sorted(named & {*self._files.names()}))

    def prove(self, name: str, chosen: Callable[[Sequence[Any]], Sequence[Any]]) -> str | None:
        """Check that all slices are where they should be, and of a file their CRCs."""
        if name == self._metadata:
            return self._prove_metadata()
        own = {item: called for called, item in self._items().items() if item.file == name}
        plain = [item for item in sorted(own, key=lambda item: item.offset) if not item.transforms]
        picked = chosen(plain) if plain else plain
        for item, file in self._slices.opened(picked):
            ptfile.check_records(file, f"{own[item]} in {name} in {self._files.location}")
        left = f", {len(own) - len(plain)} are compressed" if len(plain) < len(own) else ""
        return f"no manifest; the CRCs of {len(picked)} of its {len(own)} slices are right{left}"

    def _prove_metadata(self) -> str:
        for entry in self._entries.values():
            if entry.is_tensor:
                entry.check_covered(self._where)
            for chunk in entry.chunks:
                if chunk.item is not None:
                    self._slices.check(chunk.item)
                elif not entry.is_tensor or math.prod(chunk.sizes) > 0:
                    raise CorruptionError(
                        f"{self._where} is damaged: it does not say where {_called(entry, chunk)} "
                        "is; restore it from a good copy"
                    )
        return f"no manifest; all {len(self._items())} slices that it names are there"

    # -- what is read when it is opened ---------------------------------------------------

    def _worth_a_look(self) -> list[Entry]:
        """Return the small entries that may say what the step, the config and the fields are."""
        parts = self._parts
        config = parts.groups.get(_CONFIG, {})
        worth = [entry for entry in parts.values.values() if not entry.is_tensor]
        worth += [entry for entry in map(self._at, _STEPS) if entry is not None]
        worth += config.values() if len(config) <= _MOST_LOOKED_AT else ()
        by_name = {entry.name: entry for entry in worth if _is_small(entry)}
        return list(by_name.values())[:_MOST_LOOKED_AT]

    def _at(self, path: tuple[str, ...]) -> Entry | None:
        if len(path) == 1:
            return self._parts.values.get(path[0])
        return self._parts.groups.get(path[0], {}).get(path[1:])

    def _step(self) -> int | None:
        for entry in map(self._at, _STEPS):
            value = None if entry is None else self._values.get(entry.name)
            if type(value) is int:
                return value
        return None

    def _read_config(self) -> dict[str, Any] | None:
        """Return the part that is called so, where it is a JSON object; it is no state then."""
        alone = self._parts.values.get(_CONFIG)
        group = self._parts.groups.get(_CONFIG, {})
        if alone is not None:
            plain = ptfile.as_json(self._values.get(alone.name))
        elif group and all(entry.name in self._values for entry in group.values()):
            values = {path: self._values[entry.name] for path, entry in group.items()}
            plain = ptfile.as_json(nested(values, self._where))
        else:
            return None
        if not isinstance(plain, dict):
            return None
        self._parts.groups.pop(_CONFIG, None)
        self._parts.values.pop(_CONFIG, None)
        return plain

    def _fields(self) -> tuple[dict[str, Any] | None, dict[str, Entry]]:
        """Return the fields of the training state, and what stands by itself and is none."""
        alone = dict(self._parts.values)
        if "step" in alone and self._values.get(alone["step"].name) == self.step is not None:
            del alone["step"]
        plain = {
            key: self._values[entry.name]
            for key, entry in alone.items()
            if entry.name in self._values and not entry.is_tensor
        }
        # Dicts are parts like those that newer versions take apart, though they are one object.
        plain = {key: value for key, value in plain.items() if not isinstance(value, dict)}
        step = {} if self.step is None else {"step": self.step}
        fields, _ = ptfile.parted(plain, step, step)
        return fields or None, {key: one for key, one in alone.items() if key not in fields}

    # -- reading ----------------------------------------------------------------------------

    def _load(self, entries: Iterable[Entry], map_location: Any) -> dict[str, Any]:
        return load(entries, self._slices, self._where, map_location)

    def _later(self, entries: Iterable[Entry]) -> dict[str, Any]:
        return later(entries, self._slices, self._opened, self._where)

    def _nested(self, group: Group, values: Mapping[str, Any]) -> Any:
        return nested({path: values[entry.name] for path, entry in group.items()}, self._where)

    def _infos(self, group: Group) -> dict[str, TensorInfo]:
        """Return the tensors of a part, those within objects too."""
        objects = look((entry for entry in group.values() if not entry.is_tensor), self._slices)
        infos: dict[str, TensorInfo] = {}
        for path, entry in group.items():
            name = ".".join(map(str, path))
            if entry.is_tensor:
                infos[name] = TensorInfo(entry.dtype, entry.shape, entry.nbytes)
            elif entry.name in objects:
                for inner, info in objects[entry.name][0].tensors.items():
                    infos[".".join(filter(None, (name, inner)))] = info
        return infos

    def _items(self) -> dict[str, Item]:
        """Return every slice, by what to call it."""
        return {
            _called(entry, chunk): chunk.item
            for entry in self._entries.values()
            for chunk in entry.chunks
            if chunk.item is not None
        }


def _called(entry: Entry, chunk: Chunk) -> str:
    at = f" at {list(chunk.offsets)}" if len(entry.chunks) > 1 else ""
    return f"{entry.name!r}{at}"


def _metadata_of(files: Files) -> str:
    """Return the name of the file that describes all.

    Raises:
        UnsupportedError: there are several, each of a process that saved without the others.
    """
    names = files.names()
    if METADATA in names:
        return METADATA
    own = [name for name in names if _OF_A_RANK.fullmatch(name)]
    if not own:
        raise CorruptionError(f"{files.location} has no {METADATA}, so nothing says what it holds")
    if len(own) > 1:
        raise UnsupportedError(
            f"{files.location} was saved by {len(own)} processes without each other "
            f"({', '.join(own[:3])}, …), and nothing says what the whole is; save with "
            "use_collectives=True, or open the folder of one process"
        )
    return own[0]


def _repaired(model: Mapping[str, Entry]) -> dict[str, Entry]:
    names = ptfile.repaired_names(model)
    return {names[name]: entry for name, entry in model.items()}


def _is_small(entry: Entry) -> bool:
    """Whether an entry is one that may be looked at when a folder is opened."""
    item = entry.chunks[0].item if len(entry.chunks) == 1 else None
    is_small = item is not None and item.length <= _MOST_LENGTH and not item.transforms
    return is_small and not entry.shape


def _plain(key: str) -> str:
    """Return a key as a name that a state can have."""
    (name,) = ptfile.parted({key: float("nan")}, (), {})[1]
    return name


def _free(name: str, taken: Container[str]) -> str:
    while name in taken:
        name += "_"
    return name
