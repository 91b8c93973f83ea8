"""Carrying checkpoints over: `sync` keeps the bytes, `convert` keeps the tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint, Location, open
from ckptstore.commit.attempt import Attempt, Rehearsal, draft
from ckptstore.commit.layout import Committed, newest, newest_generation, steps
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import ConflictError, UnsupportedError
from ckptstore.formats.base import Contents, Files, NewFiles
from ckptstore.manifest import FileEntry, Manifest
from ckptstore.progress import OnProgress, Progress
from ckptstore.saving import index, save_of
from ckptstore.storage.base import Sink, Storage

__all__ = ["OnProgress", "Progress", "Transfer", "convert", "sync"]

_PIECE = 8 * 2**20


@dataclass(frozen=True)
class Transfer:
    """What `sync` or `convert` did, or would do.

    Attributes:
        source: where the checkpoint came from, for people.
        destination: where it is now.
        step: of the checkpoint.
        generation: the generation that was committed; None in a history, in a dry run, and
            where nothing changed.
        copied: the files that were written.
        spared: the files whose bytes were there already.
        copied_bytes: bytes written.
        spared_bytes: bytes not moved.
        edited: JSON files whose hand edit was carried over.
        changed: whether the destination is another state now.
    """

    source: str
    destination: str
    step: int | None
    generation: int | None
    copied: tuple[str, ...]
    spared: tuple[str, ...]
    copied_bytes: int
    spared_bytes: int
    edited: tuple[str, ...]
    changed: bool


def sync(
    source: Location,
    destination: Location,
    *,
    optimizer: bool = True,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Copy one state of a checkpoint to another location, what differs, and commit it there.

    Guarantee: every byte is proved on the way (G4); the destination is the old state or the
    new one, whatever dies (G2). An equal destination is left alone. Hand edits of the JSON are
    carried over.

    Args:
        source: path or URL; of a history, its newest step.
        destination: path or URL; a history gets the step, anything else its next generation.
        optimizer: False for an inference copy: model, config and tokenizer only.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        progress: called with `Progress` events.

    Raises:
        UnsupportedError: the source is no folder of files; convert it.
        NotFoundError, CorruptionError, ConflictError, StorageError: of either side.
    """
    origin = open(source, storage_options=storage_options)
    if not origin.reader.for_inference():
        raise UnsupportedError(
            f"{origin.location} is a {origin.format} checkpoint; "
            "ckptstore convert SOURCE DESTINATION makes a bundle of it"
        )
    place = storage.connect(destination, storage_options)
    if place.location == origin.location:
        raise ConflictError(f"{place.location} is source and destination at once")
    there = newest(place)
    copy = _Copy(origin, place, there, optimizer=optimizer, progress=progress)
    if there is not None and copy.equal_to(there.manifest):
        return copy.report(there, changed=False)
    if dry_run:
        return copy.report(None, changed=True)
    state = copy.run()
    return copy.report(state, changed=there is None or state.folder != there.folder)


