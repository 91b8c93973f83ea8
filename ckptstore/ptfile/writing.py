"""Writes the `.pt` container in one pass: the zip that torch writes, record after record.

The bytes are those of `torch.save`, but for the record ``.data/serialization_id``, whose number
torch makes of a hash that differs between standard libraries; so equal records give equal files.
CRC-32 and sizes follow each record's data, as in torch's own files: nothing is sought. What is
small travels together with what stands beside it, since each piece costs a dozen calls.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Protocol

from ckptstore.ptfile.crc import crc32

__all__ = ["Taker", "Writer"]

_FOLDER = b"archive/"
_ALIGNMENT = 64
_FULL = 0xFFFFFFFF
_SMALL = 16 * 2**10
_TOGETHER = 64 * 2**10
_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_SHORT = struct.Struct("<4sIII")
_LONG = struct.Struct("<4sIQQ")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")


class Taker(Protocol):
    """Takes the file's bytes in order."""

    def write(self, data: memoryview, /) -> object:
        """Take bytes that may be reused as soon as this returns."""

    def lend(self, data: memoryview, /) -> object:
        """Take bytes that stay as they are."""


class Writer:
    """One `.pt` that is being written.

    Args:
        sink: takes the bytes.
    """

    def __init__(self, sink: Taker) -> None:
        self._sink = sink
        self._at = 0
        self._together = bytearray()
        self._directory = bytearray()
        self._count = 0
        self._id = hashlib.sha256()

    def record(
        self, name: str, pieces: Iterable[memoryview], size: int, *, lent: bool = True
    ) -> None:
        """Write one record.

        Args:
            name: below the archive's folder, such as ``data/0``.
            pieces: its bytes, in order.
            size: of all pieces together.
            lent: whether the pieces stay as they are until the file is finished.
        """
        member, header = _FOLDER + name.encode(), self._at
        self._own(_local_header(member, header, size))
        give = self._sink.lend if lent else self._sink.write
        crc, left = 0, size
        for piece in pieces:
            crc = crc32(piece, crc)
            left -= len(piece)
            if len(piece) <= _SMALL:
                self._gather(piece)
            else:
                self._send()
                give(piece)
        if left:
            raise ValueError(f"the record {name!r} has {size - left} bytes, not {size}")
        self._at += size
        if size:
            long = max(size, header) >= _FULL
            self._own((_LONG if long else _SHORT).pack(b"PK\7\x08", crc, size, size))
        self._directory += _entry(member, header, size, crc)
        self._count += 1
        self._id.update(_SHORT.pack(b"", crc, size & _FULL, len(member)) + member)

    def finish(self) -> None:
        """Write what torch adds to every file, and the directory."""
        self.record("version", [memoryview(b"3\n")], 2)
        digits = int.from_bytes(self._id.digest()[:16], "big") % 10**40
        self.record(".data/serialization_id", [memoryview(f"{digits:040}".encode())], 40)
        start, size, count = self._at, len(self._directory), self._count
        end64 = _END64.pack(
            b"PK\6\6", _END64.size - 12, 0x031E, 45, 0, 0, count, count, size, start
        )
        locator = _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
        short = min(count, 0xFFFF)
        end = _END.pack(b"PK\5\6", 0, 0, short, short, min(size, _FULL), min(start, _FULL), 0)
        self._own(bytes(self._directory) + end64 + locator + end)
        self._send()

    def _own(self, data: bytes) -> None:
        self._gather(data)
        self._at += len(data)

    def _gather(self, data: bytes | memoryview) -> None:
        self._together += data
        if len(self._together) >= _TOGETHER:
            self._send()

    def _send(self) -> None:
        if self._together:
            self._sink.lend(memoryview(self._together))
            self._together = bytearray()


def _local_header(member: bytes, header: int, size: int) -> bytes:
    """Return the header of a record, filled up so that its data are aligned."""
    extra = _long_sizes(header, size, 0)  # What is stored follows the data.
    start = header + _LOCAL.size + len(member) + len(extra) + 4
    filler = -start % _ALIGNMENT
    extra += struct.pack("<2sH", b"FB", filler) + b"Z" * filler
    fields = _LOCAL.pack(b"PK\3\4", 0, _flags(size), 0, 0, 0, 0, 0, 0, len(member), len(extra))
    return fields + member + extra


def _entry(member: bytes, header: int, size: int, crc: int) -> bytes:
    """Return a record's entry in the directory."""
    extra, short = _long_sizes(header, size, size), min(size, _FULL)
    fields = _CENTRAL.pack(
        *(b"PK\1\2", 0, 0, _flags(size), 0, 0, 0, crc, short, short),
        *(len(member), len(extra), 0, 0, 0, 0, min(header, _FULL)),
    )
    return fields + member + extra


def _flags(size: int) -> int:
    return _UTF8 | _SIZES_FOLLOW if size else _UTF8


def _long_sizes(header: int, size: int, stored: int) -> bytes:
    """Return the zip64 field: of the numbers that do not fit into 32 bits, and of no others."""
    numbers = [size, stored] if size >= _FULL else []
    if header >= _FULL:
        numbers.append(header)
    if not numbers:
        return b""
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)
