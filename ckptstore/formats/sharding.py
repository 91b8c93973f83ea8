"""A whole state cut into files of bounded size, for the format ``sharded``.

Rule 1: a tensor is never cut, so that a file has 1 GiB, or one tensor that is larger. Rule 2: what
is no dense tensor of a plain path stays in its frame, a value beside the tensors. Rule 3: two names
of one tensor of the model are written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ckptstore.errors import UnsupportedError
from ckptstore.formats.base import Contents, NewFiles
from ckptstore.formats.nesting import framed
from ckptstore.formats.shards import DTYPES, MODEL, OPTIMIZER, Chunk, Part, Path, Tensor, Value
from ckptstore.later import Later
from ckptstore.ptfile import ITEMSIZES

__all__ = ["NewFile", "cut", "file_name", "write_files"]

MOST_BYTES = 2**30
_OTHER = "other"


@dataclass
class NewFile:
    """A file that is to be written.

    Attributes:
        stem: what it is called, but for its number.
        held: what it will hold, by key.
        size: bytes of the tensors in it.
    """

    stem: str
    held: dict[str, Any] = field(default_factory=dict)
    size: int = 0


def file_name(stem: str, number: int, count: int) -> str:
    """Return the name of one of several files of one kind: ``model-00000-of-00004.pt``."""
    return f"{stem}-{number:05d}-of-{count:05d}.pt"


def cut(contents: Contents) -> tuple[dict[str, Part], Mapping[str, NewFile]]:
    """Return what shards.json is to say of a state, and its files by name.

    Raises:
        UnsupportedError: a name is no text.
    """
    shelf = _Shelf()
    parts = {MODEL: _model(contents.model, shelf)}
    if contents.optimizer is not None:
        parts[OPTIMIZER] = _nested(OPTIMIZER, contents.optimizer, OPTIMIZER, "", shelf)
    for name, state in contents.states.items():
        if name in parts:
            raise UnsupportedError(
                f"a state cannot be called {name!r}, for another part is; choose another name"
            )
        parts[name] = _nested(name, state, _OTHER, name, shelf)
    names = shelf.names()
    return (
        {name: _named(part, names) for name, part in parts.items()},
        {names[id(new)]: new for new in shelf.files()},
    )


def write_files(new: Mapping[str, NewFile], files: NewFiles) -> None:
    """Write files; all are checked before the first byte is written.

    Raises:
        UnsafeError, UnsupportedError: a value could not be read back safely.
    """
    from ckptstore import tensors

    ready = [(name, tensors.checked(file.held, f"{name} of it")) for name, file in new.items()]
    for name, part in ready:
        with files.create(name, expected_size=part.size) as sink:
            part.save(sink)


class _Shelf:
    """The files of each stem; the last one is filled until it has 1 GiB."""

    def __init__(self) -> None:
        self._files: dict[str, list[NewFile]] = {}

    def put(self, stem: str, key: str, value: Any, size: int = 0) -> NewFile:
        """Put something into a file, and return which."""
        row = self._files.setdefault(stem, [NewFile(stem)])
        file = row[-1] if size else row[0]
        if file.size and size and file.size + size > MOST_BYTES:
            file = NewFile(stem)
            row.append(file)
        file.held[key] = value
        file.size += size
        return file

    def files(self) -> Iterator[NewFile]:
        """Return all files, in the order of their names."""
        for row in self._files.values():
            yield from row

    def names(self) -> dict[int, str]:
        """Return the name of each file, by its identity."""
        return {
            id(file): file_name(stem, number, len(row))
            for stem, row in self._files.items()
            for number, file in enumerate(row)
        }


def _named(part: Part, names: Mapping[int, str]) -> Part:
    """Return a part that names the files that had no names yet."""
    tensors = {
        name: Tensor(
            tensor.path,
            tensor.dtype,
            tensor.shape,
            tuple(
                Chunk(chunk.offsets, chunk.sizes, names[int(chunk.file)], chunk.key)
                for chunk in tensor.chunks
            ),
            tensor.same_as,
        )
        for name, tensor in part.tensors.items()
    }
    values = {
        name: Value(value.path, names[int(value.file)], value.key)
        for name, value in part.values.items()
    }
    return Part(part.at, tensors, values)


def _model(state: Mapping[str, Any], shelf: _Shelf) -> Part:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Value] = {}
    seen: dict[Any, str] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise UnsupportedError(
                f"the model has a tensor called {name!r}, and names of this format are text; save "
                "it as a bundle"
            )
        form = _form(value)
        if form is None:
            file = shelf.put(MODEL, name, value)
            values[name] = Value((name,), str(id(file)), name)
            continue
        tied = _identity(value)
        first = seen.setdefault(tied, name) if tied is not None else name
        if first != name:
            tensors[name] = Tensor((name,), *form, (), same_as=first)
        else:
            tensors[name] = _put(shelf, MODEL, name, (name,), value, form)
    return Part((MODEL,), tensors, values)


def _nested(name: str, state: Any, stem: str, prefix: str, shelf: _Shelf) -> Part:
    """Cut a nested state: its tensors by their paths, and a frame that holds the rest."""
    taken: set[str] = set()

    def is_apart(value: Any, path: Path) -> bool:
        if _form(value) is None or _joined("", path) in taken:
            return False
        taken.add(_joined("", path))
        return True

    frame, found = framed(state, is_apart)
    tensors = {}
    for path, value in found.items():
        form = _form(value)
        if form is not None:
            key = _joined(prefix, path)
            tensors[_joined("", path)] = _put(shelf, stem, key, path, value, form)
    values = {}
    if () not in found:
        key = _joined(prefix, ("frame",))
        while key in {_joined(prefix, path) for path in found}:
            key += "_"
        values[""] = Value((), str(id(shelf.put(stem, key, frame))), key)
    return Part((name,), tensors, values)


def _put(
    shelf: _Shelf, stem: str, key: str, path: Path, value: Any, form: tuple[str, tuple[int, ...]]
) -> Tensor:
    dtype, shape = form
    if not prod(shape):
        return Tensor(path, dtype, shape, ())
    size = prod(shape) * ITEMSIZES[dtype]
    held = value if isinstance(value, Later) else value.detach()
    file = shelf.put(stem, key, held, size)
    # Files have names once it is known how many there are; until then, numbers.
    return Tensor(path, dtype, shape, (Chunk((0,) * len(shape), shape, str(id(file)), key),))


def _joined(prefix: str, path: Path) -> str:
    return ".".join(filter(None, (prefix, *map(str, path))))


def _form(value: Any) -> tuple[str, tuple[int, ...]] | None:
    """Return the dtype and shape of a dense tensor; None for anything else."""
    if isinstance(value, Later):
        return value.dtype, value.shape
    from ckptstore import tensors

    if not hasattr(value, "untyped_storage") or not tensors.is_plain(value):
        return None
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        return None
    return dtype, tuple(value.shape)


def _identity(value: Any) -> Any:
    """Return what two names of one tensor have in common; None where there are no bytes."""
    if isinstance(value, Later):
        return id(value) if value.nbytes else None
    if not value.numel():
        return None
    storage = value.untyped_storage().data_ptr(), value.storage_offset(), str(value.device)
    return (*storage, value.dtype, tuple(value.shape), value.stride())
