"""The legacy single file: ``latest.pt``, ``final.pt``, or any `.pt` that a location names.

It holds ``{"model_state_dict", "config", "tokenizer", "step", "optimizer_state_dict"}``, of which
every key but the first may be missing or None, and sometimes more: a further state stands under
``<name>_state_dict``, and a field of the training state under its own name. Everything but the
weights comes out of its pickle without torch, and the weights come record by record, so that the
optimizer's bytes are not read with them. What is written is a new file; saves write bundles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from ckptstore import ptfile
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    UnsupportedError,
)
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.later import Opened
from ckptstore.manifest import TensorInfo
from ckptstore.structure import Structure

__all__ = ["LegacyFormat"]

_NAMES = ("latest.pt", "final.pt")
_ENDINGS = (".pt", ".pth")
_STATE = "_state_dict"
_MODEL, _OPTIMIZER = f"model{_STATE}", f"optimizer{_STATE}"
_KNOWN = (_MODEL, _OPTIMIZER, "config", "tokenizer", "step")
# One persistent mask for each attention head: no parameter, and made anew by the model.
_MASK = re.compile(r"blocks\.\d+\.sa\.heads\.\d+\.tril")


class LegacyFormat(Format):
    """Reads and writes single files, as the code base that came before bundles had them."""

    name: ClassVar[str] = "legacy"
    writable: ClassVar[bool] = True
    one_file: ClassVar[str | None] = _NAMES[0]
    takes_later: ClassVar[bool] = True
    yields_to: ClassVar[tuple[str, ...]] = ("bundle",)

    def matches(self, files: Files) -> bool:
        """Whether there is a latest.pt or final.pt, or the location names such a file."""
        names = files.names()
        if any(name in names for name in _NAMES):
            return True
        if files.named is None:
            return False
        try:
            root = _read(files, files.named).root
        except CkptstoreError:
            # Whoever opens it is told what is wrong with it.
            return files.named.endswith(_ENDINGS)
        return isinstance(root, dict) and (_MODEL in root or _is_state_dict(root))

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a single file.

        Raises:
            NotFoundError: there is none of the files.
            CorruptionError: the file is damaged, or holds no weights.
            UnsafeError: it holds more than tensors, numbers, text and containers of these.
        """
        names = files.names()
        name = files.named or next((name for name in _NAMES if name in names), None)
        if name is None:
            raise NotFoundError(f"{files.location} has neither latest.pt nor final.pt")
        return _LegacyReader(files, name)

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write one file with everything; the caller says what it is called.

        Raises:
            UnsupportedError: a field or a state cannot be told from the file's own keys, or what
                should be JSON is more than that.
            UnsafeError: a value could only be read back by running code.
        """
        root = _root_of(contents)
        from ckptstore import tensors

        part = tensors.checked(root, "the checkpoint")
        with files.create(_NAMES[0], expected_size=part.size) as sink:
            part.save(sink)


class _LegacyReader(Reader):
    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._name = name
        self._where = f"{name} in {files.location}"
        self._open = partial(files.open, name)
        self._opened = Opened()
        self._pt = _read(files, name)
        root = self._pt.root
        if not isinstance(root, dict):
            raise CorruptionError(f"{self._where} holds a {type(root).__name__}, not a checkpoint")
        bare = _MODEL not in root
        if bare and not (files.named and _is_state_dict(root)):
            held = ", ".join(map(repr, list(root)[:8])) or "nothing"
            raise CorruptionError(
                f"{self._where} holds no {_MODEL!r}, so it is no legacy checkpoint; it holds {held}"
            )
        self._model: Callable[[Any], Any] = _weights if bare else _weights_within
        if not isinstance(root.get(_MODEL, root), Mapping):
            raise CorruptionError(f"{self._where} has a {_MODEL!r} that is no dict of tensors")
        self._extra: dict[str, str] = {}
        if not bare:
            self._read_fields(root)

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, from the file's directory and pickle."""
        return ptfile.infos(self._stubs(), self._pt.records)

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a further key."""
        key = _OPTIMIZER if part == "optimizer" else self._extra.get(part)
        inner = self._pt.root.get(key) if key is not None else None
        if inner is None:
            return {}
        return ptfile.infos(ptfile.flattened(inner, self._where), self._pt.records)

    def structure(self) -> dict[str, Structure]:
        """Return what the pickle says of the model and of the optimizer."""
        named = self._pt.named
        found = {"model": ptfile.structure(self._stubs(), named, None)}
        if self.has_optimizer:
            found["optimizer"] = ptfile.structure({}, named, self._pt.root[_OPTIMIZER])
        return found

    def _stubs(self) -> dict[str, ptfile.TensorStub]:
        model = self._model(self._pt.root)
        return {n: stub for n, stub in model.items() if isinstance(stub, ptfile.TensorStub)}

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, without masks and prefixes."""
        state: dict[str, Any] = self._load(self._model, names=names, map_location=map_location)
        return state

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the file."""
        state: dict[str, Any] = self._load(self._model, names=names, mmap=True, prove=prove)
        return state

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model with those of the file."""
        from ckptstore import tensors

        with self._files.open(self._name) as file:
            return tensors.fill(
                file,
                into,
                part=self._model,
                proved=self._files.manifest is not None,
                atomic=atomic,
                where=self._where,
            )

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict as tensors that are read when they are written."""
        state: dict[str, Any] | None = self._later(self._model)
        return state

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where there is none."""
        if not self.has_optimizer:
            return None
        state: dict[str, Any] = self._load(_optimizer, map_location=map_location)
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the same as tensors that are read when they are written."""
        state: dict[str, Any] | None = self._later(_optimizer) if self.has_optimizer else None
        return state

    def states(self) -> tuple[str, ...]:
        """Return the names of further keys that are too large for JSON, or hold tensors."""
        return tuple(self._extra)

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return what stands under a further key."""
        return self._load(self._state(name), map_location=map_location)

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        part = self._state(name)
        state = self._later(part)
        return self._load(part) if state is None else state

    def _state(self, name: str) -> Callable[[Any], Any]:
        if name not in self._extra:
            there = ", ".join(map(repr, self._extra)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._where}; it has {there}")
        return itemgetter(self._extra[name])

    def files(self) -> tuple[str, ...]:
        """Return the one file."""
        return (self._name,)

    def _read_fields(self, root: Mapping[Any, Any]) -> None:
        self.config = self._object(root, "config")
        self.tokenizer_state = self._object(root, "tokenizer")
        self.has_optimizer = root.get(_OPTIMIZER) is not None
        step = root.get("step")
        if step is not None and (not isinstance(step, int) or isinstance(step, bool)):
            raise CorruptionError(f"{self._where} has the step {step!r}, not a whole number")
        self.step = step
        known = {} if step is None else {"step": step}
        fields, self._extra = ptfile.parted(root, _KNOWN, known)
        self.training_state = fields or None

    def _object(self, root: Mapping[Any, Any], key: str) -> dict[str, Any] | None:
        value = root.get(key)
        if value is None:
            return None
        plain = ptfile.as_json(value)
        if not isinstance(plain, dict):
            raise CorruptionError(
                f"{self._where} has a {key!r} that is no JSON object but a {type(value).__name__}"
                + (" of more than JSON has, or of too much" if isinstance(value, dict) else "")
            )
        return plain

    def _load(self, part: Callable[[Any], Any], **options: Any) -> Any:
        from ckptstore import tensors

        with self._files.open(self._name) as file:
            return tensors.load(
                file,
                part=part,
                proved=self._files.manifest is not None,
                where=self._where,
                **options,
            )

    def _later(self, part: Callable[[Any], Any]) -> Any:
        from ckptstore import tensors

        return tensors.later(
            self._open,
            part=part,
            proved=self._files.manifest is not None,
            opened=self._opened,
            where=self._where,
        )


