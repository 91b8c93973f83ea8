"""Reads tensors of a ``.safetensors`` file straight into their memory, and no byte besides.

The safetensors library is not used for it: it opens local paths, or takes all of a file as bytes,
which would be a second copy of the model (G6) and no proof of what is read in part (G4).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import torch

from ckptstore import CkptstoreError, CorruptionError, UnsupportedError
from ckptstore.tensors import bytes_of, placed
from ckptstore_safetensors.header import Entry

__all__ = ["Into", "check_byteorder", "fill", "load", "mapped"]

_MOST_BESIDE = 64 * 2**20

Into = tuple[int, memoryview]
"""A place in a file, and the memory that is to have the bytes from there on."""


def load(
    file: BinaryIO, entries: Mapping[str, Entry], map_location: Any, where: str
) -> dict[str, torch.Tensor]:
    """Return tensors by name.

    Args:
        file: seekable; left open.
        entries: those that are wanted; where two are the same place, so are the tensors.
        map_location: where they go, as `torch.load` has it; None is the CPU.
        where: what to call the file in errors.

    Raises:
        CorruptionError: the file ends before its tensors do.
        UnsupportedError: the device is not here.
    """
    check_byteorder(where)
    target = _target(map_location)
    ones: dict[Entry, torch.Tensor] = {}
    if str(target) == "meta":
        for entry in entries.values():
            ones[entry] = _empty(entry, "meta")
    else:
        here = target is None or str(target) == "cpu"
        wanted = list(dict.fromkeys(entries.values()))
        # What does not stay here must not all be here at once.
        for batch in [wanted] if here else _batches(wanted):
            found = {entry: _empty(entry, "cpu") for entry in batch}
            _read(file, [(e.start, bytes_of(tensor)) for e, tensor in found.items()], where)
            ones |= found if here else {e: placed(t, map_location) for e, t in found.items()}
    return {name: ones[entry] for name, entry in entries.items()}


def mapped(file: BinaryIO, entries: Mapping[str, Entry], where: str) -> dict[str, torch.Tensor]:
    """Return tensors that look into the file, mapped as memory.

    Raises:
        UnsupportedError: the storage cannot map it, or the tensors lie where no processor reads
            them.
    """
    check_byteorder(where)
    memory: memoryview | None = getattr(file, "map", lambda: None)()
    if memory is None:
        raise UnsupportedError(
            f"{where} cannot be mapped, for it is on no local disk; load it without mmap"
        )
    ones: dict[Entry, torch.Tensor] = {}
    for entry in entries.values():
        if entry.start + entry.nbytes > len(memory):
            raise CorruptionError(
                f"{where} has changed its size while it was opened; open it again"
            )
        dtype = getattr(torch, entry.dtype)
        if not entry.nbytes:
            ones[entry] = _empty(entry, "cpu")
            continue
        if entry.start % dtype.itemsize:
            raise UnsupportedError(
                f"{where} cannot be mapped, for its {entry.dtype} are at byte {entry.start}; load "
                "it without mmap"
            )
        flat = torch.frombuffer(memory, dtype=torch.uint8, offset=entry.start, count=entry.nbytes)
        ones[entry] = flat.view(dtype).reshape(entry.shape)
    return {name: ones[entry] for name, entry in entries.items()}


def fill(
    file: BinaryIO,
    entries: Mapping[str, Entry],
    into: Mapping[str, torch.Tensor],
    *,
    prove: bool,
    where: str,
) -> bool:
    """Overwrite tensors with those of a file, without a copy beside them where that can be.

    Args:
        file: seekable; left open.
        entries: all of the file, by name.
        into: what to overwrite.
        prove: whether all of the file is proved before the first byte is overwritten.
        where: what to call the file in errors.

    Returns:
        Whether it was done; where it cannot be done this way, nothing was changed.

    Raises:
        CorruptionError: the file is damaged; what was overwritten by then is in the message.
    """
    check_byteorder(where)
    if any(n not in entries or entries[n].shape != tuple(t.shape) for n, t in into.items()):
        return False
    direct = _direct(entries, into)
    beside = {name: entries[name] for name in into if name not in direct}
    if prove and hasattr(file, "prove"):
        file.prove()
    try:
        _read(file, [(entries[n].start, bytes_of(into[n].detach())) for n in direct], where)
        for batch in _batches(dict.fromkeys(beside.values())):
            at_once = set(batch)
            names = [name for name, entry in beside.items() if entry in at_once]
            loaded = load(file, {name: beside[name] for name in names}, "cpu", where)
            with torch.no_grad():
                for name in names:
                    into[name].copy_(loaded[name])
    except CkptstoreError as error:
        told = type(error)(
            f"{error}; the model holds a part of what was read by now, so restore it from a good "
            "checkpoint before it is used (atomic=True proves all before anything is overwritten)"
        )
        told.committed = error.committed
        raise told from error
    for tensor in into.values():
        torch.autograd.graph.increment_version(tensor)
    return True


def _direct(entries: Mapping[str, Entry], into: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names whose bytes are read into their tensor's own memory, no two into the same.

    Of tensors that share memory, the others are copied afterwards, as `load_state_dict` would.
    """
    able = [name for name, tensor in into.items() if _is_its_bytes(entries[name], tensor)]
    chosen: list[str] = []
    end = -1
    for name in sorted(able, key=lambda name: into[name].data_ptr()):
        start = into[name].data_ptr()
        if start >= end:
            chosen.append(name)
            end = start + entries[name].nbytes
    # A file is read once from its beginning to its end, and a place in it once.
    places: dict[int, str] = {}
    for name in sorted(chosen, key=lambda name: (entries[name].start, entries[name].nbytes)):
        if entries[name].nbytes:
            places.setdefault(entries[name].start, name)
    return list(places.values())


def _is_its_bytes(entry: Entry, tensor: torch.Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized or tensor.is_nested)
        and str(tensor.dtype) == f"torch.{entry.dtype}"
    )


def _read(file: BinaryIO, pieces: list[Into], where: str) -> None:
    """Fill memory from a file, several pieces at once where the storage is good for it."""
    wanted = sorted((piece for piece in pieces if len(piece[1])), key=lambda piece: piece[0])
    scattered = getattr(file, "fill", None)
    if scattered is not None:
        scattered(wanted)
        return
    for start, memory in wanted:
        file.seek(start)
        done = 0
        while done < len(memory):
            count = file.readinto(memory[done:])  # type: ignore[attr-defined]
            if not count:
                raise CorruptionError(
                    f"{where} is truncated: it ends at byte {start + done}; restore it from a good "
                    "copy"
                )
            done += count


def _empty(entry: Entry, device: str) -> torch.Tensor:
    return torch.empty(entry.shape, dtype=getattr(torch, entry.dtype), device=device)


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.nbytes
        if size > _MOST_BESIDE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _target(map_location: Any) -> Any:
    """Return where tensors go that say nothing of a device: they are taken to be the CPU's."""
    return map_location.get("cpu") if isinstance(map_location, Mapping) else map_location


def check_byteorder(where: str) -> None:
    """Refuse to read on a machine whose numbers are not those of the file.

    Raises:
        UnsupportedError: they are not.
    """
    if sys.byteorder != "little":
        raise UnsupportedError(
            f"{where} holds little-endian numbers, and this machine's are not; read it elsewhere"
        )
