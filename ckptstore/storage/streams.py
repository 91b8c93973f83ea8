"""One file of a storage, as bytes that go in or come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ckptstore.storage.entries import Held

__all__ = ["RangeReader", "Sink"]


class Sink(ABC):
    """Takes the bytes of one new file in order.

    Attributes:
        takes_held: whether `lend` makes use of where the storage has the bytes already.
        part_size: bytes of a file, from its beginning on, that `defer` takes at a time, and may
            spare; 0 where it spares nothing.
        waiting: bytes that it took, and that are still on their way.
        spared: how many of the bytes that it took the storage had, and copied by itself; known
            when the file is finished.
    """

    takes_held: bool = False
    part_size: int = 0
    waiting: int = 0
    spared: int = 0

    @abstractmethod
    def write(self, data: memoryview, /) -> object:
        """Take the next bytes, all of them; they may be reused as soon as this returns."""

    def lend(self, data: memoryview, /, held: Held | None = None) -> object:
        """Take the next bytes, which stay as they are until the file is finished or given up.

        So they need not be copied to be on their way while more of them come.

        Args:
            data: the bytes.
            held: where the storage has the very same bytes; a hint, to spare their way.
        """
        return self.write(data)

    def defer(
        self, size: int, supply: Callable[[], memoryview], held: Held | None = None
    ) -> object:
        """Take the next bytes without having them: they are asked for if they are needed.

        Args:
            size: how many; `part_size`, or what is left of the file.
            supply: returns them, and is called at most once, by any thread, also after this has
                returned; what it raises, this or a later call raises, or the end of the write.
            held: where the storage has the very same bytes.
        """
        return self.lend(supply(), held)


class RangeReader(ABC):
    """One file, opened for reading at any place, also by several threads at once.

    A context manager.

    Attributes:
        size: bytes.
        at_once: how many reads are worth having under way at the same time.
        at_most: how many, where each is slow for itself, as over a connection far away; no more
            than ``at_once`` by default.
        read_size: bytes that are worth asking for by one of them.
    """

    size: int
    at_once: int = 1
    at_most: int = 0
    read_size: int = 8 * 2**20

    @abstractmethod
    def readinto(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``start`` on.

        Raises:
            NotFoundError: the file is gone.
            CorruptionError: the file ends before ``target`` is full.
            StorageError: the storage failed.
        """

    def readinto_parts(self, start: int, targets: Sequence[memoryview]) -> None:
        """Fill several pieces of memory, one after the other, with the bytes from ``start`` on.

        Raises:
            NotFoundError, CorruptionError, StorageError: as `readinto`.
        """
        for target in targets:
            self.readinto(start, target)
            start += target.nbytes

    def map(self) -> memoryview | None:
        """Return the file's bytes as memory that is read when it is touched; None if it cannot be.

        What is written into that memory stays there, and never reaches the file.
        """
        return None

    def interrupt(self) -> None:  # noqa: B027  (what is soon done needs none)
        """Make the reads fail that are under way in other threads, and all later ones.

        For whoever gives up, and would have to wait for them.
        """

    def close(self) -> None:  # noqa: B027  (closing nothing is fine)
        """Let go of the file; memory that `map` returned stays."""

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
