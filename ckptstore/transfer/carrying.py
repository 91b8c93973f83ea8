"""One state on its way to another location: which files go, and which are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ckptstore import plugins
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.attempt import Attempt
from ckptstore.commit.draft import Rehearsal, draft
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.commit.takeover import still_there
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError, SupersededError
from ckptstore.formats.base import Files, NewFiles
from ckptstore.manifest import MANIFEST, FileEntry
from ckptstore.progress import OnProgress
from ckptstore.saving import index
from ckptstore.storage.base import Storage
from ckptstore.transfer.gathering import opened
from ckptstore.transfer.report import Transfer
from ckptstore.transfer.sending import Sending
from ckptstore.transfer.tally import Tally
from ckptstore.vocabulary import carried_by, known_names

__all__ = ["Copy"]

_OLD_FILES = ("latest.pt", "final.pt")  # the legacy format's, which are never changed


class Copy:
    """One sync: which files go, which are there already, and how they are written."""

    def __init__(
        self,
        origin: Checkpoint,
        place: Storage,
        there: Committed | None,
        history: bool,
        *,
        optimizer: bool,
        vocabulary: bool | None,
        prove: bool,
        progress: OnProgress | None,
        overwrite: bool = False,
    ) -> None:
        self._overwrite = overwrite
        self._origin = origin
        self._history = history
        self._files: Files = origin.source
        self._place = place
        self._there = there
        shared = not optimizer
        if vocabulary is None and history and _is_step(there, origin.step):
            shared = _carries(there, known_names(origin.tokenizer_state))
        carried = carried_by(origin, vocabulary, shared=shared, there=lambda: opened(place, there))
        own = origin.tokenizer_files()
        self._added = {name: carried[name] for name in carried if name not in own}
        names = _names(origin, optimizer=optimizer)
        called_so = origin.reader.tokenizer_files()
        names = [name for name in names if name not in called_so or name in carried]
        _check_kinds(origin, names)
        self._texts = {n: self._files.text(n) for n in names if n.endswith(".json")}
        self._bytes = {n: self._files.size(n) for n in names if not n.endswith(".json")}
        self._bytes |= {name: len(data) for name, data in self._added.items()}
        self._known = _by_digest(place, there, prove=prove)
        self._digests = self._source_digests() if there is not None else {}
        texts = sum(len(text.encode()) for text in self._texts.values())
        moved = (size for name, size in self._bytes.items() if not self._spared(name))
        self._tally = Tally(texts + sum(moved), progress)
        self._sending = Sending(self._files, place, there, self._tally, prove=prove)

    def same_as(self, there: Committed) -> bool:
        """Whether a committed state is the one that would be written, by its manifest."""
        manifest = there.manifest
        return (
            manifest.format == self._origin.format
            and manifest.step == self._origin.step
            and {name: entry.text for name, entry in manifest.texts.items()} == self._texts
            and {n: e.digest.sha256 for n, e in manifest.files.items()} == self._digests
        )

    def all_spared(self) -> bool:
        """Whether the destination has all the bytes already."""
        return all(map(self._spared, self._bytes))

    def check_free(self) -> None:
        """Refuse to put the source's files over those of a person, whose names it may have chosen.

        Raises:
            ConflictError: a file stands in the way that is no checkpoint's; nothing was written.
        """
        if self._history:
            return  # A step has a folder of its own.
        # What a tokenizer's files are called its kind says; the source could say anything.
        carried = self._origin.reader.tokenizer_files()
        ours = {
            *(name for name in self._origin.reader.for_inference() if name not in carried),
            *plugins.format_named(self._origin.format).texts,
            *known_names(self._origin.tokenizer_state),
        }
        if self._there is not None:
            ours |= {*self._there.manifest.texts, *self._there.manifest.files}
        standing = self._place.list("").files
        for name in (*self._texts, *self._bytes):
            state = name.endswith(".pt") and name not in _OLD_FILES
            if name in standing and name not in ours and not state:
                raise ConflictError(
                    f"{self._place.location} has a file {name!r} that is no checkpoint's, and this "
                    "sync would replace it; move it away, or choose another destination"
                )

    def run(self) -> Committed:
        """Write and commit."""
        own = self._files.manifest
        save = Save(
            write=self._write,
            index=index,
            format=self._origin.format,
            step=self._origin.step,
            metrics=self._origin.metrics,
            fingerprint=own.fingerprint if own else self._fingerprint(),
            resident=False,
            anew=self._there is not None and self.same_as(self._there),
        )
        if self._history:
            state = save_step(self._place, save, overwrite=self._overwrite)
        else:
            state = save_generation(self._place, save)
        self._sending.end(state)
        return state

    def report(self, state: Committed | None, *, changed: bool) -> Transfer:
        """Return what was moved and what was spared."""
        sizes = {name: len(text.encode()) for name, text in self._texts.items()} | self._bytes
        spared = [n for n in sizes if not changed or self._spared(n)]
        moved = [n for n in sizes if n not in spared]
        return Transfer(
            source=self._origin.location,
            destination=self._place.location,
            step=self._origin.step,
            generation=state.manifest.generation if state and changed else None,
            copied=tuple(moved),
            spared=tuple(spared),
            copied_bytes=sum(sizes[name] for name in moved) - self._tally.near,
            spared_bytes=sum(sizes[name] for name in spared) + self._tally.near,
            edited=tuple(name for name in self._origin.edited if name in self._texts),
            changed=changed,
        )

    def _fingerprint(self) -> str | None:
        state = self._origin.tokenizer_state
        return None if state is None else plugins.fingerprint_of(state)

    def _source_digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file: what the manifest says, or computed by reading."""
        manifest = self._files.manifest
        if manifest is None:
            rehearsal = Rehearsal(draft(format=self._origin.format))
            quiet = Sending(self._files, self._place, None, Tally(0, None), prove=True)
            for name in self._sent():
                quiet.send(name, self._bytes[name], rehearsal)
            manifest = rehearsal.manifest
        found = {name: manifest.files[name].digest.sha256 for name in self._sent()}
        added = {name: hashlib.sha256(data).hexdigest() for name, data in self._added.items()}
        return found | added

    def _sent(self) -> list[str]:
        """Return the files of bytes that the source has."""
        return [name for name in self._bytes if name not in self._added]

    def _spared(self, name: str) -> bool:
        return self._digests.get(name) in self._known

    def _write(self, files: NewFiles) -> None:
        sent = [name for name in self._sent() if not self._spared(name)]
        if isinstance(files, Attempt):
            self._sending.prepare(files, sent, (*self._texts, *self._added))
        for name, text in self._texts.items():
            files.write_text(name, text)
            self._tally.took(name, len(text.encode()))
        for name, size in self._bytes.items():
            if self._spared(name) and isinstance(files, Attempt):
                files.reuse(name, *self._known[self._digests[name]])
            elif name in self._added:
                with files.create(name, expected_size=size) as sink:
                    sink.write(memoryview(self._added[name]))
                self._tally.took(name, size)
            else:
                self._sending.send(name, size, files)
        there = self._there
        if isinstance(files, Attempt) and there and not still_there(self._place, there):
            raise SupersededError(
                f"{there.manifest.called} of {self._place.location} was removed while what it has "
                "in common with this copy was taken from it; nothing was committed, sync again"
            )


