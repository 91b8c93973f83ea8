"""The `.pt` container, read without torch: its directory, and what its pickle says.

A `.pt` is a zip of stored records: ``data.pkl`` says which tensors there are and looks into the
records ``data/0``, ``data/1``, ... for their bytes. `read` looks at the directory and the pickle
alone, builds stubs and runs nothing (G5). `read_pickle` does the same to a pickle that stands
alone. `docs/plugins.md` says what of this a format's author may count on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.manifest import TensorInfo
from ckptstore.ptfile.archive import Archive, Record, Spans, read_archive, read_at
from ckptstore.ptfile.bare import MOST_PICKLE, read_pickle
from ckptstore.ptfile.crc import crc32
from ckptstore.ptfile.fields import MOST_FIELDS, MOST_LETTERS, NOT_JSON, as_json, parted
from ckptstore.ptfile.names import chosen, flattened, repaired, repaired_names, unwrapped
from ckptstore.ptfile.numbers import FORMS, decoded
from ckptstore.ptfile.pickles import unpickle
from ckptstore.ptfile.structure import structure
from ckptstore.ptfile.stubs import ITEMSIZES, Instance, Name, Size, StorageStub, TensorStub, Token
from ckptstore.structure import Structure

__all__ = [
    "ITEMSIZES",
    "MOST_FIELDS",
    "MOST_LETTERS",
    "MOST_PICKLE",
    "NOT_JSON",
    "Archive",
    "Instance",
    "Name",
    "PtFile",
    "Record",
    "Size",
    "StorageStub",
    "TensorStub",
    "Token",
    "as_json",
    "check_crc32",
    "check_record",
    "check_records",
    "chosen",
    "flattened",
    "index",
    "infos",
    "parted",
    "read",
    "read_pickle",
    "repaired",
    "repaired_names",
    "structure",
    "unwrapped",
]

_PIECE = 2**20


@dataclass(frozen=True)
class PtFile:
    """What a `.pt` holds, its tensors as stubs.

    Attributes:
        archive: the directory.
        root: the object that was saved, with stubs in the place of all that is torch's.
        stubs: every tensor in it, by the keys that lead to it, joined by dots; a wrapper
            ``{"state_dict": ...}`` is left out of the names.
        byteorder: of the numbers in the records: ``little`` or ``big``.
        named: what the pickle refers to.
    """

    archive: Archive
    root: Any
    stubs: Mapping[str, TensorStub]
    byteorder: str
    named: frozenset[str] = frozenset()

    @property
    def records(self) -> Mapping[str, Record]:
        """Each record by name, such as ``data/0``."""
        return self.archive.records

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Each tensor by name."""
        return infos(self.stubs, self.records)

    def structure(self, optimizer: Any = None) -> Structure:
        """Return what the pickle says beside its tensors.

        Args:
            optimizer: the part of `root` that is an optimizer's state dict; all of it by default.
        """
        return structure(self.stubs, self.named, self.root if optimizer is None else optimizer)

    def number(self, file: BinaryIO, stub: Any) -> bool | int | float | None:
        """Return the number in a tensor of one element, by reading its record, without torch (G4).

        Args:
            file: the one that this was read from.
            stub: a tensor of it; anything else is no such tensor.

        Returns:
            The number; None for what is no tensor, holds more or less than one element, is sparse,
            quantized or complex, or looks into a record of more than a MiB.

        Raises:
            CorruptionError: the record is damaged; the message names it.
        """
        if not isinstance(stub, TensorStub) or stub.dtype not in FORMS:
            return None
        if math.prod(stub.shape) != 1 or not stub.plain or stub.record is None:
            return None
        record, size = self.records[stub.record], ITEMSIZES[stub.dtype]
        if record.size > _PIECE:
            return None
        data = read_at(file, self.archive.start(file, record), record.size, self.archive.where)
        check_crc32(record, crc32(data), self.archive.where)
        return decoded(data[stub.offset * size :][:size], stub.dtype, self.byteorder)


