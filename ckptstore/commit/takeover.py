"""What a forerunner has of a new state, and whether it may stand for it.

Rule 1: where bytes that are there could have been damaged, they are proved first. Rule 2: the
files of a step have plain names, which a removal frees for whoever saves that step again. So what
was taken from a step counts only if its manifest is still there afterwards: while it is, nothing
of it changes.
"""

from __future__ import annotations

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.incoming import Known
from ckptstore.commit.layout import Committed, read_manifest
from ckptstore.errors import CkptstoreError
from ckptstore.manifest import FileEntry
from ckptstore.storage.base import Storage

__all__ = ["known", "sound", "still_there"]


def known(storage: Storage, base: Committed | None, name: str) -> Known | None:
    """Return the forerunner's file of a name, where it can be of use.

    Args:
        storage: where.
        base: the forerunner; None where there is none.
        name: plain.
    """
    if base is None or name not in base.manifest.files or storage.taking_over == "never":
        return None
    entry = base.manifest.files[name]
    return Known(base.path(entry.path), entry.digest)


def sound(storage: Storage, base: Committed, name: str) -> tuple[str, FileEntry]:
    """Return where the forerunner's file is and its entry, proved where it could be damaged.

    Raises:
        CorruptionError, NotFoundError, SupersededError: it is not what was committed.
    """
    if storage.taking_over == "proof":
        CommittedFiles(storage, base, edits={}).prove(name)
    entry = base.manifest.files[name]
    return base.path(entry.path), entry


def still_there(storage: Storage, base: Committed) -> bool:
    """Whether what was taken from a forerunner a moment ago was its own."""
    if base.manifest.generation is not None:
        return True  # Its names carry its write's id, and are nobody else's.
    try:
        found = read_manifest(storage, base.folder)
    except CkptstoreError:
        return False
    return found is not None and found.write_id == base.manifest.write_id
