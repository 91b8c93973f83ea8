"""Loads weights straight into the memory of a model that is there already.

Rule 1: names and shapes are compared before a byte is read. Rule 2: what cannot be filled in place
(another dtype, device or stride) is loaded beside it and copied. Rule 3: where damage is found
half way, the model holds a part of what was read, and the error says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import torch

from ckptstore import ptfile
from ckptstore.errors import CkptstoreError
from ckptstore.ptfile import TensorStub
from ckptstore.tensors.build import buildable, built
from ckptstore.tensors.compact import is_plain
from ckptstore.tensors.memory import bytes_of
from ckptstore.tensors.records import Records

__all__ = ["fill", "is_contiguous"]

_MOST_BESIDE = 64 * 2**20


def fill(
    file: BinaryIO,
    into: Mapping[str, torch.Tensor],
    *,
    part: Callable[[Any], Any],
    proved: bool,
    atomic: bool,
    fresh: bool = False,
    where: str,
) -> bool:
    """Overwrite tensors with those of a `.pt`, without a copy beside them where that can be.

    Args:
        file: seekable; left open.
        into: what to overwrite, by the names of the state dict; of the file's own shapes.
        part: picks the state dict out of what was saved; it is called with stubs.
        proved: whether every byte that ``file`` gives is proved already; otherwise each record is
            checked against its CRC-32.
        atomic: whether all is proved before the first byte is overwritten.
        fresh: whether the tensors are memory that nobody has seen yet, and errors need not say
            what became of it.
        where: what to call the file in errors.

    Returns:
        Whether it was done; where it cannot be done this way, nothing was changed.

    Raises:
        CorruptionError: the file is damaged; what was overwritten by then is in the message.
    """
    content = ptfile.read(file, where)
    state = part(content.root)
    if content.byteorder != sys.byteorder or not isinstance(state, Mapping):
        return False
    stubs: dict[str, Any] = {name: state.get(name) for name in into}
    if not all(isinstance(one, TensorStub) for one in stubs.values()) or not buildable(stubs):
        return False
    if any(tuple(stub.shape) != tuple(into[name].shape) for name, stub in stubs.items()):
        return False
    records = Records(file, content.archive, proved=proved)
    direct, beside = _parted(stubs, into)
    if atomic:
        records.prove_before({str(stub.record) for stub in stubs.values() if stub.record})
    try:
        records.read_all(direct)
        for batch in _batches(beside, stubs):
            with torch.no_grad():
                for name, value in built(batch, records, "cpu").items():
                    into[name].copy_(value)
    except CkptstoreError as error:
        if fresh:
            raise
        raise _partly(error) from error
    for tensor in into.values():
        torch.autograd.graph.increment_version(tensor)
    return True


def _parted(
    stubs: Mapping[str, TensorStub], into: Mapping[str, torch.Tensor]
) -> tuple[dict[str, memoryview], list[str]]:
    """Return the memory that records are read into directly, and the names that need more care."""
    direct: dict[str, torch.Tensor] = {}
    beside = []
    for name, stub in stubs.items():
        record, tensor = str(stub.record), into[name]
        if not _is_the_record(stub, tensor):
            beside.append(name)
        elif record not in direct:
            direct[record] = tensor
        elif direct[record].data_ptr() != tensor.data_ptr():  # Tied there, and not here.
            beside.append(name)
    end = -1
    for record, tensor in sorted(direct.items(), key=lambda item: item[1].data_ptr()):
        if tensor.numel() and tensor.data_ptr() < end:  # Tied here, and not there.
            del direct[record]
            beside += [name for name, stub in stubs.items() if stub.record == record]
        end = max(end, tensor.data_ptr() + tensor.numel() * tensor.element_size())
    return {record: bytes_of(tensor) for record, tensor in direct.items()}, beside


def _is_the_record(stub: TensorStub, tensor: torch.Tensor) -> bool:
    """Whether a record is, byte for byte, what belongs into the memory of a tensor."""
    return bool(
        stub.record is not None
        and stub.storage is not None
        and stub.plain
        and stub.offset == 0
        and stub.storage.nbytes == stub.nbytes
        and tensor.device.type == "cpu"
        and is_plain(tensor)
        and tensor.is_contiguous()
        and str(tensor.dtype) == f"torch.{stub.dtype}"
        and tuple(tensor.shape) == tuple(stub.shape)
        and is_contiguous(stub)
    )


def is_contiguous(stub: TensorStub) -> bool:
    """Whether the elements of a tensor lie in its storage in row-major order."""
    step = 1
    for size, stride in zip(reversed(stub.shape), reversed(stub.stride), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _batches(
    names: Iterable[str], stubs: Mapping[str, TensorStub]
) -> Iterator[dict[str, TensorStub]]:
    """Return what is loaded before it is copied, not all of it at once."""
    batch: dict[str, TensorStub] = {}
    size = 0
    for name in names:
        batch[name] = stubs[name]
        size += stubs[name].nbytes
        if size > _MOST_BESIDE:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _partly(error: CkptstoreError) -> CkptstoreError:
    told = type(error)(
        f"{error}; the model holds a part of what was read by now, so restore it from a good "
        "checkpoint before it is used (atomic=True proves all before anything is overwritten)"
    )
    told.committed = error.committed
    return told
