"""Boxes of tensors out of a `.pt`: only the bytes that they touch are read, into memory in place.

Rule 1: what a file says of a record is compared with what is expected of it before a byte is read.
Rule 2: of a proved file the rows that a box touches are read, straight into the target where they
lie there in one piece, else through a buffer of 8 MiB. Rule 3: of a file that nothing proves a
record is read as a whole, because its CRC-32 is of the whole (G4).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import torch

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.ptfile import ITEMSIZES, TensorStub
from ckptstore.tensors.compact import is_plain
from ckptstore.tensors.filling import fill, is_contiguous
from ckptstore.tensors.loading import load
from ckptstore.tensors.memory import bytes_of
from ckptstore.tensors.records import Records

__all__ = ["Box", "BoxFile", "empty", "narrowed", "overwritten", "placed"]

_MOST_BUFFER = 8 * 2**20
_MOST_BESIDE = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Box:
    """A part of a tensor in a file, and where it is to go.

    Attributes:
        key: of the tensor in the file.
        dtype: that it has to have there, torch's name without the prefix.
        shape: that it has to have there.
        offsets: of the part within it.
        target: of the part's own shape; on any device, and of any dtype.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    target: torch.Tensor

    @property
    def whole(self) -> bool:
        """Whether it is all of the tensor."""
        return tuple(self.target.shape) == self.shape


