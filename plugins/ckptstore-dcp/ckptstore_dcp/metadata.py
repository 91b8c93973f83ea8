"""``.metadata``: which tensors a folder holds, cut into which chunks, and where each of them is.

torch pickles an object of its class ``Metadata`` there (torch 2.13, ``distributed/checkpoint``,
``metadata.py`` and ``filesystem.py``), and would run the pickle to read it. Rule 1: here it is read
by an allow-list, into stand-ins (G5). Rule 2: what a stand-in says is believed only as far as it is
checked: files have plain names, and no two slices of a file share a byte, so that nobody can claim
more than there is. Rule 3: fields that a version lacks have the default that torch gives them, and
those that a later one adds are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ckptstore import CorruptionError, UnsupportedError, ptfile
from ckptstore.formats.covering import check_covered
from ckptstore.manifest import plain_name

__all__ = ["Chunk", "Entry", "Item", "read_metadata"]

_HOME = "torch.distributed.checkpoint."
# Where TensorProperties and its enum were before torch 2.3.
_FORMER = "torch.distributed._shard.sharded_tensor.metadata."
_METADATA, _INDEX = f"{_HOME}metadata.Metadata", f"{_HOME}metadata.MetadataIndex"
_TENSOR = f"{_HOME}metadata.TensorStorageMetadata"
_BYTES = f"{_HOME}metadata.BytesStorageMetadata"
_CHUNK = f"{_HOME}metadata.ChunkStorageMetadata"
_PROPERTIES = (f"{_HOME}metadata.TensorProperties", f"{_FORMER}TensorProperties")
_INFO, _SIZE = f"{_HOME}filesystem._StorageInfo", "torch.Size"
_LAYOUT = "torch.serialization._get_layout"
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_NAMES = (
    *(_METADATA, _INDEX, _TENSOR, _BYTES, _CHUNK, *_PROPERTIES, _INFO, _SIZE, _LAYOUT),
    *(f"{_HOME}metadata.StorageMeta", f"{_HOME}metadata._MEM_FORMAT_ENCODING"),
    f"{_FORMER}MEM_FORMAT_ENCODING",
    # Of the folder's own path, which StorageMeta keeps and nobody here looks at.
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"torch.{dtype}" for dtype in ptfile.ITEMSIZES),
)
_MOST = 2**63 - 1
_MOST_DIMENSIONS, _MOST_DEPTH, _MOST_LETTERS = 64, 64, 4096

Path = tuple["str | int", ...]


@dataclass(frozen=True)
class Item:
    """A slice of a file: what `torch.save` made of one chunk, or of one object.

    Attributes:
        file: a plain name.
        offset: where it begins, in bytes.
        length: in bytes.
        transforms: what it went through, such as ``stream.zstd/1``; nothing by default.
    """

    file: str
    offset: int
    length: int
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A box out of a tensor.

    Attributes:
        offsets: where it begins in each dimension.
        sizes: of each dimension.
        item: where its bytes are; None where no slice is named.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    item: Item | None


@dataclass(frozen=True)
class Entry:
    """What was saved under one name: a tensor in chunks, or an object as one slice.

    Attributes:
        name: all keys that lead to it, joined by dots.
        path: these keys; those of lists are numbers.
        dtype: torch's name without the prefix; empty for an object.
        shape: of the whole tensor.
        chunks: of the tensor; of an object one, of no size.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return bool(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of a tensor's elements."""
        return prod(self.shape) * ptfile.ITEMSIZES[self.dtype] if self.dtype else 0

    def check_covered(self, where: str) -> None:
        """Check that its chunks are the whole tensor; see `ckptstore.formats.covering`."""
        check_covered(self.name, self.shape, self.chunks, where, may_be_empty=True)


def read_metadata(data: bytes, where: str) -> dict[str, Entry]:
    """Return what a ``.metadata`` describes, by name and in its order.

    Args:
        data: the file.
        where: what to call it in errors.

    Raises:
        CorruptionError: it is malformed, or contradicts itself.
        UnsafeError: it refers to what is not on the list, or to a file elsewhere.
        UnsupportedError: it is too large, or describes tensors that are not dense.
    """
    root = ptfile.read_pickle(data, where, names=_NAMES)
    try:
        return _Parser(where).parse(root)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(where, f"it is no metadata ({type(error).__name__}: {error})") from error


class _Parser:
    def __init__(self, where: str) -> None:
        self._where = where

    def parse(self, root: Any) -> dict[str, Entry]:
        state = _state(root, _METADATA)
        items = dict(self._items(state["storage_data"]))
        paths = state.get("planner_data")
        if paths is not None and not isinstance(paths, Mapping):
            raise ValueError(f"planner_data is a {type(paths).__name__}, not a dict of paths")
        found = {}
        for name, stored in state["state_dict_metadata"].items():
            path = _path((paths or {}).get(_text(name), (name,)))
            found[name] = self._entry(name, path, stored, items)
        self._check_apart(items)
        return found

    def _entry(
        self,
        name: str,
        path: Path,
        stored: Any,
        items: Mapping[tuple[str, tuple[int, ...] | None], Item],
    ) -> Entry:
        if isinstance(stored, ptfile.Instance) and stored.name == _BYTES:
            return Entry(name, path, "", (), (Chunk((), (), items.get((name, None))),))
        state = _state(stored, _TENSOR)
        shape = _size(state["size"])
        chunks = []
        for each in _list(state["chunks"]):
            box = _state(each, _CHUNK)
            offsets, sizes = _size(box["offsets"]), _size(box["sizes"])
            if not len(offsets) == len(sizes) == len(shape):
                raise ValueError(f"{name!r} has {len(shape)} dimensions, and a chunk of others")
            chunks.append(Chunk(offsets, sizes, items.get((name, offsets))))
        return Entry(name, path, self._dtype(name, state["properties"]), shape, tuple(chunks))

    def _dtype(self, name: str, properties: Any) -> str:
        state = _state(properties, *_PROPERTIES)
        dtype, layout = state[:2] if isinstance(state, tuple) else (state["dtype"], None)
        if layout is not None:
            (called,) = _made(layout, _LAYOUT)
            if _text(called) != "torch.strided":
                raise UnsupportedError(
                    f"{self._where} describes {name!r} in the layout {called}, and tensors that "
                    "are not dense cannot be put together; save it as a dense one"
                )
        if not isinstance(dtype, ptfile.Name):
            raise ValueError(f"{name!r} has a dtype that is none, a {type(dtype).__name__}")
        return dtype.name.removeprefix("torch.")

    def _items(self, stored: Any) -> Iterator[tuple[tuple[str, tuple[int, ...] | None], Item]]:
        for index, info in stored.items():
            of, state = _state(index, _INDEX), _state(info, _INFO)
            offset = of.get("offset")
            transforms = tuple(map(_text, _list(state.get("transform_descriptors") or [])))
            item = Item(
                file=plain_name(_text(state["relative_path"]), self._where),
                offset=_count(state["offset"]),
                length=_count(state["length"]),
                transforms=transforms,
            )
            yield (_text(of["fqn"]), None if offset is None else _size(offset)), item

    def _check_apart(self, items: Mapping[Any, Item]) -> None:
        """Refuse slices of one file that share bytes: torch writes one behind the other."""
        file, end, before = "", 0, ""
        for item, name in sorted(
            ((item, key[0]) for key, item in items.items()),
            key=lambda pair: (pair[0].file, pair[0].offset, pair[0].length),
        ):
            if item.file == file and item.offset < end:
                raise _damaged(
                    self._where,
                    f"the slices of {before!r} and {name!r} in {file} share bytes",
                )
            file, end, before = item.file, item.offset + item.length, name


def _state(value: Any, *names: str) -> Any:
    """Return the attributes of a stand-in of one of these classes."""
    if not isinstance(value, ptfile.Instance) or value.name not in names:
        called = value.name if isinstance(value, ptfile.Instance) else type(value).__name__
        raise ValueError(f"a {called} where a {names[0].rpartition('.')[2]} belongs")
    state = {} if value.state is None else value.state
    if not isinstance(state, (Mapping, tuple)):
        raise ValueError(f"a {value.name} of a {type(state).__name__}")
    return state


def _made(value: Any, name: str) -> tuple[Any, ...]:
    """Return what a stand-in would be made with."""
    if not isinstance(value, ptfile.Instance) or value.name != name:
        raise ValueError(f"a {type(value).__name__} where a {name.rpartition('.')[2]} belongs")
    return value.args


def _size(value: Any) -> tuple[int, ...]:
    (numbers,) = _made(value, _SIZE) or ((),)
    if not isinstance(numbers, (tuple, list)) or len(numbers) > _MOST_DIMENSIONS:
        raise ValueError("a size that is none")
    if prod(size or 1 for size in map(_count, numbers)) > _MOST:
        raise ValueError("a size that no tensor has")
    return tuple(numbers)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        shown = value if type(value) is int and abs(value) < 2**64 else type(value).__name__
        raise ValueError(f"{shown!r} where a size or a place belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_LETTERS:
        raise ValueError(f"a {type(value).__name__} where a name belongs, or a name without end")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"a {type(value).__name__} where a list belongs")
    return list(value)


def _path(value: Any) -> Path:
    if not isinstance(value, (tuple, list)) or not 0 < len(value) <= _MOST_DEPTH:
        raise ValueError("a path that is none, or is deeper than any state dict")
    return tuple(_count(key) if type(key) is int else _text(key) for key in value)


def _damaged(where: str, what: str) -> CorruptionError:
    return CorruptionError(f"{where} is damaged: {what}; restore it from a good copy")