def read(file: BinaryIO, where: str) -> PtFile:
    """Return what a `.pt` holds, from a few small reads: its directory and its pickle (G5).

    Args:
        file: seekable; left open.
        where: what to call it in errors, such as ``model.pt in s3://bucket/dante``.

    Raises:
        CorruptionError: it is no `.pt`, is truncated or malformed, or claims what it lacks.
        UnsafeError: it holds more than tensors, numbers, text and containers of these, or is in
            a form that cannot be checked before it is read; nothing was run.
    """
    spans = Spans(file, where)
    archive = read_archive(spans, where)
    data = _record(spans, archive, "data.pkl", MOST_PICKLE)
    sizes = {name: record.size for name, record in archive.records.items()}
    root, named = unpickle(data, sizes, where)
    byteorder = "little"
    record = archive.records.get("byteorder")
    if record is not None and record.size > len(byteorder):
        byteorder = f"one of {record.size} letters"
    elif record is not None:
        byteorder = _record(spans, archive, "byteorder", record.size).decode("ascii", "replace")
    if byteorder not in ("little", "big"):
        raise CorruptionError(
            f"{where} is damaged: its byte order is {byteorder!r}; restore it from a good copy"
        )
    return PtFile(archive, root, flattened(root, where), byteorder, named)


def index(file: BinaryIO, where: str) -> dict[str, TensorInfo]:
    """Return the tensors in a `.pt` by name; that it returns proves the file safe to load.

    Args:
        file: seekable; left open.
        where: what to call it in errors.

    Raises:
        CorruptionError: as `read`.
        UnsafeError: as `read`.
    """
    return read(file, where).tensors


def check_records(file: BinaryIO, where: str) -> None:
    """Read a whole `.pt`, and compare every record with its CRC-32, in bounded memory (G4).

    Args:
        file: seekable; left open.
        where: what to call it in errors.

    Raises:
        CorruptionError: a record is damaged; the message names it. Also as `read`.
        UnsafeError: as `read`.
    """
    archive = read(file, where).archive
    for record in sorted(archive.records.values(), key=lambda record: record.header):
        check_record(file, archive, record)


def check_record(file: BinaryIO, archive: Archive, record: Record) -> None:
    """Read one record, and compare it with its CRC-32, in bounded memory (G4).

    Args:
        file: seekable; left open.
        archive: its directory.
        record: which.

    Raises:
        CorruptionError: it is damaged; the message names it.
    """
    start, found = archive.start(file, record), 0
    for done in range(0, record.size, _PIECE):
        piece = read_at(file, start + done, min(_PIECE, record.size - done), archive.where)
        found = crc32(piece, found)
    check_crc32(record, found, archive.where)


def check_crc32(record: Record, found: int, where: str) -> None:
    """Compare the CRC-32 of a record's bytes with what the directory says.

    Raises:
        CorruptionError: they differ.
    """
    if found != record.crc32:
        raise CorruptionError(
            f"{where} is damaged: its record {record.name!r} has the CRC-32 {found:08x}, its "
            f"directory says {record.crc32:08x}; restore it from a good copy"
        )


def infos(stubs: Mapping[str, TensorStub], records: Mapping[str, Record]) -> dict[str, TensorInfo]:
    """Return what is known of tensors without reading them."""
    return {
        name: TensorInfo(
            dtype=stub.dtype,
            shape=stub.shape,
            nbytes=stub.nbytes,
            crc32=None if stub.record is None else records[stub.record].crc32,
        )
        for name, stub in stubs.items()
    }


def _record(spans: Spans, archive: Archive, name: str, most: int) -> bytes:
    record = archive.records[name]
    if record.size > most:
        raise UnsupportedError(
            f"{archive.where} has a {name} of {record.size} bytes, the most is {most}; "
            "keep long lists as tensors"
        )
    # One read for header and bytes: the names, the padding and the record lie together.
    start = archive.start(spans, record)
    data = read_at(spans, start, record.size, archive.where)
    check_crc32(record, crc32(data), archive.where)
    return data
