"""What a copy that was cut off has left at its destination, for the next one to go on with.

A copy of something large leaves word of what it copies: a note beside its files, which names each
file's own name and SHA-256. Rule 1: a note is a hint. What it leads to is proved chunk by chunk,
or, where the service answers for its bytes, has passed that proof on its way there. Rule 2: what
another copy began is read, finished and copied, and never listed by a manifest under its name: it
may be alive, and remove it. Rule 3: it is removed when this copy is committed, for then nothing
else can be committed in that folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ckptstore.errors import CkptstoreError, StorageError
from ckptstore.manifest import FileEntry, Manifest, plain_name
from ckptstore.storage.base import Storage, Unfinished
from ckptstore.storage.names import TEMPORARY
from ckptstore.texts import parse_json

__all__ = ["Begun", "Found", "find", "note_name", "note_of"]

log = logging.getLogger(__name__)

_NOTE = f"{TEMPORARY}copy-"
_MOST_NOTE = 2**20


@dataclass(frozen=True)
class Found:
    """What there is of one file.

    Attributes:
        path: of its bytes, relative to the storage.
        size: how many are there; 0 where they are in an upload.
        upload: what has some of them, or None.
    """

    path: str
    size: int = 0
    upload: Unfinished | None = None


@dataclass
class Begun:
    """All that earlier copies left in a folder.

    Attributes:
        files: by plain name, what there is of the very files that are wanted.
        names: of everything, notes too, relative to the storage.
        uploads: that were not finished.
    """

    files: dict[str, Found] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    uploads: list[Unfinished] = field(default_factory=list)

    def clear(self, storage: Storage, kept: Manifest, folder: str) -> None:
        """Remove it, but for what a manifest lists; what fails is left to ``doctor``."""
        listed = {f"{folder}/{path}" for path in kept.paths()}
        try:
            for name in sorted(self.names - listed):
                storage.delete(name)
            for upload in self.uploads:
                storage.give_up(upload)
        except CkptstoreError as error:
            log.warning("what an earlier copy left in %s is still there: %s", folder, error)


def note_name(write_id: str) -> str:
    """Return the name of the note of a write."""
    return f"{_NOTE}{write_id}"


def note_of(
    paths: Mapping[str, str], entries: Mapping[str, FileEntry], texts: Iterable[str]
) -> str:
    """Return the text of a note.

    Args:
        paths: the names that files are to have in the folder, by plain name.
        entries: what they are to hold.
        texts: the names that JSON files are to have there, which are not worth keeping.
    """
    files = {
        name: {"path": path, "sha256": entries[name].digest.sha256} for name, path in paths.items()
    }
    said = {"copying": files, "beside": [*texts]}
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def find(storage: Storage, folder: str, wanted: Mapping[str, FileEntry]) -> Begun:
    """Return what earlier copies left in a folder.

    Args:
        storage: where.
        folder: of a generation or a step that is not committed.
        wanted: by plain name, the files that are to be written.
    """
    begun = Begun()
    there = storage.list(folder).files
    notes = [name for name in there if name.startswith(_NOTE)]
    if not notes:
        return begun
    uploads = {}
    with suppress(StorageError):
        uploads = {upload.name: upload for upload in storage.unfinished()}
    for note in notes:
        begun.names.add(f"{folder}/{note}")
        for name, path, sha256 in _said(storage, f"{folder}/{note}"):
            if not name:
                begun.names |= {f"{folder}/{path}"} if path in there else set()
                continue
            full = f"{folder}/{path}"
            found = None
            if path in there:
                begun.names.add(full)
                found = Found(full, size=there[path].size)
            elif full in uploads:
                begun.uploads.append(uploads[full])
                found = Found(full, upload=uploads[full])
            if found and name in wanted and wanted[name].digest.sha256 == sha256:
                best = begun.files.get(name)
                if best is None or best.size < found.size:
                    begun.files[name] = found
    return begun


def _said(storage: Storage, note: str) -> Iterator[tuple[str, str, str]]:
    """Yield what a note says: plain name, own name, SHA-256; nothing of one that is malformed.

    Of what is beside them there is the own name alone.
    """
    try:
        said: Any = parse_json(storage.read(note, limit=_MOST_NOTE), note)
        files = said["copying"].items()
        for name, file in files:
            yield plain_name(name, note), plain_name(file["path"], note), str(file["sha256"])
        for path in said["beside"]:
            yield "", plain_name(path, note), ""
    except (CkptstoreError, LookupError, TypeError, AttributeError) as error:
        log.info("%s in %s is of no use: %s", note, storage.location, error)