class BoxFile:
    """A `.pt` that holds a dict of tensors, some of which are read in part.

    Args:
        file: seekable; left open.
        proved: whether every byte that it gives is proved already.
        where: what to call it in errors.

    Raises:
        CorruptionError, UnsafeError: it is no such file.
    """

    def __init__(self, file: BinaryIO, *, proved: bool, where: str) -> None:
        self._file = file
        self._proved = proved
        self._where = where
        self._content = ptfile.read(file, where)
        self._records = Records(file, self._content.archive, proved=proved)
        self._sound: set[str] = set()
        root = self._content.root
        self._root: Mapping[Any, Any] = root if isinstance(root, Mapping) else {}

    def check(self, key: str, dtype: str, shape: Sequence[int]) -> TensorStub:
        """Return what the file says of a tensor, once it is what it should be.

        Raises:
            CorruptionError: there is none of that name, or of another dtype or shape.
        """
        stub = self._root.get(key)
        if not isinstance(stub, TensorStub) or (stub.dtype, stub.shape) != (dtype, tuple(shape)):
            found = (
                f"{stub.dtype} of {list(stub.shape)}"
                if isinstance(stub, TensorStub)
                else f"a {type(stub).__name__}"
            )
            raise CorruptionError(
                f"{self._where} is damaged: {key!r} in it is {found}, where {dtype} of "
                f"{list(shape)} belongs; restore it from a good copy"
            )
        return stub

    def read(self, boxes: Iterable[Box]) -> None:
        """Fill the targets of some boxes.

        Raises:
            CorruptionError: the file is damaged, or holds something else; what the targets hold is
                then undefined.
        """
        direct: list[tuple[int, memoryview]] = []
        whole: list[Box] = []
        for box in boxes:
            stub = self.check(box.key, box.dtype, box.shape)
            if not box.target.numel():
                continue
            if not (self._proved or stub.record in self._sound) or not self._is_plain(stub):
                whole.append(box)
                continue
            record = self._records.archive.records[str(stub.record)]
            start = self._records.start(record) + stub.offset * ITEMSIZES[stub.dtype]
            direct += self._rows(start, box.shape, box.offsets, box.target.detach(), box.dtype)
        scattered = getattr(self._file, "fill", None)
        if scattered is not None:
            scattered(direct)
        else:
            for start, memory in direct:
                self._records.fill(start, memory)
        self._read_whole(whole)

    def prove(self, keys: Iterable[str]) -> None:
        """Check the records of some tensors by their CRC-32, unless the file is proved.

        Afterwards parts of them are read without the rest.

        Raises:
            CorruptionError: one is damaged.
        """
        stubs = (self._root.get(key) for key in keys)
        names = {s.record for s in stubs if isinstance(s, TensorStub) and s.record is not None}
        self._records.prove(sorted(names))
        self._sound |= names

    def _is_plain(self, stub: TensorStub) -> bool:
        return (
            stub.plain
            and stub.record is not None
            and is_contiguous(stub)
            and self._content.byteorder == sys.byteorder
        )

    def _read_whole(self, boxes: Sequence[Box]) -> None:
        """Read the records of some boxes as they are, each checked as a whole."""
        into = {box.key: box.target.detach() for box in boxes if box.whole}
        filled = bool(into) and fill(
            self._file,
            into,
            part=dict,
            proved=self._proved,
            atomic=False,
            fresh=True,
            where=self._where,
        )
        batch: list[Box] = []
        for box in boxes:
            if filled and box.key in into:
                continue
            batch.append(box)
            if sum(prod(one.shape) * ITEMSIZES[one.dtype] for one in batch) > _MOST_BESIDE:
                self._copy(batch)
                batch = []
        self._copy(batch)

    def _copy(self, boxes: Sequence[Box]) -> None:
        if not boxes:
            return
        loaded = load(
            self._file,
            part=lambda root: {box.key: root[box.key] for box in boxes},
            proved=self._proved,
            where=self._where,
        )
        with torch.no_grad():
            for box in boxes:
                part = narrowed(loaded[box.key], box.offsets, box.target.shape)
                box.target.copy_(part)

    def _rows(
        self,
        start: int,
        shape: Sequence[int],
        offsets: Sequence[int],
        target: torch.Tensor,
        dtype: str,
    ) -> list[tuple[int, memoryview]]:
        """Read a part of rows, and return those that may be read straight into their place.

        Args:
            start: of the first row, in the file.
            shape: of all rows.
            offsets: of the part.
            target: of the part's own shape.
            dtype: of the rows.
        """
        size = ITEMSIZES[dtype]
        if not shape:
            shape, offsets, target = (1,), (0,), target.reshape(1)
        row = prod(shape[1:]) * size
        full = tuple(target.shape[1:]) == tuple(shape[1:])
        begin = start + offsets[0] * row
        if full and _is_memory(target, dtype):
            return [(begin, bytes_of(target))]
        found: list[tuple[int, memoryview]] = []
        if len(shape) > 1 and row > _MOST_BUFFER:
            for number in range(target.shape[0]):
                at = begin + number * row
                found += self._rows(at, shape[1:], offsets[1:], target[number], dtype)
            return found
        most = max(1, _MOST_BUFFER // max(row, 1))
        count = int(target.shape[0])
        buffer = torch.empty((min(most, count), *shape[1:]), dtype=getattr(torch, dtype))
        for first in range(0, count, most):
            rows = buffer[: count - first]
            self._records.fill(begin + first * row, bytes_of(rows))
            part = narrowed(rows, (0, *offsets[1:]), (len(rows), *target.shape[1:]))
            with torch.no_grad():
                target[first : first + len(rows)].copy_(part)
        return found


def _is_memory(tensor: torch.Tensor, dtype: str) -> bool:
    return (
        tensor.device.type == "cpu"
        and is_plain(tensor)
        and tensor.is_contiguous()
        and str(tensor.dtype) == f"torch.{dtype}"
    )


def narrowed(tensor: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Return a box of a tensor, which looks into it."""
    for dimension, (start, size) in enumerate(zip(offsets, sizes, strict=True)):
        tensor = tensor.narrow(dimension, start, size)
    return tensor


def overwritten(tensors: Iterable[torch.Tensor]) -> None:
    """Let autograd know that tensors hold something else now."""
    for tensor in tensors:
        torch.autograd.graph.increment_version(tensor)


def empty(dtype: str, shape: Sequence[int], map_location: Any = "cpu") -> torch.Tensor:
    """Return a tensor that is to be filled: on the CPU, or without memory on ``meta``."""
    device = "meta" if str(map_location) == "meta" else "cpu"
    return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=device)


def placed(tensor: torch.Tensor, map_location: Any) -> torch.Tensor:
    """Bring a tensor that was filled on the CPU where it belongs, as `torch.load` does.

    Raises:
        UnsupportedError: the device is not available here.
    """
    target = map_location
    if tensor.is_meta or target is None:
        return tensor
    if isinstance(target, Mapping):
        target = target.get("cpu", "cpu")
    elif isinstance(target, Callable) and not isinstance(target, (str, torch.device)):  # type: ignore[arg-type]
        moved = target(tensor.untyped_storage(), "cpu")
        if moved is None:
            return tensor
        base = torch.empty(0, dtype=tensor.dtype, device=moved.device)
        return base.set_(moved, 0, tensor.shape, tensor.stride())
    try:
        return tensor.to(target)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"map_location is {str(map_location)!r}, which is not available here: {first}"
        ) from error
