"""One write that is under way: files first, then the manifest, create-only.

Rule 1: until the manifest is there, nothing exists for anyone, and this attempt removes what it
wrote when it fails, but for what was to last. Rule 2: a definite refusal (another's manifest is
there) is a `ConflictError`. Rule 3: a lost reply is settled by reading back and comparing the
write id; where that cannot be settled the files stay, and `error.committed` is None. Rule 4: an
attempt older than twelve hours gives up, because cleaners take files without a manifest for
leftovers after a day; and one whose files somebody removed commits nothing, or takes its commit
back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from ckptstore.commit.intact import check_files, late_if_removed, short, torn_manifest
from ckptstore.commit.layout import Committed, read_manifest
from ckptstore.commit.stored import Stored
from ckptstore.commit.writing import Index, Writing
from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    StorageError,
    SupersededError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import (
    AlreadyThereError,
    UnknownOutcomeError,
    worth_keeping,
)
from ckptstore.wording import size

__all__ = ["Attempt", "Index"]

log = logging.getLogger(__name__)


class Attempt(Writing):
    """Writes the files of one state and commits it; a context manager that cleans up.

    Its arguments are those of `Writing`.
    """

    _done = False
    _replaced: str | None = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *rest: object
    ) -> None:
        if not self._done:
            if error is not None and self._lasting and worth_keeping(error):
                self.leave()
                if not isinstance(error, SupersededError):  # Else it is about to start over.
                    log.warning(
                        "what was copied to %s is kept in %s: sync again, and it goes on from "
                        "there; what is a day old there ckptstore doctor removes",
                        self._storage.location,
                        self.state.folder,
                    )
            else:
                self.abandon()
            if isinstance(error, UnknownOutcomeError):
                raise StorageError(
                    f"{error}, but counts for nothing: nothing was committed, try again"
                ) from error

    def commit(self) -> Committed:
        """Create the manifest: from here on the state exists.

        Raises:
            ConflictError: another writer committed this state first; nothing of ours is left.
            StorageError: with ``committed`` None where the outcome cannot be known.
        """
        data = self._data()
        if self._durable:
            self._storage.flush(self.state.folder)
        honoured = self._create_only()
        check_files(self._storage, self.state)
        self._age.check()
        # From here on the manifest may exist, whatever interrupts this: the files go only after
        # a definite refusal.
        self._done = True
        try:
            with late_if_removed(self._storage, self._manifest, MANIFEST):
                self._storage.create(self._manifest_name, data, durable=self._durable)
        except (AlreadyThereError, StorageError) as error:
            # After a retried request the manifest that is there may be our own.
            self._settle(error)
        except (NotFoundError, ConflictError):
            self.abandon()  # Its temporary file was cleaned up before it got its name.
            raise
        if not honoured:
            self._settle(None)
        self._check_whole(data, self._take_back)
        self._tell("committed")
        return self.state

    def replace(self, existing: Committed) -> Committed:
        """Put the manifest in place of an older one of the same step, in one operation.

        Raises:
            ConflictError: somebody else changed it since ``existing`` was read.
            UnsupportedError: the storage cannot; nothing was changed.
        """
        data = self._data()
        if self._durable:
            self._storage.flush(self.state.folder)
        check_files(self._storage, self.state)
        self._age.check()
        try:
            expected = self._storage.read(self._manifest_name)
        except NotFoundError as error:
            raise ConflictError(
                f"{self._manifest.called} of {self._storage.location} was removed meanwhile; "
                "nothing of this save is left, save again"
            ) from error
        if Manifest.from_json(expected, self._manifest_name).write_id != existing.manifest.write_id:
            raise self._conflict()
        self._replaced = existing.manifest.write_id
        self._done = True  # As in `commit`.
        try:
            swapped = self._storage.swap(self._manifest_name, expected, data, durable=self._durable)
        except UnsupportedError:
            self.abandon()
            raise
        except StorageError as error:
            self._settle(error)
            return self.state
        if not swapped:
            self.abandon()
            raise self._conflict()
        self._check_whole(
            data, lambda found: self._storage.swap(self._manifest_name, found, expected)
        )
        self._tell("replaced")
        return self.state

    def abandon(self) -> None:
        """Remove what this attempt wrote; nothing of it was committed."""
        self._done = True
        super().abandon()

    def leave(self) -> None:
        """Remove what this attempt wrote, but for what is to last; nothing was committed."""
        self._done = True
        super().leave()

    def _tell(self, done: str) -> None:
        stored = self.state.stored or Stored()
        log.info(
            "%s %s of %s: %s written, %s were there already",
            done,
            self._manifest.called,
            self._storage.location,
            size(stored.written_bytes),
            size(stored.spared_bytes),
        )

    @property
    def _manifest_name(self) -> str:
        return self.state.path(MANIFEST)

    def _data(self) -> bytes:
        """Return the manifest's text, once it is sure that everybody can read it back."""
        self._end_digests()
        text = self.state.manifest.to_json()
        try:
            Manifest.from_json(text, "the new manifest")
        except (CorruptionError, UnsafeError) as error:
            raise UnsupportedError(
                f"this cannot be saved, for nobody could open it: {error}"
            ) from error
        return text.encode()

    def _check_whole(self, data: bytes, undo: Callable[[bytes], object]) -> None:
        """Take a commit back whose files went in its last moment, however long that was.

        Or whose manifest the storage did not take whole: nobody could open the location.

        Args:
            data: the manifest's text.
            undo: takes back the manifest that has a text; returns False where it is there no more.
        """
        try:
            there = self._storage.list(self.state.folder).files
            torn = torn_manifest(self._storage, self.state, there, data)
        except CkptstoreError:
            return  # It is committed; what fails now is told by whoever asks next.
        try:
            if torn is not None:
                raise short(self._storage, MANIFEST, len(torn), len(data))
            check_files(self._storage, self.state, there)
        except CkptstoreError:
            if undo(data if torn is None else torn) is False:
                return  # Another has replaced it since, and with it went its files.
            self.abandon()
            raise

    def _take_back(self, data: bytes) -> None:
        # Whoever removed this state may have let another save it again: that one stays.
        with suppress(NotFoundError):
            if self._storage.read(self._manifest_name) == data:
                self._storage.delete(self._manifest_name)

    def _create_only(self) -> bool:
        if self._probe is not None:
            return self._storage.create_only(*self._probe)
        name, data = self.state.path(f"probe.{self._manifest.write_id}"), b"{}\n"
        self._storage.create(name, data, durable=False)
        try:
            return self._storage.create_only(name, data)
        finally:
            self._storage.delete(name)

    def _settle(self, error: AlreadyThereError | StorageError | None) -> None:
        """Find out by reading back whether the manifest that is there is ours.

        Args:
            error: what the write ended in; None where it succeeded on a storage that does not
                keep two writers apart.
        """
        unknown = isinstance(error, UnknownOutcomeError)
        try:
            found = read_manifest(self._storage, self.state.folder)
        except CkptstoreError as unreadable:
            raise self._unsettled(error or unreadable) from unreadable
        if found is not None and found.write_id == self._manifest.write_id:
            if isinstance(error, StorageError) and not unknown:
                # It is there, and the storage says that something about it failed.
                raise StorageError(
                    f"{error}; the save is committed, and may not survive a loss of power",
                    committed=True,
                ) from error
            return
        if found is None and unknown:
            raise self._unsettled(error) from error
        if unknown and found is not None and found.write_id == self._replaced:
            raise self._unsettled(error) from error
        self.abandon()
        if isinstance(error, StorageError) and not unknown:
            raise error
        raise self._conflict() from error

    def _unsettled(self, error: Exception | None) -> StorageError:
        return StorageError(
            f"{error}; whether the save was committed is not known: open "
            f"{self._storage.location} to see, and save again",
            committed=None,
        )

    def _conflict(self) -> ConflictError:
        return ConflictError(
            f"{self._manifest.called} of {self._storage.location} was committed by another writer "
            "meanwhile; nothing of this save is left, open what is there and decide"
        )
