"""What killed writers leave: found by rules that never take a file which may still count.

Rule 1: below or at the newest committed generation no commit can count any more, so what no
manifest there lists goes at once. Rule 2: everything else goes by age only: a writer gives up
twelve hours after it began (see `ckptstore.commit.attempt`), so what is a day old is nobody's.
Rule 3: the age is asked of the storage, because the clock of this machine may be wrong by days;
where the storage does not know it, nothing goes. Rule 4: only names that a save writes are ours,
and a manifest never is a leftover, nor is the pin beside one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ckptstore.commit.layout import (
    GENERATIONS,
    PIN,
    STEP,
    generation_folder,
    is_number,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.remove import leftover_generations, remove_folder
from ckptstore.errors import CorruptionError, StorageError, UnsafeError, UnsupportedError
from ckptstore.manifest import Manifest
from ckptstore.storage.base import Entry, Storage, Unfinished
from ckptstore.storage.names import TEMPORARY
from ckptstore.tiers.journal import JOURNAL

__all__ = ["Leftovers", "find_leftovers", "remove_leftovers"]

_OWN_NAME = re.compile(r"\.[0-9a-f]{12}(\.|$)")  # With the id of the write in it.
_UNREADABLE = (CorruptionError, UnsafeError, UnsupportedError)


@dataclass(frozen=True)
class Leftovers:
    """What was found.

    Attributes:
        folders: of generations in which nothing can be committed any more.
        empty: folders that hold nothing; not worth a word, and rclone shows one for each upload
            that is under way.
        files: that no manifest lists, and that will never be listed.
        uploads: that nobody will finish.
        unclear: what may be one or not, a phrase each; never removed.
    """

    folders: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    files: tuple[Entry, ...] = ()
    uploads: tuple[Unfinished, ...] = ()
    unclear: tuple[str, ...] = ()


def find_leftovers(storage: Storage, *, older_than: float) -> Leftovers:
    """Return what killed writers left below a location.

    To learn its clock, a storage with files to be judged gets a small file, removed again.

    Args:
        storage: where to look.
        older_than: seconds; what is younger and may still count is left out.
    """
    top = newest_generation(storage)
    folders, empty = _parted(storage, leftover_generations(storage))
    dead: list[Entry] = []
    if top is not None:
        listed = storage.list(top.folder).files
        extra = listed.keys() - {*top.manifest.paths()}
        dead += (listed[name] for name in sorted(extra) if _OWN_NAME.search(name))
    number = 0 if top is None else top.manifest.generation or 0
    ours = {*_shown(top.manifest)} if top else set()
    numbered = (f"{GENERATIONS}/{name}" for name in _numbered(storage, GENERATIONS, ""))
    above, nothing = _parted(storage, (f for f in numbered if f > generation_folder(number)))
    empty += nothing
    judged = _Judged(storage, older_than)
    for folder in above:
        dead += judged.old(f for f in storage.list(folder).files.values() if _written(f.name, ()))
    journal = (JOURNAL,) if storage.on_disk("") is not None else ()
    temporaries = ("", *([top.folder] if top else ()), *journal)
    for folder in temporaries:
        dead += judged.old(f for f in storage.list(folder).files.values() if _temporary(f.name))
    _find_in_steps(storage, judged, dead, empty, ours)
    uploads, unclear = _find_uploads(storage, number, ours, older_than)
    unclear = [*judged.unclear, *unclear]
    left = tuple(_unnamed(storage, dead))
    return Leftovers(tuple(folders), tuple(empty), left, uploads, tuple(unclear))


def remove_leftovers(storage: Storage, found: Leftovers) -> None:
    """Remove what was found, as far as it is still what was found."""
    for folder in found.folders:
        remove_folder(storage, folder)
    for folder in found.empty:
        # This is how a storage is told that a folder may go if it is still empty.
        storage.delete(f"{folder}/{TEMPORARY}{secrets.token_hex(8)}")
    gone: set[str | None] = set()
    for folder in sorted({entry.name.rpartition("/")[0] for entry in found.files}):
        there = {entry.name: entry for entry in storage.list(folder).files.values()}
        for entry in found.files:
            now = there.get(entry.name)
            if now is not None and entry.version in gone:
                # It was another name of bytes that were removed: that alone has changed its time.
                now = replace(now, modified=entry.modified)
            if now == entry:
                storage.delete(entry.name)
                gone |= set() if storage.content_versions else {entry.version} - {None}
    for upload in found.uploads:
        storage.give_up(upload)


class _Judged:
    """Says how old files are, by the storage's own clock, which is read when first needed."""

    def __init__(self, storage: Storage, older_than: float) -> None:
        self.unclear: list[str] = []
        self._storage = storage
        self._older_than = older_than
        self._now: float | None = None

    def old(self, files: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that are old; what cannot be told of is left out, and noted."""
        for entry in files:
            if self._now is None:
                try:
                    self._now = _clock(self._storage)
                except StorageError as error:
                    self.unclear.append(f"{entry.name}, for its age cannot be told: {error}")
                    continue
            if not self._now or not entry.modified:
                self.unclear.append(f"{entry.name}, for the storage does not say how old it is")
            elif self._now - entry.modified > self._older_than:
                yield entry


def _clock(storage: Storage) -> float:
    """Return what the storage dates a file with that is made this moment; 0.0 for nothing."""
    name = f"{TEMPORARY}{secrets.token_hex(8)}"
    storage.create(name, b"{}\n", durable=False)
    try:
        entry = storage.entry(name)
    finally:
        storage.delete(name)
    return 0.0 if entry is None else entry.modified


def _unnamed(storage: Storage, dead: Iterable[Entry]) -> Iterator[Entry]:
    """Leave out what a manifest names by now.

    This process may have been stopped for a day since it looked for manifests. Since it looked at
    the clock nothing can have been committed of what is a day old.
    """
    named: dict[str, set[str] | None] = {"": set()}
    for entry in dead:
        folder, _, name = entry.name.rpartition("/")
        if folder not in named:
            named[folder] = None
            with suppress(*_UNREADABLE):
                manifest = read_manifest(storage, folder)
                named[folder] = {*manifest.paths(), PIN} if manifest else set()
        known = named[folder]
        if known is not None and name not in known:
            yield entry


def _find_in_steps(
    storage: Storage, judged: _Judged, dead: list[Entry], empty: list[str], ours: set[str]
) -> None:
    """Add what is left in the steps of a history; where nothing was committed nothing is ours."""
    committed = steps(storage)
    if not committed:
        return
    ours |= {*_names_in(storage, committed), PIN}
    for name in _numbered(storage, "", STEP):
        listing = storage.list(name)
        listed: set[str] = set()
        if int(name.removeprefix(STEP)) in committed:
            with suppress(*_UNREADABLE):
                manifest = read_manifest(storage, name)
                listed = {*manifest.paths(), PIN} if manifest else set()
            if not listed:
                continue
        elif listing.folders or not all(_written(file, ours) for file in listing.files):
            continue  # A person's own folder, whatever its name.
        elif not listing.files:
            empty.append(name)
        dead += judged.old(
            entry
            for file, entry in listing.files.items()
            if file not in listed and _written(file, ours)
        )


def _find_uploads(
    storage: Storage, newest: int, ours: set[str], older_than: float
) -> tuple[tuple[Unfinished, ...], list[str]]:
    try:
        uploads = storage.unfinished()
    except StorageError as error:
        return (), [f"uploads that were not finished, if there are any: {error}"]
    found, unclear = [], []
    for upload in uploads:
        folder, _, file = upload.name.rpartition("/")
        parent, _, number = folder.rpartition("/")
        generation = parent == GENERATIONS and is_number(number)
        step = folder.startswith(STEP) and is_number(folder.removeprefix(STEP))
        if not ((generation or step or not folder) and _written(file, ours)):
            continue
        if (generation and int(number) <= newest) or (
            upload.age is not None and upload.age > older_than
        ):
            found.append(upload)
        elif upload.age is None:
            unclear.append(
                f"the unfinished upload of {upload.name}, for the storage does not say credibly "
                "when it began; a lifecycle rule of the bucket ends such uploads"
            )
    return tuple(found), unclear


def _numbered(storage: Storage, folder: str, prefix: str) -> Iterator[str]:
    """Yield the subfolders whose names are those of generations or steps."""
    for name in storage.list(folder).folders:
        if name.startswith(prefix) and is_number(name.removeprefix(prefix)):
            yield name


def _parted(storage: Storage, folders: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the folders that hold something, and those that hold nothing."""
    held: tuple[list[str], list[str]] = [], []
    for folder in folders:
        listing = storage.list(folder)
        held[not listing.files and not listing.folders].append(folder)
    return held


def _names_in(storage: Storage, committed: tuple[int, ...]) -> set[str]:
    """Return the plain names of the files of the newest step that can be read."""
    for step in reversed(committed):
        with suppress(*_UNREADABLE):
            manifest = read_manifest(storage, step_folder(step))
            if manifest is not None:
                return _shown(manifest)
    return set()


def _shown(manifest: Manifest) -> set[str]:
    return {*manifest.texts, *manifest.files}


def _temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(TEMPORARY)


def _written(name: str, ours: Iterable[str]) -> bool:
    """Whether a save may have written a file: under a plain name, its own, or a temporary one."""
    name = name.rpartition("/")[2]
    return name in ours or _temporary(name) or _OWN_NAME.search(name) is not None
