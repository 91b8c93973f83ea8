"""What a storage is: bytes under names below one location.

Rules that every storage keeps, because the commit is built on them:

1. A name is relative, has ``/`` between its parts and never a glob in it: it is taken literally.
2. `create` and `writer` never replace anything. Where the service cannot promise that between
   several writers, `create_only` answers False and one writer still gets it by looking first.
3. What `writer` has not finished does not exist: an exception inside it leaves nothing.
4. When a call returns and ``durable`` was asked for, it survives a loss of power.
5. Errors are ckptstore's, and no credential is ever in one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from ckptstore.errors import ConflictError, StorageError, SupersededError

__all__ = [
    "AlreadyThereError",
    "Elsewhere",
    "Entry",
    "Held",
    "Listing",
    "RangeReader",
    "Sink",
    "Storage",
    "Unfinished",
    "UnknownOutcomeError",
    "worth_keeping",
]


class AlreadyThereError(ConflictError):
    """The name to be created exists; nothing was written."""


class UnknownOutcomeError(StorageError):
    """The reply was lost: the write may have happened, or may still."""


def worth_keeping(error: BaseException) -> bool:
    """Whether what was stored until a failure is as good as before.

    So it is where the way failed, where a person interrupted it, and where what was copied was
    replaced meanwhile: much of what came after may be the same.
    """
    return isinstance(error, StorageError | SupersededError) or not isinstance(error, Exception)


@dataclass(frozen=True)
class Entry:
    """One file as a listing shows it.

    Attributes:
        name: relative to the storage.
        size: bytes.
        modified: when its bytes or its names last changed, in seconds since 1970 by the clock of
            the storage, which need not be this machine's; 0.0 where the storage does not say.
        version: changes whenever the file is replaced (inode and size, ETag); None where the
            storage has no such thing.
    """

    name: str
    size: int
    modified: float
    version: str | None


@dataclass(frozen=True)
class Listing:
    """The files and the subfolders directly in a folder, by their names in it."""

    files: dict[str, Entry]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun, and neither finished nor given up: bytes that nobody sees.

    Attributes:
        name: of the file that it would become, relative to the storage.
        upload: what the service knows it by.
        age: seconds since it was begun, by the service's own clock; None where the dates that
            the service gives cannot be believed.
    """

    name: str
    upload: str
    age: float | None


@dataclass(frozen=True)
class Held:
    """Where a storage has some bytes already.

    Attributes:
        name: of the file, relative to the storage; one that is never changed.
        start: of the bytes in it.
        storage: which, where it is another one of the same service; see `Storage.beside`.
    """

    name: str
    start: int
    storage: Storage | None = None


