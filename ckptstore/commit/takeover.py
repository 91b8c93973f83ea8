"""What a forerunner has of a new state, and whether it may stand for it."""

from __future__ import annotations

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.incoming import Known
from ckptstore.commit.layout import Committed
from ckptstore.manifest import FileEntry
from ckptstore.storage.base import Storage

__all__ = ["known", "sound"]


def known(storage: Storage, base: Committed | None, name: str, *, whole: bool) -> Known | None:
    """Return the forerunner's file of a name, where it can be of use.

    Args:
        storage: where.
        base: the forerunner; None where there is none.
        name: plain.
        whole: whether it may stand for the new file where all of it is the same.
    """
    if base is None or name not in base.manifest.files or storage.taking_over == "never":
        return None
    entry = base.manifest.files[name]
    return Known(base.path(entry.path), entry.digest, whole)


def sound(storage: Storage, base: Committed, name: str) -> tuple[str, FileEntry]:
    """Return where the forerunner's file is and its entry, proved where it could be damaged.

    Raises:
        CorruptionError, NotFoundError, SupersededError: it is not what was committed.
    """
    if storage.taking_over == "proof":
        CommittedFiles(storage, base, edits={}).prove(name)
    entry = base.manifest.files[name]
    return base.path(entry.path), entry