def _is_step(there: Committed | None, step: int | None) -> bool:
    return there is not None and (there.manifest.generation, there.manifest.step) == (None, step)


def _carries(there: Committed | None, names: Sequence[str]) -> bool:
    """Whether a step that is there has files: it is never changed, to add them or to take them."""
    return there is not None and bool(names) and {*names} <= {*there.manifest.files}


def _check_kinds(origin: Checkpoint, names: Sequence[str]) -> None:
    """Refuse a manifest that no save writes: JSON files are its texts, all others its files."""
    manifest = origin.source.manifest
    if manifest is None:
        return
    for name in names:
        if name in (manifest.files if name.endswith(".json") else manifest.texts):
            raise CorruptionError(
                f"{MANIFEST} of {origin.location} lists {name!r} as what it is not: JSON files are "
                "texts, all others are files; nothing was copied, restore it from a good copy"
            )


def _names(origin: Checkpoint, *, optimizer: bool) -> Sequence[str]:
    """Return the files to copy: all that are there, or those that inference needs."""
    there = origin.source.names()
    names = [name for name in origin.reader.files() if name in there]
    return names if optimizer else [name for name in names if name in origin.reader.for_inference()]


def _by_digest(
    place: Storage, there: Committed | None, *, prove: bool
) -> dict[str, tuple[str, FileEntry]]:
    """Return what the destination holds already, by its SHA-256: the name, and the entry.

    What is absent or of another size is left out, and with ``prove`` what is damaged.
    """
    if there is None:
        return {}
    files, held = CommittedFiles(place, there, edits={}), place.list(there.folder).files
    return {
        entry.digest.sha256: (there.path(entry.path), entry)
        for name, entry in there.manifest.files.items()
        if entry.path in held
        and held[entry.path].size == entry.digest.size
        and not (prove and _is_damaged(files, name))
    }


def _is_damaged(files: CommittedFiles, name: str) -> bool:
    try:
        files.prove(name)
    except (CorruptionError, NotFoundError):
        return True
    return False
