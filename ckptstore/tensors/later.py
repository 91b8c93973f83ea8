"""A `.pt` as tensors that are read when they are written: only its pickle is read at once (G6).

Rule 1: nothing is handed out that `ckptstore.ptfile` and, of a whole file, torch's own weights-only
loader have not looked through (G5). Rule 2: the bytes of a record of a file that has no manifest
are compared with its CRC-32, at the latest with the last of them (G4). Rule 3: what lies in its
record neither row by row nor in another order without gaps is loaded, with all that shares the
record, and so is all of a file that holds something else than dense tensors.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO

import torch

from ckptstore import ptfile
from ckptstore.later import Later, Opened
from ckptstore.ptfile import ITEMSIZES, Archive, TensorStub, check_crc32
from ckptstore.ptfile.crc import crc32
from ckptstore.tensors.build import Builder, buildable, read_storages, stubs_of
from ckptstore.tensors.loading import bytes_in, check_by_torch, has_bytes
from ckptstore.tensors.memory import bytes_of
from ckptstore.tensors.records import Records
from ckptstore.tensors.standing import row_strides
from ckptstore.tensors.values import rows_of

__all__ = ["later", "loaded"]


def later(
    opener: Callable[[], BinaryIO],
    *,
    part: Callable[[Any], Any] | None = None,
    proved: bool = False,
    opened: Opened | None = None,
    where: str,
) -> Any:
    """Return what a `.pt` holds, with a `Later` in the place of each tensor; see `load`.

    Guarantee: what `load` refuses for what its pickle says is refused here (G5); every byte is
    proved when it is read (G4), and a few MiB of them are in memory at a time (G6). A tensor that
    cannot be read so, because it has strides that leave gaps or repeat, is loaded.

    Args:
        opener: opens the file.
        part: picks a part of what was saved; it is called with stubs in the place of tensors.
        proved: whether every byte that the file gives is proved already.
        opened: what keeps it open while it is read from; shared by the files of a checkpoint.
        where: what to call the file in errors.

    Returns:
        The object; None where `load` has to be used, as for sparse and quantized tensors.

    Raises:
        CorruptionError, UnsafeError: as `load`.
    """
    with opener() as file:
        content = ptfile.read(file, where)
        tree = content.root if part is None else part(content.root)
        if not buildable(tree) or content.byteorder != sys.byteorder or not has_bytes("cpu"):
            return None
        if sys.byteorder != "little":
            return None
        records = Records(file, content.archive, proved=proved)
        if part is None:
            check_by_torch(records, where, "meta")
        named = stubs_of(tree)
        whole = [name for name, stubs in named.items() if not all(map(_is_dense, stubs))]
        source = _Source(opener, opened or Opened(), content.archive, proved=proved)
        storages = read_storages(
            {name: stub.storage for name in whole if (stub := named[name][0]).storage}, records
        )
        if part is None:
            records.prove(name for name in bytes_in(content) if name not in named)
    wholes = {name: source.later(name) for name in named if name not in storages}
    return _Later(storages, wholes, named, source).build(tree)


def loaded(tree: Any) -> Any:
    """Return an object with the tensors themselves in the places of each `Later`.

    Raises:
        CorruptionError, StorageError: what reading them raises.
    """
    return _Loading().of(tree)


class _Loading:
    """Copies containers; what was one object, or shared memory, does so afterwards."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}

    def of(self, value: Any) -> Any:
        if not isinstance(value, (Later, dict, list, tuple)):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = self._made(value)
        return self._done[id(value)]

    def _made(self, value: Any) -> Any:
        if isinstance(value, Later):
            return self._tensor(value)
        if isinstance(value, dict):
            twin = copy.copy(value)  # Keeps the class, and attributes such as `_metadata`.
            for key, inner in value.items():
                twin[key] = self.of(inner)
            return twin
        items = [self.of(item) for item in value]
        return items if isinstance(value, list) else type(value)(items)

    def _tensor(self, later: Later) -> torch.Tensor:
        whole = later if later.whole is None else later.whole
        if id(whole) not in self._storages:
            flat = filled(torch.empty(whole.nbytes, dtype=torch.uint8), whole.pieces())
            self._storages[id(whole)] = flat.untyped_storage()
        dtype = getattr(torch, later.dtype)
        stride = row_strides(later.shape) if later.stride is None else later.stride
        tensor = torch.empty(0, dtype=dtype).set_(
            self._storages[id(whole)], later.start // dtype.itemsize, later.shape, stride
        )
        if later.parameter:
            return torch.nn.Parameter(tensor, requires_grad=later.requires_grad)
        return tensor.requires_grad_() if later.requires_grad else tensor


