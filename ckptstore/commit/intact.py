"""Whether what is to be committed is still there, whole, and in time.

Others may remove the files of a write that is under way: a newer generation's retention, a
cleaner that takes them for leftovers, a person. A storage may also keep less than it was given.
So an attempt looks before it commits, and once more after, and never longer than twelve hours
after it began, because cleaners go by age: what is a day old is nobody's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ckptstore.commit.layout import Committed, newest_generation
from ckptstore.errors import CkptstoreError, ConflictError, NotFoundError, StorageError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Entry, Storage

__all__ = ["Age", "check_files", "late_if_removed", "removed", "short", "torn_manifest"]

_LONGEST = 12 * 3600.0


class Age:
    """How long an attempt has been under way, by whichever clock says the most.

    Args:
        location: for the message.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._started = _clocks()

    def check(self) -> None:
        """Give up what may be cleaned up meanwhile.

        Raises:
            StorageError: it is older than twelve hours.
        """
        age = max(now - then for now, then in zip(_clocks(), self._started, strict=True))
        if age > _LONGEST:
            raise StorageError(
                f"this save of {self._location} took {age / 3600:.0f} hours by the clocks of "
                "this machine, and after twelve its files may be cleaned up; nothing was "
                "committed, save again"
            )


def check_files(
    storage: Storage, state: Committed, there: Mapping[str, Entry] | None = None
) -> None:
    """Refuse to commit files that are gone, or not whole: this would be the newest state.

    Args:
        storage: where.
        state: what is to be committed.
        there: the files in its folder; looked up by default.

    Raises:
        ConflictError: a newer generation is the reason why one is gone.
        StorageError: one is gone, or shorter than it was written.
    """
    if there is None:
        there = storage.list(state.folder).files
    for path, size in state.manifest.sizes().items():
        if path not in there:
            raise removed(storage, state.manifest, path)
        if there[path].size != size:
            raise short(storage, path, there[path].size, size)


@contextmanager
def late_if_removed(storage: Storage, manifest: Manifest, path: str) -> Iterator[None]:
    """Where a file went while it was being made: say so if a newer state is the reason.

    Raises:
        ConflictError: it is.
    """
    try:
        yield
    except NotFoundError as error:
        told = removed(storage, manifest, path)
        if isinstance(told, ConflictError):
            raise told from error
        raise


def removed(storage: Storage, manifest: Manifest, path: str) -> CkptstoreError:
    """Return the error to raise where a file of a write that is under way was removed."""
    own = manifest.generation
    newest = None if own is None else newest_generation(storage)
    if newest is not None and newest.manifest.write_id == manifest.write_id:
        newest = None  # It is this very commit, which is about to be taken back.
    if newest is not None and (newest.manifest.generation or 0) >= (own or 0):
        return ConflictError(
            f"{manifest.called} of {storage.location} came too late: {newest.manifest.called} was "
            "committed meanwhile; nothing of this save is left, open what is there and decide"
        )
    return StorageError(
        f"{path} of {storage.location} was removed while this save was writing it; nothing was "
        "committed; find out who removes files there, and save again"
    )


def short(storage: Storage, path: str, found: int, written: int) -> StorageError:
    """Return the error to raise where a storage kept less than it was given."""
    return StorageError(
        f"{path} of {storage.location} has {found} bytes, where {written} were written; nothing "
        "was committed; find out why this storage loses bytes, and save again"
    )


def torn_manifest(
    storage: Storage, state: Committed, there: Mapping[str, Entry], data: bytes
) -> bytes | None:
    """Return what there is of a manifest, if that is only its beginning.

    Args:
        storage: where.
        state: whose manifest.
        there: the files in its folder.
        data: what it should hold.
    """
    if MANIFEST not in there or there[MANIFEST].size >= len(data):
        return None
    found = storage.read(state.path(MANIFEST))
    return found if data.startswith(found) and found != data else None


def _clocks() -> tuple[float, ...]:
    """Return the time by clocks of which none can be believed alone.

    The monotonic one stands still while the machine is suspended, and the wall clock may be set.
    The one that does neither does not exist everywhere.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    since_boot = () if boottime is None else (time.clock_gettime(boottime),)
    return (time.monotonic(), time.time(), *since_boot)
