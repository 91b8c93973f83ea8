"""The records of a `.pt`: read into memory, and checked on the way."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.ptfile import Archive, Record, check_crc32
from ckptstore.ptfile.crc import crc32

__all__ = ["Records", "TorchFile"]

_LOCAL_HEADER = 30
_PIECE = 2**20


class Records:
    """Reads records of one file.

    Args:
        file: seekable.
        archive: its directory.
        proved: whether its bytes are proved already; otherwise the CRC-32 is checked.
    """

    def __init__(self, file: BinaryIO, archive: Archive, *, proved: bool) -> None:
        self.archive = archive
        self.proved = proved
        self._file = file
        self._seen: set[str] = set()

    def start(self, record: Record) -> int:
        """Return where a record begins, once its local header agrees with the directory."""
        return self.archive.start(self._file, record)

    def read_into(self, name: str, target: memoryview) -> None:
        """Fill memory with a record of exactly that size, and check it.

        Raises:
            CorruptionError: the bytes are not those of the directory's CRC-32.
        """
        record = self.archive.records[name]
        self.fill(self.start(record), target)
        self.check(record, target)

    def read_all(self, targets: Mapping[str, memoryview]) -> None:
        """Fill memory with many records, each of exactly its size, and check them.

        Raises:
            CorruptionError: as `read_into`.
        """
        scattered = getattr(self._file, "fill", None)
        if scattered is None:
            for name, target in targets.items():
                self.read_into(name, target)
            return
        found = [self.archive.records[name] for name in targets]
        headers = {record.name: memoryview(bytearray(record.header_size)) for record in found}
        for record in list(found):
            if record.expected_start < record.header + record.header_size:
                # Directory and local header disagree about what follows the bytes.
                self.read_into(record.name, targets[record.name])
                found.remove(record)
        scattered(
            [(record.header, headers[record.name]) for record in found]
            + [(record.expected_start, targets[record.name]) for record in found]
        )
        for record in found:
            start = self.archive.agreed(record, headers[record.name])
            if start != record.expected_start:
                self.fill(start, targets[record.name])
        self._check_all({record: targets[record.name] for record in found})

    def map(self) -> memoryview:
        """Return the whole file as memory.

        Raises:
            UnsupportedError: it is on a storage that cannot map it.
        """
        mapped: memoryview | None = getattr(self._file, "map", lambda: None)()
        if mapped is None:
            raise UnsupportedError(
                f"{self.archive.where} cannot be mapped, for it is on no local disk; "
                "load it without mmap"
            )
        if len(mapped) != self.archive.size:
            raise CorruptionError(
                f"{self.archive.where} has changed its size while it was opened; open it again"
            )
        return mapped

    def prove_all(self, names: Iterable[str], mapped: memoryview) -> None:
        """Check all blocks of a file that has a manifest, else these records, as they are mapped.

        Raises:
            CorruptionError: they are not what they have to be.
        """
        if self.proved:
            self._file.prove()  # type: ignore[attr-defined]
            return
        found = [self.archive.records[name] for name in names]
        starts = {record: self.start_in(mapped, record) for record in found}
        self._check_all({one: mapped[start:][: one.size] for one, start in starts.items()})

    def start_in(self, mapped: memoryview, record: Record) -> int:
        """Return where a record begins in a mapped file, once its header was looked at."""
        header = mapped[record.header : record.header + record.header_size]
        return self.archive.agreed(record, header)

    def prove_before(self, names: Iterable[str]) -> None:
        """Check a whole file that has a manifest, else these records, and keep nothing of it.

        Raises:
            CorruptionError: they are not what they have to be.
        """
        if self.proved and hasattr(self._file, "prove"):
            self._file.prove()
        else:
            self.prove(sorted(names))

    def _check_all(self, targets: Mapping[Record, memoryview]) -> None:
        """Compare records with their CRC-32, unless the file is proved; several at once."""
        if self.proved:
            return
        with ThreadPoolExecutor(os.cpu_count(), "ckptstore-crc32") as pool:
            sums = pool.map(crc32, targets.values())
            for record, found in zip(targets, sums, strict=True):
                self._compare(record, found)

    def fill(self, start: int, target: memoryview) -> None:
        """Fill memory with the bytes from ``start`` on, whatever they are."""
        self._file.seek(start)
        done = 0
        while done < len(target):
            count = self._file.readinto(target[done:])  # type: ignore[attr-defined]
            if not count:
                raise CorruptionError(
                    f"{self.archive.where} is truncated: it ends at byte {start + done}; "
                    "restore it from a good copy"
                )
            done += count

    def check(self, record: Record, data: memoryview) -> None:
        """Compare the bytes of a whole record with its CRC-32, unless the file is proved."""
        if not self.proved:
            self._compare(record, crc32(data))

    def prove(self, names: Iterable[str]) -> None:
        """Check records that nobody has read as a whole yet, piece by piece."""
        if self.proved:
            return
        for name in names:
            record = self.archive.records[name]
            if name in self._seen:
                continue
            start, found = self.start(record), 0
            buffer = memoryview(bytearray(min(_PIECE, record.size)))
            for done in range(0, record.size, _PIECE):
                piece = buffer[: record.size - done]
                self.fill(start + done, piece)
                found = crc32(piece, found)
            self._compare(record, found)

    def _compare(self, record: Record, found: int) -> None:
        check_crc32(record, found, self.archive.where)
        self._seen.add(record.name)


class TorchFile:
    """The file as torch reads it: it keeps the first exception, and knows the directory.

    torch reads a record's local header, and then the record by one `readinto` into the memory of
    its storage: there it is checked.
    """

    def __init__(self, records: Records) -> None:
        self.failure: BaseException | None = None
        self._records = records
        self._size = records.archive.size
        self._at = 0
        self._headers = {record.header: record for record in records.archive.records.values()}
        self._starts: dict[int, Record] = {}
        self._reading: Record | None = None
        self._taken: Counter[str] = Counter()

    def unread(self, names: Iterable[str]) -> list[str]:
        """Return those records of which torch has not taken every byte."""
        found = self._records.archive.records
        return [name for name in names if self._taken[name] < found[name].size]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, or all that are left."""
        left = max(0, self._size - self._at)
        buffer = bytearray(left if size < 0 else min(size, left))
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def readline(self) -> bytes:
        """Refuse: torch asks that it is there, and calls it for pickles alone."""
        raise io.UnsupportedOperation("a zip has no lines")

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the file goes, and return how many bytes that is."""
        try:
            target = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
            if self._at in self._headers and len(target) == _LOCAL_HEADER:
                record = self._headers[self._at]
                self._starts[self._records.start(record)] = record
            self._records.fill(self._at, target)
            whole = self._starts.get(self._at)
            self._count(whole, len(target))
            if whole is not None and len(target) == whole.size:
                self._records.check(whole, target)
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self._at += len(target)
        return len(target)

    def _count(self, begun: Record | None, taken: int) -> None:
        record = begun or self._reading
        self._reading = record
        if record is not None and record.header < self._at < record.limit:
            self._taken[record.name] += taken
