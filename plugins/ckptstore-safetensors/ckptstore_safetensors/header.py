"""The header of a ``.safetensors`` file: which tensors there are, and where. Without torch.

A file is 8 bytes that say how long the header is (little-endian), the header, which is a JSON
object, and the tensors' bytes, one after another without a gap. The header has for each tensor
``{"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}``, counted from the header's end, and
under ``__metadata__`` texts by name. The format's specification is the README of
https://github.com/huggingface/safetensors; its rules are checked here before anything is read.

Two tensors must not share bytes there. Of tensors that are one and the same, the first is
written, and ``__metadata__`` has the other's name with the first's: what `save_model` of the
safetensors library notes, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ckptstore import CorruptionError, TensorInfo, UnsupportedError
from ckptstore.texts import parse_json

__all__ = ["DTYPES", "MOST_HEADER", "Entry", "Header", "laid_out", "read_header"]

MOST_HEADER = 100_000_000
"""Bytes of a header; the safetensors library reads no larger one."""

DTYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
}
"""The format's names of dtypes to torch's, and bytes of an element."""

_CODES = {name: (code, size) for code, (name, size) in DTYPES.items()}
_METADATA = "__metadata__"
_LENGTH = 8
_ALIGNMENT = 8
_MOST_DIMENSIONS = 64
_MOST_BYTES = 2**59  # Of elements of 8 bytes, what 64 bits can count.


@dataclass(frozen=True)
class Entry:
    """One tensor in a file.

    Attributes:
        dtype: torch's name, without the prefix.
        shape: the size of each dimension.
        start: where its bytes begin, counted from the beginning of the file.
        nbytes: how many there are.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        entries: the tensors by name, in the header's order.
        ties: the name of a tensor that is not written to that of the one which it is.
        metadata: the texts by name, those about ties too.
    """

    entries: Mapping[str, Entry]
    ties: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, Entry]:
        """Return all tensors by name, tied ones under each of their names."""
        return {**self.entries, **{name: self.entries[one] for name, one in self.ties.items()}}

    def infos(self) -> dict[str, TensorInfo]:
        """Return what ckptstore says of tensors that it has not read."""
        return {n: TensorInfo(e.dtype, e.shape, e.nbytes) for n, e in self.all().items()}


def read_header(file: BinaryIO, where: str) -> Header:
    """Return the header of a file, once everything in it is possible.

    Args:
        file: seekable; left open. Nothing behind the header is read.
        where: what to call the file in errors.

    Raises:
        CorruptionError: it is no such file, is truncated, or its header claims what cannot be.
        UnsupportedError: a tensor is of a dtype that torch does not have here.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size < _LENGTH:
        raise _damaged(where, f"it has {size} bytes, and a header's length alone takes {_LENGTH}")
    length = int.from_bytes(file.read(_LENGTH), "little")
    if length > MOST_HEADER:
        raise _damaged(where, f"its header would have {length} bytes, the most is {MOST_HEADER}")
    if _LENGTH + length > size:
        raise _damaged(where, f"its header would have {length} bytes, the file has {size}")
    said = parse_json(file.read(length), f"the header of {where}")
    metadata = said.pop(_METADATA, None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(where, f"its {_METADATA} is not texts by name")
    entries = {name: _entry(name, raw, _LENGTH + length, where) for name, raw in said.items()}
    _check_places(entries, _LENGTH + length, size, where)
    ties = {n: one for n, one in metadata.items() if one in entries and n not in entries}
    return Header(entries, ties, metadata)


def laid_out(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, Header]:
    """Return the first bytes of a new file, and where its tensors go.

    Wide elements come first, so that each is where a processor wants it; among equals, and in the
    header, the order is that of the mapping, so that equal states give equal bytes.

    Args:
        tensors: torch's name of the dtype, and the shape, by name.
        metadata: texts by name.

    Raises:
        UnsupportedError: a name or a dtype has no place in the format, or the header would be
            larger than any reader takes.
    """
    sizes = {}
    for name, (dtype, shape) in tensors.items():
        if dtype not in _CODES:
            known = ", ".join(sorted(_CODES))
            raise UnsupportedError(
                f"safetensors has no {dtype}, which {name!r} is; it has {known}: convert the "
                "tensor, or save in the format 'bundle'"
            )
        if name == _METADATA:
            raise UnsupportedError(f"a tensor cannot be called {name!r} in safetensors; rename it")
        sizes[name] = math.prod(shape) * _CODES[dtype][1]
    offsets, end = {}, 0
    for name in sorted(tensors, key=lambda name: -_CODES[tensors[name][0]][1]):
        offsets[name] = end
        end += sizes[name]
    said: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    for name, (dtype, shape) in tensors.items():
        place = [offsets[name], offsets[name] + sizes[name]]
        said[name] = {"dtype": _CODES[dtype][0], "shape": list(shape), "data_offsets": place}
    text = _encoded(said)
    start = _LENGTH + len(text)
    entries = {
        name: Entry(dtype, tuple(shape), start + offsets[name], sizes[name])
        for name, (dtype, shape) in tensors.items()
    }
    return len(text).to_bytes(_LENGTH, "little") + text, Header(entries, {}, dict(metadata))


def _encoded(said: Mapping[str, Any]) -> bytes:
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedError(
            f"safetensors holds names that are Unicode, and one is not: {error}; rename it"
        ) from error
    data += b" " * (-len(data) % _ALIGNMENT)
    if len(data) > MOST_HEADER:
        raise UnsupportedError(
            f"the names, shapes and values beside the tensors take {len(data)} bytes as JSON, and "
            f"safetensors has room for {MOST_HEADER}; keep long lists as tensors"
        )
    return data


def _entry(name: str, raw: Any, start: int, where: str) -> Entry:
    def fault(what: str) -> CorruptionError:
        return _damaged(where, f"{name!r} has {what}")

    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise fault(f"not dtype, shape and data_offsets but {str(raw)[:80]}")
    dtype, shape, place = raw["dtype"], raw["shape"], raw["data_offsets"]
    if (
        not _are_counts(shape)
        or len(shape) > _MOST_DIMENSIONS
        # Of one that has no elements, too, torch computes how far apart they would be.
        or math.prod(size or 1 for size in shape) > _MOST_BYTES
    ):
        raise fault(f"the shape {str(shape)[:80]}, which there cannot be")
    if not _are_counts(place) or len(place) != 2 or place[0] > place[1]:
        raise fault(f"the data_offsets {str(place)[:80]}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UnsupportedError(
            f"{where} holds {name!r} as {str(dtype)[:80]!r}, a dtype that is not read here; there "
            f"are {', '.join(DTYPES)}"
        )
    torchs, size = DTYPES[dtype]
    wanted = math.prod(shape) * size
    if place[1] - place[0] != wanted:
        raise fault(f"{place[1] - place[0]} bytes, and its shape and dtype take {wanted}")
    return Entry(torchs, tuple(shape), start + place[0], wanted)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < _MOST_BYTES for value in values
    )


def _check_places(entries: Mapping[str, Entry], start: int, size: int, where: str) -> None:
    """Refuse tensors that overlap, leave a gap, or are not there."""
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != end:
            raise _damaged(
                where, f"{name!r} begins at byte {entry.start}, and what is before it ends at {end}"
            )
        end += entry.nbytes
    if end != size:
        raise _damaged(where, f"its tensors end at byte {end}, the file at {size}")


def _damaged(where: str, what: str) -> CorruptionError:
    return CorruptionError(f"{where} is damaged: {what}; restore it from a good copy")