_optimizer = itemgetter(_OPTIMIZER)
_KNOWN_FILES: WeakKeyDictionary[Files, dict[str, ptfile.PtFile]] = WeakKeyDictionary()


def _read(files: Files, name: str) -> ptfile.PtFile:
    """Return what a file holds; to find out whether it is of this format is to read it."""
    known = _KNOWN_FILES.setdefault(files, {})
    if name not in known:
        with files.open(name) as file:
            known[name] = ptfile.read(file, f"{name} in {files.location}")
    return known[name]


def _weights(state: Any) -> dict[str, Any]:
    """Return a state dict as its model has it; of stubs and of tensors alike."""
    found = ptfile.repaired(state)
    for name in [name for name in found if isinstance(name, str) and _MASK.fullmatch(name)]:
        del found[name]
    return found


def _weights_within(root: Any) -> dict[str, Any]:
    return _weights(root[_MODEL])


def _is_state_dict(root: Mapping[Any, Any]) -> bool:
    state = ptfile.unwrapped(root)
    return bool(state) and all(
        isinstance(name, str) and isinstance(value, ptfile.TensorStub)
        for name, value in state.items()
    )


def _root_of(contents: Contents) -> dict[str, Any]:
    """Return the one dict that holds all of a checkpoint.

    Raises:
        UnsupportedError: something of it would be read back as something else.
    """
    root: dict[str, Any] = {_MODEL: contents.model}
    for key, value in (("config", contents.config), ("tokenizer", contents.tokenizer_state)):
        root[key] = None if value is None else dict(value)
        if value is not None and ptfile.as_json(root[key]) is ptfile.NOT_JSON:
            raise UnsupportedError(
                f"the {key} holds more than JSON has, or more than {ptfile.MOST_LETTERS} letters, "
                "and nobody could read it back; shorten it"
            )
    root["step"] = contents.step
    root[_OPTIMIZER] = contents.optimizer
    for name, state in contents.states.items():
        _add(root, name + _STATE, state, f"the state {name!r}")
    for name, field in contents.training_state.items():
        if name != "step":
            _add(root, name, field, f"the field {name!r} of the training state")
    return root


def _add(root: dict[str, Any], key: str, value: Any, what: str) -> None:
    if key in root:
        raise UnsupportedError(
            f"{what} would stand under {key!r}, where a legacy file keeps something else; "
            "give it another name, or choose another format"
        )
    root[key] = value
