"""`sync`: the same bytes, in another place."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.attempt import Attempt
from ckptstore.commit.draft import Rehearsal, draft
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import (
    Committed,
    newest,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.formats.base import Files, NewFiles
from ckptstore.manifest import MANIFEST, FileEntry
from ckptstore.opening import Location, open
from ckptstore.progress import OnProgress, Progress
from ckptstore.saving import index
from ckptstore.storage.base import Storage
from ckptstore.storage.shown import without_secrets
from ckptstore.transfer.nearby import Nearby, read_exactly
from ckptstore.transfer.report import Transfer

__all__ = ["sync", "sync_steps"]

log = logging.getLogger(__name__)

_PIECE = 8 * 2**20
_MOST_STARTS = 5
_OLD_FILES = ("latest.pt", "final.pt")  # the legacy format's, which are never changed


def sync(
    source: Location,
    destination: Location,
    *,
    optimizer: bool = True,
    fallback: bool = False,
    prove: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Copy one state of a checkpoint to another location, what differs, and commit it there.

    Guarantee: every byte is proved on the way (G4); the destination is the old state or the
    new one, whatever dies (G2); a source that is replaced meanwhile is copied as it is then. A
    destination whose manifest is equal and whose files have the right sizes is left alone. Hand
    edits of the JSON are carried over.

    Args:
        source: path or URL; of a history, its newest step.
        destination: path or URL; a history gets the step, anything else its next generation.
        optimizer: False for an inference copy: model, config and tokenizer only.
        fallback: where the newest state of the source is damaged, copy the newest that is sound;
            see `ckptstore.open`.
        prove: read what the destination has already too, and copy again what is damaged.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        progress: called with `Progress` events.

    Raises:
        UnsupportedError: the source is no folder of files; convert it.
        NotFoundError, CorruptionError, ConflictError, StorageError: of either side.
    """
    place = storage.connect(destination, storage_options)
    for start in itertools.count(1):
        origin = open(source, fallback=fallback, storage_options=storage_options)
        try:
            return _sync(
                origin, place, optimizer=optimizer, prove=prove, dry_run=dry_run, progress=progress
            )
        except SupersededError:
            if start == _MOST_STARTS:
                raise
            log.info("%s was replaced while it was copied; starting over", origin.location)
    raise AssertionError


