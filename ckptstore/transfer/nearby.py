"""Chunks of a file that the destination of a copy has already, and that are nearer there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import cast

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed
from ckptstore.commit.proved import BlockFile
from ckptstore.digests import ALGORITHM, Digest, checksum
from ckptstore.errors import CorruptionError, NotFoundError, SupersededError
from ckptstore.storage.base import Storage

__all__ = ["Nearby", "same_chunks"]


class Nearby:
    """A file of the same name, some of whose chunks are the same.

    Args:
        file: proves what it reads.
        size: bytes in a chunk.
        same: the numbers of the chunks that are the same.
    """

    def __init__(self, file: BlockFile, size: int, same: Collection[int]) -> None:
        self._file = file
        self._size = size
        self._same = same

    @classmethod
    def of(
        cls, place: Storage, there: Committed, name: str, wanted: Digest, stack: ExitStack
    ) -> Nearby | None:
        """Return what a committed state has of a file; None where it has nothing."""
        same = same_chunks(there, name, wanted)
        if not same:
            return None
        try:
            file = stack.enter_context(CommittedFiles(place, there, edits={}).open(name))
        except (CorruptionError, NotFoundError, SupersededError):
            return None
        return cls(cast(BlockFile, file), wanted.chunk_size, same)

    @classmethod
    def left(cls, place: Storage, path: str, wanted: Digest, stack: ExitStack) -> Nearby | None:
        """Return what another write left of a file, as far as it came; None where it is gone.

        Each chunk is proved by what is wanted of it.
        """
        if wanted.algorithm != ALGORITHM:
            return None
        try:
            reader = stack.enter_context(place.open(path))
        except NotFoundError:
            return None

        def check(number: int, parts: Sequence[memoryview]) -> None:
            if checksum(*parts) != wanted.checksums[number]:
                raise CorruptionError(f"chunk {number} of {path} is not what is wanted")

        chunks = range(len(wanted.checksums))
        if reader.size != wanted.size:
            chunks = chunks[: reader.size // wanted.chunk_size]
        file = BlockFile(reader, block_size=wanted.chunk_size, check=check)
        return cls(file, wanted.chunk_size, chunks)

    def holds_all(self, wanted: Digest) -> bool:
        """Whether every chunk is there and is what is wanted, by reading all of them."""
        if len(self._same) != len(wanted.checksums):
            return False
        try:
            self._file.prove()
        except CorruptionError:
            return False
        return True

    def read(self, number: int, data: memoryview) -> bool:
        """Fill memory with a chunk if it is the wanted one; return whether it was."""
        if number not in self._same:
            return False
        try:
            self._file.fill([(number * self._size, data)])
        except (CorruptionError, NotFoundError, SupersededError):
            return False  # Damaged, or gone: the source has it.
        return True


def same_chunks(there: Committed, name: str, wanted: Digest) -> set[int]:
    """Return the numbers of the chunks that a committed state has at the same place of a file."""
    entry = there.manifest.files.get(name)
    if entry is None or (entry.digest.chunk_size, entry.digest.algorithm) != (
        wanted.chunk_size,
        wanted.algorithm,
    ):
        return set()
    pairs = zip(entry.digest.checksums, wanted.checksums, strict=False)
    return {number for number, (mine, theirs) in enumerate(pairs) if mine == theirs}