def convert(
    source: Location,
    destination: Location | None = None,
    format: str = "bundle",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Write a checkpoint of any format as another, by default beside the old file.

    Guarantee: the source is read, never changed or deleted; tensors, optimizer state and JSON
    fields are the same afterwards.

    Args:
        source: path or URL of a checkpoint or of a single file.
        destination: path or URL; by default the source's own folder.
        format: the name of a writable format.
        overwrite: make it the next generation of a destination that holds something else.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        progress: called with `Progress` events.

    Raises:
        ConflictError: the destination holds a different checkpoint.
        UnsupportedError: the format cannot be written, or does not exist.
        NotFoundError, CorruptionError, UnsafeError, StorageError: of either side.
    """
    target = plugins.format_named(format)
    if not target.writable:
        raise UnsupportedError(f"the format {format!r} can be read, not written")
    origin = open(source, storage_options=storage_options)
    folder, _ = storage.locate(source, storage_options)
    place = folder if destination is None else storage.connect(destination, storage_options)
    if origin.format == format and place.location == origin.location:
        return _converted(origin, place, {}, None)
    what = save_of(
        _contents(origin), target, metrics=origin.metrics, fingerprint=origin.fingerprint
    )
    rehearsal = Rehearsal(what.manifest(None))
    what.write(rehearsal)
    expected = rehearsal.manifest
    there = newest(place)
    if there is not None and expected.same_content(there.manifest):
        return _converted(origin, place, {}, None)
    if there is not None and not overwrite:
        raise ConflictError(
            f"{place.location} holds another checkpoint already (step {there.manifest.step}, this "
            f"one has step {origin.step}); pass --overwrite to make this its newest state, or "
            "choose another destination"
        )
    sizes = {name: entry.digest.size for name, entry in expected.files.items()}
    sizes |= {name: len(entry.text.encode()) for name, entry in expected.texts.items()}
    if dry_run:
        return _converted(origin, place, sizes, None)
    watched = replace(what, write=lambda files: what.write(_Watched(files, sizes, progress)))
    return _converted(origin, place, sizes, save_generation(place, watched))


def _converted(
    origin: Checkpoint, place: Storage, written: Mapping[str, int], state: Committed | None
) -> Transfer:
    """Return the report of a conversion that wrote some files, or found them all there."""
    spared = {} if written else {name: info.size for name, info in origin.files().items()}
    return Transfer(
        source=origin.location,
        destination=place.location,
        step=origin.step,
        generation=state.manifest.generation if state else None,
        copied=tuple(written),
        spared=tuple(spared),
        copied_bytes=sum(written.values()),
        spared_bytes=sum(spared.values()),
        edited=origin.edited,
        changed=bool(written),
    )


class _Watched(NewFiles):
    """Passes files on, and reports how many bytes went by."""

    def __init__(
        self, files: NewFiles, sizes: Mapping[str, int], progress: OnProgress | None
    ) -> None:
        self._files = files
        self._total = sum(sizes.values())
        self._done = 0
        self._progress = progress

    def write_text(self, name: str, text: str) -> None:
        self._files.write_text(name, text)
        self._report(name, len(text.encode()))

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        with self._files.create(name, expected_size=expected_size) as sink:
            yield _WatchedSink(sink, lambda count: self._report(name, count))

    def _report(self, name: str, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(Progress("convert", name, self._done, self._total))


@dataclass(frozen=True)
class _WatchedSink:
    sink: Sink
    report: Callable[[int], None]

    def write(self, data: memoryview, /) -> int:
        self.sink.write(data)
        self.report(memoryview(data).nbytes)
        return memoryview(data).nbytes


def _contents(origin: Checkpoint) -> Contents:
    """Load everything that a checkpoint holds."""
    fields = dict(origin.training_state or {})
    known = {"step", "optimizer_file", *(f"{name}_file" for name in origin.states())}
    return Contents(
        model=origin.load_model(),
        config=origin.config,
        tokenizer_state=origin.tokenizer_state,
        optimizer=origin.load_optimizer(),
        states={name: origin.load_state(name) for name in origin.states()},
        step=origin.step,
        training_state={name: value for name, value in fields.items() if name not in known},
    )


class _Copy:
    """One sync: which files go, which are there already, and how they are written."""

    def __init__(
        self,
        origin: Checkpoint,
        place: Storage,
        there: Committed | None,
        *,
        optimizer: bool,
        progress: OnProgress | None,
    ) -> None:
        self._origin = origin
        self._files: Files = origin.source
        self._place = place
        self._progress = progress
        names = _names(origin, optimizer=optimizer)
        self._texts = {n: self._files.text(n) for n in names if n.endswith(".json")}
        self._bytes = {n: self._files.size(n) for n in names if not n.endswith(".json")}
        self._known = _by_digest(there)
        self._digests = self._source_digests() if there is not None else {}
        self._total = sum(size for name, size in self._bytes.items() if not self._spared(name))
        self._done = 0

    def equal_to(self, manifest: Manifest) -> bool:
        """Whether a committed state is the one that would be written."""
        return (
            manifest.format == self._origin.format
            and manifest.step == self._origin.step
            and {name: entry.text for name, entry in manifest.texts.items()} == self._texts
            and {n: e.digest.sha256 for n, e in manifest.files.items()} == self._digests
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
        )
        if newest_generation(self._place) is None and steps(self._place):
            return save_step(self._place, save, overwrite=False)
        return save_generation(self._place, save)

    def report(self, state: Committed | None, *, changed: bool) -> Transfer:
        """Return what was moved and what was spared."""
        spared = [n for n in self._bytes if not changed or self._spared(n)]
        moved = [n for n in self._bytes if n not in spared]
        texts = list(self._texts)
        return Transfer(
            source=self._origin.location,
            destination=self._place.location,
            step=self._origin.step,
            generation=state.manifest.generation if state and changed else None,
            copied=(*moved, *(texts if changed else ())),
            spared=(*spared, *(() if changed else texts)),
            copied_bytes=sum(self._bytes[name] for name in moved),
            spared_bytes=sum(self._bytes[name] for name in spared),
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
        for name in self._bytes:
            if self._spared(name) and isinstance(files, Attempt):
                files.reuse(name, *self._known[self._digests[name]])
            else:
                self._copy(name, files, self._progress)

    def _copy(self, name: str, files: NewFiles, progress: OnProgress | None) -> None:
        size = self._bytes[name]
        buffer = bytearray(_PIECE)
        with self._files.open(name) as file, files.create(name, expected_size=size) as sink:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                sink.write(memoryview(buffer)[:count])
                if progress is not None:
                    self._done += count
                    progress(Progress("copy", name, self._done, self._total))
        own = self._files.manifest
        if own is not None and isinstance(files, Attempt):
            files.expect(name, own.files[name])


def _names(origin: Checkpoint, *, optimizer: bool) -> Sequence[str]:
    """Return the files to copy: all that are there, or those that inference needs."""
    there = origin.source.names()
    names = [name for name in origin.reader.files() if name in there]
    return names if optimizer else [name for name in names if name in origin.reader.for_inference()]


def _by_digest(there: Committed | None) -> dict[str, tuple[str, FileEntry]]:
    """Return what the destination holds already, by its SHA-256: the name, and the entry."""
    if there is None:
        return {}
    files = there.manifest.files.values()
    return {entry.digest.sha256: (there.path(entry.path), entry) for entry in files}
