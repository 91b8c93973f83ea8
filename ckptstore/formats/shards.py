"""``shards.json``: which tensors a sharded state has, cut into which chunks, and where each is.

    {"shards": 1, "parts": {"model": {"at": ["model"], "tensors": {"w": {
        "dtype": "float32", "shape": [8, 4], "chunks": {
            "0:4, 0:4": "model-00000-of-00002.pt", "4:8, 0:4": "model-00001-of-00002.pt"}}}}}}

A part is the model, the optimizer, or a further state. Within its file a chunk has the name of its
tensor, unless the text says another. Rule 1: what is read is believed only as far as it is checked:
files have plain names, chunks cover their tensor without a gap and without an overlap, and no two
chunks are one record. Rule 2: names within a part, and the paths that they stand for, are unique.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.formats.covering import check_covered
from ckptstore.manifest import MANIFEST, TensorInfo, plain_name
from ckptstore.ptfile import ITEMSIZES
from ckptstore.ptfile.stubs import PACKED
from ckptstore.texts import dump_json

__all__ = [
    "DTYPES",
    "MODEL",
    "OPTIMIZER",
    "SHARDS",
    "Chunk",
    "Part",
    "Path",
    "Tensor",
    "Value",
    "chunk_name",
    "dumped",
    "parsed",
    "text_of",
]

SHARDS = "shards.json"
MODEL, OPTIMIZER = "model", "optimizer"
_VERSION = 1
_MOST_DEPTH, _MOST_LETTERS, _MOST_DIMENSIONS = 64, 4096, 64
_MOST = 2**63 - 1
_SLICE = re.compile(r"(\d{1,19}):(\d{1,19})")

# Those of dense tensors that torch can copy; the others stay values.
_SMALL = {f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)}
DTYPES = frozenset(d for d in {*ITEMSIZES} - {*PACKED} - _SMALL if not d.startswith("q"))

Path = tuple["str | int", ...]


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor, and the record that holds it.

    Attributes:
        offsets: where it begins in the tensor, in elements.
        sizes: of each dimension, in elements.
        file: a plain name.
        key: under which it stands in the file.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    key: str


@dataclass(frozen=True)
class Tensor:
    """A tensor that was cut into chunks.

    Attributes:
        path: to it within its part.
        dtype: torch's name without the prefix.
        shape: of the whole.
        chunks: they cover it exactly; none of no elements.
        same_as: the name of another tensor of the part that is one and the same; it has no chunks.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    same_as: str | None = None

    @property
    def info(self) -> TensorInfo:
        """What is known of it without reading it."""
        return TensorInfo(self.dtype, self.shape, prod(self.shape) * ITEMSIZES[self.dtype])


@dataclass(frozen=True)
class Value:
    """What is no tensor: a number, a text, a list of these.

    Attributes:
        path: to it within its part; where it is empty, this is the part itself, with None where
            its tensors belong.
        file: a plain name.
        key: under which it stands in the file.
    """

    path: Path
    file: str
    key: str


@dataclass(frozen=True)
class Part:
    """The model, the optimizer, or a further state.

    Attributes:
        at: the keys that led to it in what was saved.
        tensors: by name; the names of the model are those of its state dict.
        values: by name.
    """

    at: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)

    def files(self) -> tuple[str, ...]:
        """Return the names of the files that hold it, sorted."""
        named = {chunk.file for tensor in self.tensors.values() for chunk in tensor.chunks}
        return tuple(sorted(named | {value.file for value in self.values.values()}))

    def chunked(self, tensor: Tensor) -> Tensor:
        """Return a tensor that has chunks, for one that is the same as another."""
        return tensor if tensor.same_as is None else self.tensors[tensor.same_as]


def chunk_name(offsets: Sequence[int], sizes: Sequence[int]) -> str:
    """Return a box as it stands in the text, as slices: ``0:4, 8:16``."""
    boxes = zip(offsets, sizes, strict=True)
    return ", ".join(f"{start}:{start + size}" for start, size in boxes)


