"""`convert`: the same tensors, in another format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.draft import Rehearsal
from ckptstore.commit.layout import Committed, newest
from ckptstore.commit.save import save_generation
from ckptstore.errors import ConflictError, UnsupportedError
from ckptstore.formats.base import Contents, NewFiles
from ckptstore.manifest import Manifest
from ckptstore.opening import Location, open, open_state
from ckptstore.progress import OnProgress, Progress
from ckptstore.saving import save_of
from ckptstore.storage.base import Held, Sink, Storage
from ckptstore.texts import dump_json
from ckptstore.transfer.proving import proved_same
from ckptstore.transfer.report import Transfer

__all__ = ["convert"]

# What a training_state.json of less than 1 KB has room for beside step and file names.
_MOST_FIELDS = 600
# Each that has no room there becomes a file: as many as anybody would look through.
_MOST_NAMES = 500


def convert(
    source: Location,
    destination: Location | None = None,
    format: str = "bundle",
    *,
    overwrite: bool = False,
    fallback: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Write a checkpoint of any format as another, by default beside the old file.

    Guarantee: the source is read, never changed or deleted; tensors, optimizer state and JSON
    fields are the same afterwards. That the tensors are is seen, one by one, and reported.

    Args:
        source: path or URL of a checkpoint or of a single file.
        destination: path or URL; by default the source's own folder.
        format: the name of a writable format.
        overwrite: make it the next generation of a destination that holds something else.
        fallback: where the newest state of the source is damaged, convert the newest that is
            sound; see `ckptstore.open`.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        progress: called with `Progress` events.

    Raises:
        ConflictError: the destination holds a different checkpoint.
        UnsupportedError: the format cannot be written, or does not exist.
        NotFoundError, CorruptionError, UnsafeError, StorageError: of either side. A
            CorruptionError with ``committed`` True says that the result is not the source.
    """
    target = plugins.format_named(format)
    if not target.writable:
        raise UnsupportedError(f"the format {format!r} can be read, not written")
    origin = open(source, fallback=fallback, storage_options=storage_options)
    folder, _ = storage.locate(source, storage_options)
    place = folder if destination is None else storage.connect(destination, storage_options)
    if origin.format == format and place.location == origin.source.location:
        origin.tensors()  # What is damaged is not called the same already.
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
    if not overwrite:
        _check_free(place, there, expected)
    sizes = {name: entry.digest.size for name, entry in expected.files.items()}
    sizes |= {name: len(entry.text.encode()) for name, entry in expected.texts.items()}
    if dry_run:
        return _converted(origin, place, sizes, None)
    watched = replace(what, write=lambda files: what.write(_Watched(files, sizes, progress)))
    state = save_generation(place, watched)
    proofs = proved_same(origin, open_state(place, state))
    return replace(_converted(origin, place, sizes, state), proofs=proofs)


def _check_free(place: Storage, there: Committed | None, expected: Manifest) -> None:
    """Refuse a destination that holds something else, committed or somebody's plain files."""
    if there is not None:
        held = f"another checkpoint already (step {there.manifest.step})"
    else:
        files = place.list("").files
        other = [n for n in (*expected.files, *expected.texts) if n in files]
        held = f"{', '.join(other)} already, which nobody committed" if other else ""
    if held:
        raise ConflictError(
            f"{place.location} holds {held}, and this one (step {expected.step}) is another; "
            "pass --overwrite to make it the newest state there, or choose another destination"
        )


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
class _WatchedSink(Sink):
    sink: Sink
    report: Callable[[int], None]

    def write(self, data: memoryview, /) -> int:
        self.sink.write(data)
        self.report(memoryview(data).nbytes)
        return memoryview(data).nbytes

    def lend(self, data: memoryview, /, held: Held | None = None) -> int:
        self.sink.lend(data, held)
        self.report(memoryview(data).nbytes)
        return memoryview(data).nbytes


def _contents(origin: Checkpoint) -> Contents:
    """Load everything that a checkpoint holds."""
    known = {"step", "optimizer_file", *(f"{name}_file" for name in origin.states())}
    fields = {n: v for n, v in (origin.training_state or {}).items() if n not in known}
    states = {name: origin.load_state(name) for name in origin.states()}
    if len(fields) > _MOST_NAMES:
        raise UnsupportedError(
            f"training_state.json of {origin.location} holds {len(fields)} fields, and more than "
            f"{_MOST_NAMES} cannot be kept apart; put them under one name, then convert"
        )
    sizes = {name: len(dump_json({name: value})) for name, value in fields.items()}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if sum(map(sizes.__getitem__, fields)) <= _MOST_FIELDS:
            break
        # Other programs put whole configs there; as a state of its own nothing of it is lost.
        free = name
        while free in states:
            free += "_"
        states[free] = fields.pop(name)
    return Contents(
        model=origin.load_model(),
        config=origin.config,
        tokenizer_state=origin.tokenizer_state,
        optimizer=origin.load_optimizer(),
        states=states,
        step=origin.step,
        training_state=fields,
    )
