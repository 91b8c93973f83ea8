"""Entries into memory: each tensor is allocated once, and its chunks are read straight into it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, BinaryIO

from ckptstore import CorruptionError, UnsafeError, ptfile
from ckptstore_dcp.metadata import Chunk, Entry, Item
from ckptstore_dcp.slices import Slices, check_plain

__all__ = ["checked", "fill", "load", "look", "planned", "said"]


def load(
    entries: Iterable[Entry], slices: Slices, where: str, map_location: Any = "cpu"
) -> dict[str, Any]:
    """Return entries by name, tensors and objects; only their slices are read.

    Guarantee: nothing is executed (G5), each slice's CRCs are checked (G4), and no second copy of a
    tensor is made (G6).

    Args:
        entries: what is wanted.
        slices: of the folder.
        where: what to call the metadata in errors.
        map_location: where tensors go, as `torch.load` has it.

    Raises:
        CorruptionError: a slice is damaged or absent, or the chunks of a tensor are not the tensor.
        UnsafeError: a slice holds more than tensors, numbers, text and containers of these.
        UnsupportedError: a slice is compressed, or the device is not available here.
    """
    wanted = list(entries)
    for entry in wanted:
        if entry.is_tensor:
            entry.check_covered(where)
    jobs = _Jobs(where, map_location)
    for entry in wanted:
        jobs.add(entry)
    with contextlib.closing(slices.opened(jobs.items)) as opened:
        for item, file in opened:
            jobs.done(item, file)
    return jobs.loaded()


def fill(
    entries: Mapping[str, Entry], into: Mapping[str, Any], slices: Slices, where: str, atomic: bool
) -> bool:
    """Overwrite tensors with entries, chunk by chunk and straight into their memory.

    Args:
        entries: by the names of ``into``; more do no harm.
        into: what to overwrite.
        slices: of the folder.
        where: what to call the metadata in errors.
        atomic: whether all slices are proved before the first byte is overwritten.

    Returns:
        Whether it was done; where names, shapes or kinds differ, nothing was changed.

    Raises:
        CorruptionError, UnsafeError, UnsupportedError: as `load`.
    """
    for name, tensor in into.items():
        entry = entries.get(name)
        if entry is None or not entry.is_tensor or entry.shape != tuple(tensor.shape):
            return False
    from ckptstore import tensors

    boxes: dict[Item, tuple[str, Entry, Chunk]] = {}
    for name in into:
        entry = entries[name]
        entry.check_covered(where)
        for chunk in entry.chunks:
            if prod(chunk.sizes):
                item = _item(chunk, entry, where)
                check_plain(item, where)
                boxes[item] = name, entry, chunk
    if atomic:
        with contextlib.closing(slices.opened(boxes)) as opened:
            for item, file in opened:
                ptfile.check_records(file, said(boxes[item][1], item))
    with contextlib.closing(slices.opened(boxes)) as opened:
        for item, file in opened:
            name, entry, chunk = boxes[item]
            box = tensors.narrowed(into[name].detach(), chunk.offsets, chunk.sizes)
            _read_into(box, file, entry, chunk, said(entry, item), fresh=False)
    return True


def look(entries: Iterable[Entry], slices: Slices) -> dict[str, tuple[ptfile.PtFile, Any]]:
    """Return what the slices of objects and of single numbers say, without torch.

    What nobody may load, because that would run code or because it is compressed, is left out:
    whoever loads it is told why.

    Args:
        entries: objects, and tensors of one chunk.
        slices: of the folder.

    Returns:
        By name what the pickle says, and the object: with stubs, and a tensor of one element as
        its number.

    Raises:
        CorruptionError: a slice is damaged or absent.
    """
    of = {_item(entry.chunks[0], entry, ""): entry for entry in entries}
    found: dict[str, tuple[ptfile.PtFile, Any]] = {}
    plain = [item for item in of if not item.transforms]
    with contextlib.closing(slices.opened(plain)) as opened:
        for item, file in opened:
            with contextlib.suppress(UnsafeError):
                pt = ptfile.read(file, said(of[item], item))
                number = pt.number(file, pt.root)
                found[of[item].name] = pt, pt.root if number is None else number
    return found


def said(entry: Entry, item: Item) -> str:
    """Return what to call a slice in errors."""
    return f"{entry.name!r} in {item.file}"


def planned(entry: Entry, of: dict[Item, tuple[Entry, Chunk]], where: str) -> int:
    """Add the slices of an entry to those that are to be read.

    Args:
        entry: which.
        of: what each slice is; added to.
        where: what to call the metadata in errors.

    Returns:
        How many there are; chunks without elements have none.

    Raises:
        CorruptionError: one is absent, too short, or the slice of something else, too.
        UnsupportedError: one is compressed.
    """
    chunks = [chunk for chunk in entry.chunks if prod(chunk.sizes) or not entry.is_tensor]
    for chunk in chunks:
        item = _item(chunk, entry, where)
        check_plain(item, where)
        if chunk.sizes and prod(chunk.sizes) * _size_of(entry) > item.length:
            raise CorruptionError(
                f"{where} is damaged: the slice of {entry.name!r} at {list(chunk.offsets)} has "
                f"{item.length} bytes, too few for its elements; restore it from a good copy"
            )
        if item in of:
            raise CorruptionError(
                f"{where} is damaged: {entry.name!r} and {of[item][0].name!r} are one slice; "
                "restore it from a good copy"
            )
        of[item] = (entry, chunk)
    return len(chunks)


class _Jobs:
    """What is to be read, and what became of it."""

    def __init__(self, where: str, map_location: Any) -> None:
        self._where = where
        self._map_location = map_location
        self._of: dict[Item, tuple[Entry, Chunk]] = {}
        self._whole: dict[str, Any] = {}
        self._left: dict[str, int] = {}
        self._order: list[str] = []

    @property
    def items(self) -> Iterable[Item]:
        """The slices to be read."""
        return self._of

    def add(self, entry: Entry) -> None:
        """Plan an entry, and allocate a tensor that is put together of several chunks."""
        from ckptstore import tensors

        self._order.append(entry.name)
        count = planned(entry, self._of, self._where)
        if entry.is_tensor and not count:
            empty = tensors.empty(entry.dtype, entry.shape)
            self._whole[entry.name] = tensors.placed(empty, self._map_location)
        if count > 1:
            self._left[entry.name] = count

    def done(self, item: Item, file: BinaryIO) -> None:
        """Read a slice to where it belongs."""
        from ckptstore import tensors

        entry, chunk = self._of[item]
        where = said(entry, item)
        if entry.name in self._left:
            self._fill(entry, chunk, file, where)
            return
        part = checked(entry, chunk, where) if entry.is_tensor else _itself
        self._whole[entry.name] = tensors.load(
            file, part=part, map_location=self._map_location, where=where
        )

    def loaded(self) -> dict[str, Any]:
        """Return the entries in the order in which they were planned."""
        return {name: self._whole[name] for name in self._order}

    def _fill(self, entry: Entry, chunk: Chunk, file: BinaryIO, where: str) -> None:
        from ckptstore import tensors

        name = entry.name
        if name not in self._whole:
            self._whole[name] = tensors.empty(entry.dtype, entry.shape, self._map_location)
        if not self._whole[name].is_meta:
            box = tensors.narrowed(self._whole[name], chunk.offsets, chunk.sizes)
            _read_into(box, file, entry, chunk, where, fresh=True)
        self._left[name] -= 1
        if not self._left[name]:
            self._whole[name] = tensors.placed(self._whole[name], self._map_location)


def _read_into(
    box: Any, file: BinaryIO, entry: Entry, chunk: Chunk, where: str, *, fresh: bool
) -> None:
    """Overwrite a part of a tensor with the chunk in a slice."""
    import torch

    from ckptstore import tensors

    check = checked(entry, chunk, where)
    if not tensors.fill(
        file,
        {entry.name: box},
        part=lambda root: {entry.name: check(root)},
        proved=False,
        atomic=False,
        fresh=fresh,
        where=where,
    ):
        with torch.no_grad():
            box.copy_(tensors.load(file, part=check, where=where))


def _item(chunk: Chunk, entry: Entry, where: str) -> Item:
    if chunk.item is None:
        raise CorruptionError(
            f"{where} is damaged: it does not say where {entry.name!r} is, at "
            f"{list(chunk.offsets)}; restore it from a good copy"
        )
    return chunk.item


def _size_of(entry: Entry) -> int:
    return ptfile.ITEMSIZES[entry.dtype]


def _itself(root: Any) -> Any:
    return root


def checked(entry: Entry, chunk: Chunk, where: str) -> Callable[[Any], Any]:
    """Return what picks the tensor of a chunk out of its slice; of stubs and tensors alike.

    What it returns raises `CorruptionError` where the slice holds something else.
    """

    def pick(root: Any) -> Any:
        dtype, shape = getattr(root, "dtype", None), getattr(root, "shape", None)
        if str(dtype).removeprefix("torch.") != entry.dtype or tuple(shape or ()) != chunk.sizes:
            found = type(root).__name__ if shape is None else f"{dtype} of {list(shape)}"
            raise CorruptionError(
                f"{where} is damaged: it holds {found}, where {entry.dtype} of "
                f"{list(chunk.sizes)} belongs; restore it from a good copy"
            )
        return root

    return pick