def dumped(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return the JSON object that says where all is."""
    return {"shards": _VERSION, "parts": {name: _dump(part) for name, part in parts.items()}}


def text_of(parts: Mapping[str, Part]) -> str:
    """Return shards.json, once it is sure that everybody can read it back.

    Raises:
        UnsupportedError: nobody could: a name is too long, for instance.
    """
    raw = dumped(parts)
    text = dump_json(raw)
    try:
        parsed(raw, f"the new {SHARDS}")
    except (CorruptionError, UnsafeError) as error:
        raise UnsupportedError(
            f"this cannot be saved, for nobody could open it: {error}"
        ) from error
    return text


def _dump(part: Part) -> dict[str, Any]:
    return {
        "at": list(part.at),
        "tensors": {
            name: {
                **_dump_path(name, tensor.path),
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                **_dump_chunks(name, tensor),
            }
            for name, tensor in part.tensors.items()
        },
        "values": {
            name: {**_dump_path(name, value.path), "file": value.file, "key": value.key}
            for name, value in part.values.items()
        },
    }


def _dump_path(name: str, path: Path) -> dict[str, Any]:
    return {} if path == (name,) else {"path": list(path)}


def _dump_chunks(name: str, tensor: Tensor) -> dict[str, Any]:
    if tensor.same_as is not None:
        return {"same_as": tensor.same_as}
    chunks = {
        chunk_name(chunk.offsets, chunk.sizes): chunk.file
        if chunk.key == name
        else {"file": chunk.file, "key": chunk.key}
        for chunk in sorted(tensor.chunks, key=lambda chunk: (chunk.offsets, chunk.file))
    }
    return {"chunks": chunks}


def parsed(raw: Mapping[str, Any], where: str) -> dict[str, Part]:
    """Read what `dumped` made, and check every name and number in it.

    Args:
        raw: the JSON object.
        where: what to call the file in errors.

    Raises:
        CorruptionError: it is malformed, contradicts itself, or leaves a part of a tensor out.
        UnsafeError: a file's name leads elsewhere.
        UnsupportedError: a newer ckptstore wrote it.
    """
    version = raw.get("shards")
    if type(version) is int and version > _VERSION:
        raise UnsupportedError(
            f"{where} has version {version}, this ckptstore reads up to {_VERSION}; install a "
            "newer ckptstore"
        )
    try:
        if type(version) is not int or version != _VERSION:
            raise ValueError(f"its version is {version!r}")
        parts = {_text(name): _load(part, where) for name, part in _items(raw["parts"])}
        _check_unique(parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptionError(
            f"{where} is damaged: {type(error).__name__} {error}; restore it from a good copy"
        ) from error
    for name, part in parts.items():
        for called, tensor in part.tensors.items():
            if tensor.same_as is None:
                check_covered(f"{name}.{called}", tensor.shape, tensor.chunks, where)
    return parts


def _load(raw: Mapping[str, Any], where: str) -> Part:
    part = Part(
        at=tuple(map(_text, _list(raw["at"]))),
        tensors={_text(n): _load_tensor(n, t, where) for n, t in _items(raw["tensors"])},
        values={
            _text(n): Value(_load_path(n, v), _file(v["file"], where), _text(v["key"]))
            for n, v in _items(raw["values"])
        },
    )
    if len(part.at) > _MOST_DEPTH:
        raise ValueError("a part deeper than any state dict")
    for name, tensor in part.tensors.items():
        if tensor.same_as is not None:
            other = part.tensors[tensor.same_as]
            if other.same_as is not None or _form(other) != _form(tensor):
                raise ValueError(f"{name!r} cannot be the same as {tensor.same_as!r}")
    return part


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape


def _load_tensor(name: str, raw: Mapping[str, Any], where: str) -> Tensor:
    shape = tuple(map(_count, _list(raw["shape"])))
    dtype = _text(raw["dtype"])
    if dtype not in DTYPES:
        raise ValueError(f"{name!r} has the dtype {dtype!r}, which is unknown")
    if len(shape) > _MOST_DIMENSIONS or prod(shape) * ITEMSIZES[dtype] > _MOST:
        raise ValueError(f"{name!r} has a shape that no tensor can have")
    same = raw.get("same_as")
    chunks = () if same is not None else tuple(_load_chunks(name, raw["chunks"], where))
    return Tensor(
        _load_path(name, raw), dtype, shape, chunks, None if same is None else _text(same)
    )


def _load_chunks(name: str, raw: Any, where: str) -> Iterator[Chunk]:
    for box, place in _items(raw):
        slices = [_SLICE.fullmatch(one) for one in box.split(", ")] if box else []
        bounds = [(int(found[1]), int(found[2])) for found in slices if found is not None]
        if len(bounds) < len(slices) or any(start > end or end > _MOST for start, end in bounds):
            raise ValueError(f"{name!r} has a chunk {box[:80]!r}, which is no box of a tensor")
        file, key = (place, name) if isinstance(place, str) else (place["file"], place["key"])
        yield Chunk(
            tuple(start for start, _ in bounds),
            tuple(end - start for start, end in bounds),
            _file(file, where),
            _text(key),
        )


def _load_path(name: str, raw: Mapping[str, Any]) -> Path:
    if "path" not in raw:
        return (name,)
    path = _list(raw["path"])
    if len(path) > _MOST_DEPTH:
        raise ValueError(f"{name!r} lies deeper than any state dict")
    return tuple(_count(key) if type(key) is int else _text(key) for key in path)


def _file(name: object, where: str) -> str:
    plain = plain_name(name, where)
    if not plain.endswith(".pt") or plain == MANIFEST:
        raise ValueError(f"{plain!r} is no file of tensors")
    return plain


def _check_unique(parts: Mapping[str, Part]) -> None:
    records: set[tuple[str, str]] = set()
    names: set[str] = set()
    for part in parts.values():
        entries: list[Tensor | Value] = [*part.tensors.values(), *part.values.values()]
        for entry in entries:
            name = ".".join(map(str, (*part.at, *entry.path)))
            if name in names:
                raise ValueError(f"{name!r} stands there twice")
            names.add(name)
            for place in entry.chunks if isinstance(entry, Tensor) else (entry,):
                if (place.file, place.key) in records:
                    raise ValueError(f"{place.key!r} in {place.file} is used twice")
                records.add((place.file, place.key))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} where an object belongs")
    return iter(value.items())


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} where a list belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_LETTERS:
        raise TypeError(f"{str(value)[:80]!r} is no name")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise TypeError(f"{str(value)[:80]!r} is no count")
    return value
