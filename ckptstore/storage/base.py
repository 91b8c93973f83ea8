"""What a storage is: bytes under names below one location.

Rules that every storage keeps, because the commit is built on them:

1. A name is relative, has ``/`` between its parts and never a glob in it: it is taken literally.
2. `create` and `writer` never replace anything. Where the service cannot promise that between
   several writers, `create_only` answers False and one writer still gets it by looking first.
3. What `writer` has not finished counts for nothing: an exception inside it leaves nothing, but
   for what was asked to be ``lasting``.
4. When a call returns and ``durable`` was asked for, it survives a loss of power.
5. Errors are ckptstore's, and no credential is ever in one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

from ckptstore.errors import StorageError
from ckptstore.storage.entries import (
    AlreadyThereError,
    Elsewhere,
    Entry,
    Held,
    Listing,
    Unfinished,
    UnknownOutcomeError,
    worth_keeping,
)
from ckptstore.storage.streams import RangeReader, Sink

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


class Storage(ABC):
    """Bytes under names below one location.

    Attributes:
        location: for people: the URL or path, without credentials.
        content_versions: whether an `Entry.version` changes with every change of the bytes (an
            ETag) and not only when the file is replaced (an inode).
        taking_over: what it takes for a file that is there to stand for a new one of the same
            bytes: ``proof`` where that costs little beside writing them, ``nothing`` where the
            service itself answers for its bytes, ``never`` where neither holds.
        lists_in_order: whether a listing shows names in ascending order, each as it is when its
            turn comes; so of two, the higher made before the lower goes, it shows at least one.
        at_once: how many small requests are worth having under way at the same time.
    """

    location: str
    at_once: int = 1
    lists_in_order: bool = False
    content_versions: bool = False
    taking_over: Literal["proof", "nothing", "never"] = "never"

    def elsewhere(self) -> Elsewhere | None:
        """Return how another process reaches it; None where none can, or where it is not known."""
        return None

    def on_disk(self, name: str) -> str | None:
        """Return the path of a name on a disk of this machine; None where it is on none."""
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
        """Return the subfolders of ``folder`` called ``prefix...`` that hold ``name``, ascending.

        Of two the shorter one comes first: that is the order of the numbers in their names.

        The answer is one moment's state even where listings are not atomic: the subfolders are
        looked into in ascending order, and the answer is believed only if the set of subfolders
        is the same afterwards.

        Raises:
            StorageError: the set never came to rest.
        """

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """Return what `holding` does for the first of some names, with the files themselves.

        Costs no more than `holding` where one listing shows all files.

        Args:
            folder, prefix: as `holding` has them.
            names: of files; a subfolder counts where it holds the first of them.

        Returns:
            The subfolders in the order of their numbers, each with those of the names that it
            holds.
        """
        found = {}
        for subfolder in self.holding(folder, prefix, names[0]):
            inside = f"{folder}/{subfolder}" if folder else subfolder
            entries = {name: self.entry(f"{inside}/{name}") for name in names}
            found[subfolder] = {name: entry for name, entry in entries.items() if entry}
        return {subfolder: files for subfolder, files in found.items() if names[0] in files}

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
    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """Put the bytes of ``source`` under ``name`` too, in place of whatever is there.

        A hard link on local disk, a server-side copy on S3; never through this machine's memory
        where the storage can do it by itself.

        Args:
            source: the file whose bytes they are.
            name: the other name.
            only_new: replace nothing, as `create` does not.

        Raises:
            NotFoundError: there is no such source.
            AlreadyThereError: the name is to be new, and is taken; nothing was changed.
            UnsupportedError: the name is to be new, and the storage does not do both by itself,
                or not for less than it costs to write the bytes; nothing was changed.
            UnknownOutcomeError: no reply came, and the request may still land.
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
