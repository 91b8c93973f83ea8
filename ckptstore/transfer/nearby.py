"""Chunks of a file that the destination of a copy has already, and that are nearer there."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import BinaryIO

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed
from ckptstore.digests import Digest
from ckptstore.errors import CorruptionError, NotFoundError, SupersededError
from ckptstore.storage.base import Storage

__all__ = ["Nearby", "read_exactly"]


class Nearby:
    """A file of the same name, some of whose chunks are the same.

    Args:
        file: proves what it reads.
        size: bytes in a chunk.
        same: the numbers of the chunks that are the same.
    """

    def __init__(self, file: BinaryIO, size: int, same: Collection[int]) -> None:
        self._file = file
        self._size = size
        self._same = same

    @classmethod
    def of(
        cls, place: Storage, there: Committed, name: str, wanted: Digest, stack: ExitStack
    ) -> Nearby | None:
        """Return what a committed state has of a file; None where it has nothing."""
        entry = there.manifest.files.get(name)
        if entry is None or (entry.digest.chunk_size, entry.digest.algorithm) != (
            wanted.chunk_size,
            wanted.algorithm,
        ):
            return None
        pairs = zip(entry.digest.checksums, wanted.checksums, strict=False)
        same = {number for number, (mine, theirs) in enumerate(pairs) if mine == theirs}
        if not same:
            return None
        try:
            file = stack.enter_context(CommittedFiles(place, there, edits={}).open(name))
        except (CorruptionError, NotFoundError, SupersededError):
            return None
        return cls(file, wanted.chunk_size, same)

    def read(self, number: int, data: memoryview) -> bool:
        """Fill memory with a chunk if it is the wanted one; return whether it was."""
        if number not in self._same:
            return False
        try:
            read_exactly(self._file, number * self._size, data)
        except (CorruptionError, NotFoundError, SupersededError):
            return False  # Damaged, or gone: the source has it.
        return True


def read_exactly(file: BinaryIO, start: int, data: memoryview) -> None:
    """Fill memory with the bytes of a file from ``start`` on.

    Raises:
        CorruptionError: the file ends before.
    """
    file.seek(start)
    done = 0
    while done < len(data):
        count = file.readinto(data[done:])  # type: ignore[attr-defined]
        if not count:
            raise CorruptionError(
                f"a file ended after {start + done} bytes while it was copied, where "
                f"{start + len(data)} were expected; nothing was committed, copy again"
            )
        done += count