@dataclass(frozen=True)
class Elsewhere:
    """How another process of this machine reaches the same storage.

    Attributes:
        location: for `ckptstore.storage.connect`.
        options: for the same; secrets among them.
    """

    location: str | os.PathLike[str]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Sink(ABC):
    """Takes the bytes of one new file in order.

    Attributes:
        takes_held: whether `lend` makes use of where the storage has the bytes already.
        part_size: bytes of a file, from its beginning on, that `defer` takes at a time, and may
            spare; 0 where it spares nothing.
        waiting: bytes that it took, and that are still on their way.
    """

    takes_held: bool = False
    part_size: int = 0
    waiting: int = 0

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
        read_size: bytes that are worth asking for by one of them.
    """

    size: int
    at_once: int = 1
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

    def close(self) -> None:  # noqa: B027  (closing nothing is fine)
        """Let go of the file; memory that `map` returned stays."""

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Storage(ABC):
    """Bytes under names below one location.

    Attributes:
        location: for people: the URL or path, without credentials.
        content_versions: whether an `Entry.version` changes with every change of the bytes (an
            ETag) and not only when the file is replaced (an inode).
        taking_over: what it takes for a file that is there to stand for a new one of the same
            bytes: ``proof`` where that costs little beside writing them, ``nothing`` where the
            service itself answers for its bytes, ``never`` where neither holds.
        at_once: how many small requests are worth having under way at the same time.
    """

    location: str
    at_once: int = 1
    content_versions: bool = False
    taking_over: Literal["proof", "nothing", "never"] = "never"

    def elsewhere(self) -> Elsewhere | None:
        """Return how another process reaches it; None where none can, or where it is not known."""
        return None

    # -- looking ------------------------------------------------------------------------

    @abstractmethod
    def list(self, folder: str = "") -> Listing:
        """Return what is directly in a folder; an absent folder is an empty one.

        Raises:
            NotFoundError: the bucket itself is absent.
            StorageError: the storage failed, or ``folder`` is a file.
        """

    @abstractmethod
    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """Return, sorted, the subfolders of ``folder`` called ``prefix...`` that hold ``name``.

        The answer is one moment's state even where listings are not atomic: the subfolders are
        looked into in ascending order, and the answer is believed only if the set of subfolders
        is the same afterwards.

        Raises:
            StorageError: the set never came to rest.
        """

    @abstractmethod
    def entry(self, name: str) -> Entry | None:
        """Return the file of this name, or None."""

    def leads_out(self, name: str) -> bool:
        """Whether links lead from this name to somewhere outside of the location (G5)."""
        return False

    # -- reading ------------------------------------------------------------------------

    @abstractmethod
    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return a whole file, or its first ``limit`` bytes.

        Raises:
            NotFoundError: there is no such file.
        """

    @abstractmethod
    def open(self, name: str) -> RangeReader:
        """Open a file for reading at any place.

        Raises:
            NotFoundError: there is no such file.
        """

    # -- writing ------------------------------------------------------------------------

    @abstractmethod
    def create_only(self, name: str, data: bytes) -> bool:
        """Whether `create` is refused, by the service itself, where something is there already.

        Local disk and memory know it. S3 is asked once per endpoint and bucket, by creating
        ``name`` again, a file that this write has just created from ``data``: where the answer
        is no, the same bytes were written once more and nobody was harmed.
        """

    @abstractmethod
    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Create a small file whole and exclusively; folders are made as needed.

        Raises:
            AlreadyThereError: the name is taken. (After a lost reply it may be our own.)
            UnknownOutcomeError: no reply came, and the request may still land.
        """

    @abstractmethod
    def writer(
        self,
        name: str,
        *,
        expected_size: int = 0,
        durable: bool = True,
        resident: bool = True,
        lasting: bool = False,
    ) -> AbstractContextManager[Sink]:
        """Create a file of any size exclusively, in bounded memory.

        Leaving the block finishes the file; an exception in it leaves nothing behind.

        Args:
            expected_size: bytes, a hint for the size of parts.
            resident: whether what is lent is in memory anyhow; otherwise little of it is kept, and
                parts are small.
            lasting: whether what was stored stays where the block ends in a failure of the way
                (see `worth_keeping`): a file that is not whole, or an unfinished upload.

        Raises:
            AlreadyThereError: the name is taken, found at the start or at the end.
        """

    def whole(
        self, name: str, *, expected_size: int = 0, durable: bool = True
    ) -> AbstractContextManager[Sink]:
        """Create a file as `writer` does, of which nobody sees a part under its name.

        Not even whoever looks after a kill: so it needs no manifest to say that all is there.
        Storages whose `writer` shows nothing before the end have nothing to add; any other fsspec
        filesystem shows what it shows.

        Raises:
            AlreadyThereError: the name is taken, found at the start or at the end.
        """
        return self.writer(name, expected_size=expected_size, durable=durable)

    @abstractmethod
    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Put a small file in place of whatever has the name, in one operation."""

    @abstractmethod
    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """Replace a small file only if it still holds ``expected``; return whether it did.

        Raises:
            UnsupportedError: the storage cannot do this in one operation.
        """

    @abstractmethod
    def copy(self, source: str, name: str, *, durable: bool = True) -> None:
        """Put the bytes of ``source`` under ``name`` too, in place of whatever is there.

        A hard link on local disk, a server-side copy on S3; never through this machine's memory
        where the storage can do it by itself.

        Raises:
            NotFoundError: there is no such source.
        """

    def beside(self, other: Storage) -> bool:
        """Whether another storage is one of the same service, which can copy between the two."""
        return False

    def fetch(self, origin: Storage, source: str, name: str) -> bool:
        """Have a file of another storage put under a name here, without its bytes coming here.

        Args:
            origin: the other storage, `beside` this one.
            source: the name there.
            name: what it is called here; whatever has the name is replaced.

        Returns:
            False where the two cannot do that by themselves; then nothing was changed.
        """
        return False

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; an absent one is no error.

        Folders that are empty afterwards go too, but not the location's own.
        """

    @abstractmethod
    def flush(self, folder: str) -> None:
        """Make what is in a folder durable, bytes and names, but not what is in its subfolders.

        On local disk that is an fsync of each file; elsewhere there is nothing to do.
        """

    def composes(self) -> bool:
        """Whether it makes files by itself of what other files hold, here or `beside` it.

        Then what `Sink.defer` is told to be held does not pass through this machine.
        """
        return False

    def time(self) -> float | None:
        """Return what time it is by the service's own clock, asked with one small request.

        In seconds since 1970; None where there is nobody to ask, or no answer has a date.

        Raises:
            StorageError: the service failed, or refused to list what is there.
        """
        return None

    # -- what was never finished ------------------------------------------------------------

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return the uploads below this location that were neither finished nor given up.

        Most storages have no such thing: what a writer left there is a file.

        Raises:
            StorageError: the service did not say.
        """
        return ()

    def continued(self, upload: Unfinished, *, expected_size: int) -> AbstractContextManager[Sink]:
        """Go on with an upload that a `writer` of the same size left, and finish it.

        The sink is to get the whole file by `Sink.defer`; what is there already is not asked for.
        Leaving the block finishes the file; an exception in it leaves the upload as it is.

        Args:
            upload: from `unfinished`.
            expected_size: bytes of the whole file, with which it was begun.

        Raises:
            StorageError: the upload is gone, or is not one of such a file.
        """
        raise StorageError(f"{self.location} has no uploads that could go on")

    def give_up(self, upload: Unfinished) -> None:  # noqa: B027  (there are none to give up)
        """Have the service forget an upload and its parts; one that is gone is no error.

        Raises:
            StorageError: the service failed.
        """
