"""Slices of files, as files: each holds one stream that `torch.save` wrote."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import BinaryIO, cast

from ckptstore import CorruptionError, NotFoundError, UnsafeError, UnsupportedError
from ckptstore.formats.base import Files
from ckptstore_dcp.metadata import Item

__all__ = ["Slices", "check_plain"]

# What is small is read whole, with what lies behind it: small slices stand side by side.
_SMALL = 2**20
_WINDOW = 256 * 2**10


class Slices:
    """The slices of a folder's files.

    Args:
        files: of the folder.
        named: what to call the file that names the slices, in errors.
    """

    def __init__(self, files: Files, named: str) -> None:
        self._files = files
        self._named = named
        self._there = frozenset(files.names())
        self._sound: set[str] = set()
        self._openers: dict[str, Callable[[], BinaryIO]] = {}

    def check(self, item: Item) -> None:
        """Check that a slice is there, without reading it.

        Raises:
            CorruptionError: its file is absent, or ends before it.
            UnsafeError: its file is a link that leads elsewhere.
        """
        where = f"{item.file} in {self._files.location}"
        if item.file not in self._there:
            raise CorruptionError(
                f"{self._named} names {item.file!r}, which is not there; copy it from where this "
                "checkpoint came from"
            )
        if item.file not in self._sound and self._files.leads_out(item.file):
            raise UnsafeError(
                f"{self._named} names {item.file!r}, a link that leads out of "
                f"{self._files.location}; not followed, put the file itself in its place"
            )
        self._sound.add(item.file)
        size = self._files.size(item.file)
        if item.offset + item.length > size:
            raise CorruptionError(
                f"{where} is truncated: it has {size} bytes, and {self._named} names a slice up to "
                f"byte {item.offset + item.length}; restore it from a good copy"
            )

    def opened(self, items: Iterable[Item]) -> Generator[tuple[Item, BinaryIO]]:
        """Give each slice as a file, in the order of files and offsets; one is open at a time.

        Raises:
            CorruptionError, UnsafeError, UnsupportedError: as `check`, and `check_plain`.
        """
        wanted = sorted(set(items), key=lambda item: (item.file, item.offset))
        for item in wanted:
            check_plain(item, self._named)
            self.check(item)
        for name, group in itertools.groupby(wanted, key=lambda item: item.file):
            with self._open(name) as file:
                yield from self._of_file(file, name, group)

    def opener(self, name: str) -> Callable[[], BinaryIO]:
        """Return what opens a file, the same each time; its slices were checked before."""
        return self._openers.setdefault(name, partial(self._open, name))

    def _open(self, name: str) -> BinaryIO:
        try:
            return self._files.open(name)
        except NotFoundError as error:
            raise CorruptionError(str(error)) from error

    def _of_file(
        self, file: BinaryIO, name: str, items: Iterable[Item]
    ) -> Iterator[tuple[Item, BinaryIO]]:
        window, start, size = b"", 0, self._files.size(name)
        for item in items:
            if item.length > _SMALL:
                yield item, cast(BinaryIO, _Slice(file, item.offset, item.length))
                continue
            if item.offset < start or item.offset + item.length > start + len(window):
                start = item.offset
                window = _exactly(file, start, min(size - start, max(item.length, _WINDOW)), name)
            yield item, io.BytesIO(window[item.offset - start :][: item.length])


def check_plain(item: Item, named: str) -> None:
    """Refuse a slice that went through something before it was written.

    Raises:
        UnsupportedError: it was compressed, or changed in some other way.
    """
    if item.transforms:
        raise UnsupportedError(
            f"{named} says that what is in {item.file} went through "
            f"{', '.join(map(repr, item.transforms))}, which is not read here; load it with "
            "torch.distributed.checkpoint, and save it again without that extension"
        )


def _exactly(file: BinaryIO, start: int, length: int, name: str) -> bytes:
    file.seek(start)
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            raise CorruptionError(f"{name} became shorter while it was read; open it again")
        data += more
    return data


class _Slice(io.RawIOBase):
    """A part of a file, as a file to read and seek in."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__()
        self._file = file
        self._offset = offset
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError(f"cannot seek to {start + offset}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        target = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        if not target:
            return 0
        self._file.seek(self._offset + self._at)
        count: int = self._file.readinto(target)  # type: ignore[attr-defined]
        self._at += count
        return count