class _Later(Builder):
    """Puts a `Later` in the place of each stub whose record was not loaded."""

    def __init__(
        self,
        storages: Mapping[str, torch.UntypedStorage],
        wholes: Mapping[str, Later],
        named: Mapping[str, list[TensorStub]],
        source: _Source,
    ) -> None:
        super().__init__(storages, source.archive.where)
        self._wholes = wholes
        self._named = named
        self._source = source

    def tensor(self, stub: TensorStub) -> Any:
        record = str(stub.record)
        if record not in self._wholes:
            return super().tensor(stub)
        whole, start = self._wholes[record], stub.offset * ITEMSIZES[stub.dtype]
        in_order = tuple(stub.stride) == row_strides(stub.shape)
        alone = in_order and len(self._named[record]) == 1 and whole.nbytes == stub.nbytes
        found = Later(
            stub.dtype,
            tuple(stub.shape),
            stub.nbytes,
            partial(self._source.pieces, record, start, stub.nbytes),
            whole=None if alone else whole,
            start=start,
            stride=None if in_order else tuple(stub.stride),
            requires_grad=stub.requires_grad,
            parameter=stub.parameter,
        )
        if not _is_row_major(stub.shape, stub.stride):
            return replace(found, pieces=partial(_ordered, found, found.pieces))
        return found


@dataclass(frozen=True)
class _Source:
    """A `.pt` of which records are read when they are asked for."""

    opener: Callable[[], BinaryIO]
    opened: Opened
    archive: Archive
    proved: bool
    _starts: dict[str, int] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def later(self, name: str) -> Later:
        """Return all bytes of a record."""
        size = self.archive.records[name].size
        return Later("uint8", (size,), size, partial(self.pieces, name, 0, size))

    def pieces(self, name: str, start: int, size: int) -> Iterator[memoryview]:
        """Yield bytes of a record; a part of one is compared with nothing before the whole was."""
        record, where = self.archive.records[name], self.archive.where
        if size == record.size or not (self.proved or name in self._seen):
            found = 0
            for piece in self._read(name, 0, record.size):
                found = 0 if self.proved else crc32(piece, found)
                if size == record.size:
                    yield piece
            if not self.proved:
                check_crc32(record, found, where)
            self._seen.add(name)
        if size < record.size:
            yield from self._read(name, start, size)

    def _read(self, name: str, start: int, size: int) -> Iterator[memoryview]:
        where = self.archive.where
        if name not in self._starts:
            record = self.archive.records[name]
            header = memoryview(bytearray(record.header_size))
            self.opened.read(self.opener, record.header, header, where)
            self._starts[name] = self.archive.agreed(record, header)
        return self.opened.pieces(self.opener, self._starts[name] + start, size, where)


def _is_dense(stub: TensorStub) -> bool:
    """Whether the elements lie side by side, in whatever order."""
    if not stub.nbytes:
        return False  # There is nothing to be read, and torch says whether its shape can be.
    expected = 1
    for step, size in sorted(zip(stub.stride, stub.shape, strict=True)):
        if size > 1:
            if step != expected:
                return False
            expected *= size
    return True


def _is_row_major(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the elements lie in row-major order; how far apart a single one is says nothing."""
    rows = row_strides(shape)
    return all(size <= 1 or a == b for size, a, b in zip(shape, stride, rows, strict=True))


def _ordered(later: Later, pieces: Callable[[], Iterator[memoryview]]) -> Iterator[memoryview]:
    """Yield a tensor that lies in another order row by row; all of it is read for that."""
    dtype = getattr(torch, later.dtype)
    flat = filled(torch.empty(later.nbytes // dtype.itemsize, dtype=dtype), pieces())
    yield from rows_of(flat.as_strided(later.shape, later.stride or ()))


def filled(tensor: torch.Tensor, pieces: Iterator[memoryview]) -> torch.Tensor:
    """Fill a contiguous tensor with the bytes that come, and return it."""
    memory, done = bytes_of(tensor), 0
    for piece in pieces:
        memory[done : done + len(piece)] = piece
        done += len(piece)
    return tensor