def sync_steps(
    source: Location,
    destination: Location,
    *,
    last: int | None = None,
    optimizer: bool = True,
    prove: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Iterator[Transfer]:
    """Copy the steps of a history to another history, one after the other.

    Guarantee: that of `sync`, for each step; each is committed by itself, in ascending order, so
    that a copy which was interrupted goes on where it was. Steps that only the destination has
    stay there. A step that the source removes meanwhile is left out, and logged.

    Args:
        source: path or URL of a history.
        destination: path or URL of a history, or where one is to be.
        last: how many of the highest steps; all by default.
        optimizer, prove, dry_run, storage_options, progress: as in `sync`.

    Yields:
        What was done with each step, as soon as it is committed.

    Raises:
        NotFoundError: the source has no steps.
        ConflictError: the destination holds a single checkpoint, or a step with other content.
        CorruptionError, UnsafeError, StorageError: of either side.
    """
    place = storage.connect(destination, storage_options)
    there = steps(storage.connect(source, storage_options))
    if not there:
        raise NotFoundError(
            f"there is no history at {without_secrets(os.fspath(source))}; "
            "without --all and --last its newest state is copied"
        )
    if newest_generation(place) is not None:
        raise ConflictError(
            f"{place.location} holds a single checkpoint; choose another destination for steps"
        )
    for step in there if last is None else there[-last:]:
        try:
            origin = open(source, step=step, storage_options=storage_options)
            yield _sync(
                origin,
                place,
                optimizer=optimizer,
                prove=prove,
                dry_run=dry_run,
                progress=progress,
                history=True,
            )
        except (NotFoundError, SupersededError) as error:
            if step in steps(storage.connect(source, storage_options)):
                raise
            log.warning("step %s was removed while it was copied, and is left out: %s", step, error)


def _sync(
    origin: Checkpoint,
    place: Storage,
    *,
    optimizer: bool,
    prove: bool,
    dry_run: bool,
    progress: OnProgress | None,
    history: bool = False,
) -> Transfer:
    """Copy one state, or raise `SupersededError` where it goes meanwhile."""
    if not origin.reader.for_inference():
        raise UnsupportedError(
            f"{origin.location} is a {origin.format} checkpoint; "
            "ckptstore convert SOURCE DESTINATION makes a bundle of it"
        )
    if place.location == origin.location:
        raise ConflictError(f"{place.location} is source and destination at once")
    if not origin.proved:
        origin.tensors()  # Damage is named where it is, before anything is written elsewhere.
    there = _state_at(place, origin.step)
    history = history or (newest_generation(place) is None and bool(steps(place)))
    copy = _Copy(origin, place, there, history, optimizer=optimizer, prove=prove, progress=progress)
    if there is not None and copy.same_as(there) and copy.all_spared():
        return copy.report(there, changed=False)
    copy.check_free()
    if dry_run:
        return copy.report(None, changed=True)
    state = copy.run()
    return copy.report(state, changed=there is None or state.manifest != there.manifest)


class _Copy:
    """One sync: which files go, which are there already, and how they are written."""

    def __init__(
        self,
        origin: Checkpoint,
        place: Storage,
        there: Committed | None,
        history: bool,
        *,
        optimizer: bool,
        prove: bool,
        progress: OnProgress | None,
    ) -> None:
        self._origin = origin
        self._history = history
        self._files: Files = origin.source
        self._place = place
        self._there = there
        self._progress = progress
        names = _names(origin, optimizer=optimizer)
        _check_kinds(origin, names)
        self._texts = {n: self._files.text(n) for n in names if n.endswith(".json")}
        self._bytes = {n: self._files.size(n) for n in names if not n.endswith(".json")}
        self._known = _by_digest(place, there, prove=prove)
        self._digests = self._source_digests() if there is not None else {}
        texts = sum(len(text.encode()) for text in self._texts.values())
        moved = (size for name, size in self._bytes.items() if not self._spared(name))
        self._total = texts + sum(moved)
        self._done = self._near = 0

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
        ours = {
            *self._origin.reader.for_inference(),
            *plugins.format_named(self._origin.format).texts,
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
            return save_step(self._place, save, overwrite=False)
        return save_generation(self._place, save)

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
            copied_bytes=sum(sizes[name] for name in moved) - self._near,
            spared_bytes=sum(sizes[name] for name in spared) + self._near,
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
            for name in self._bytes:
                self._copy(name, rehearsal, None)
            manifest = rehearsal.manifest
        return {name: manifest.files[name].digest.sha256 for name in self._bytes}

    def _spared(self, name: str) -> bool:
        return self._digests.get(name) in self._known

    def _write(self, files: NewFiles) -> None:
        for name, text in self._texts.items():
            files.write_text(name, text)
            self._report(name, len(text.encode()), self._progress)
        for name in self._bytes:
            if self._spared(name) and isinstance(files, Attempt):
                files.reuse(name, *self._known[self._digests[name]])
            else:
                self._copy(name, files, self._progress)

    def _copy(self, name: str, files: NewFiles, progress: OnProgress | None) -> None:
        own, size = self._files.manifest, self._bytes[name]
        piece = own.files[name].digest.chunk_size if own is not None else _PIECE
        with ExitStack() as stack:
            far = stack.enter_context(self._files.open(name))
            near = self._nearby(name, stack) if isinstance(files, Attempt) else None
            sink = stack.enter_context(files.create(name, expected_size=size))
            for start in range(0, size, piece):
                data = memoryview(bytearray(min(piece, size - start)))
                if near is None or not near.read(start // piece, data):
                    read_exactly(far, start, data)
                else:
                    self._near += len(data)
                sink.lend(data)
                self._report(name, len(data), progress)
        if own is not None and isinstance(files, Attempt):
            files.expect(name, own.files[name])

    def _nearby(self, name: str, stack: ExitStack) -> Nearby | None:
        """Return what the destination has of a file, where that is nearer than the source."""
        own, there = self._files.manifest, self._there
        if own is None or there is None or self._place.taking_over != "proof":
            return None
        return Nearby.of(self._place, there, name, own.files[name].digest, stack)

    def _report(self, name: str, count: int, progress: OnProgress | None) -> None:
        if progress is not None:
            self._done += count
            progress(Progress("copy", name, self._done, self._total))


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


def _state_at(place: Storage, step: int | None) -> Committed | None:
    """Return what a copy is compared with: of a history the same step, else the newest state."""
    there = newest(place)
    if there is None or there.manifest.generation is not None or step is None:
        return there
    same = read_manifest(place, step_folder(step))
    return there if same is None else Committed(step_folder(step), same)


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
