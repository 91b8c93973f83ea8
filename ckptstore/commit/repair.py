"""What `doctor` does: complete what was cut off, and settle what a person changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ckptstore.commit.edits import Look, look, replaced_error
from ckptstore.commit.files import read_text
from ckptstore.commit.layout import (
    GENERATIONS,
    Committed,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.leftovers import Leftovers, find_leftovers, remove_leftovers
from ckptstore.commit.save import Index, Save, save_generation
from ckptstore.commit.shown import rotten
from ckptstore.commit.view import put_back, show, shows, view_manifest
from ckptstore.errors import CkptstoreError, ConflictError, NotFoundError
from ckptstore.findings import Finding
from ckptstore.formats.base import NewFiles
from ckptstore.storage.base import Storage
from ckptstore.storage.names import TEMPORARY

__all__ = ["adopt_view", "mend", "repair"]

_DAY = 86_400.0
_PIECE = 8 * 2**20
_KILLED = "a save that did not end left it, and no checkpoint needs it"
_UPLOAD = "nobody finishes it, and its parts are paid for"
_BEHIND = "the plain files at the top are not those of the state that opens"
_REPLACED = "they were not those of the state that opens"


def repair(
    storage: Storage,
    *,
    restore: bool = False,
    dry_run: bool = False,
    small_view: bool = False,
    older_than: float = _DAY,
) -> tuple[str, ...]:
    """Refresh a view that is behind, and remove leftovers that can no longer count.

    Guarantee: no file of a writer that may still commit is touched (G2).

    Args:
        restore: put the newest generation's files back where somebody replaced them, and where
            copies in the view are damaged: each is read.
        dry_run: only say what would be done.
        small_view: whether the view holds JSON and manifest only.
        older_than: seconds by the storage's clock, after which files that are in no manifest,
            and might still get into one, count as left behind.

    Returns:
        What was done, or would be, a line each; and what is left alone, and why.

    Raises:
        NotFoundError: there is nothing at all.
        ConflictError: somebody replaced a file in the view, and ``restore`` was not asked for.
    """
    found = mend(
        storage, restore=restore, dry_run=dry_run, small_view=small_view, older_than=older_than
    )
    return tuple(finding.said for finding in found)


def mend(
    storage: Storage,
    *,
    restore: bool = False,
    dry_run: bool = False,
    small_view: bool = False,
    older_than: float = _DAY,
) -> tuple[Finding, ...]:
    """Do what `repair` does, and return what it found with what it means; see there."""
    found = find_leftovers(storage, older_than=older_than)
    there = storage.list("")
    if not (steps(storage) or there.files or GENERATIONS in there.folders or found.uploads):
        raise NotFoundError(f"no checkpoint in {storage.location}: nothing is there")
    view = tuple(_repair_view(storage, restore=restore, dry_run=dry_run, small=small_view))
    if not dry_run:
        remove_leftovers(storage, found)
    return (*view, *_said(found, dry_run=dry_run), *_damaged(storage))


def adopt_view(
    storage: Storage,
    index: Index,
    *,
    durable: bool = True,
    small_view: bool = False,
    dry_run: bool = False,
) -> tuple[str, ...]:
    """Commit the view's files as they are now as a new generation; return what was done.

    Args:
        index: reads the tensor index of a file just written, and refuses what is not safe.

    What a late refresh has left in the view was put there by nobody: of that the generation's
    own files are taken.

    Raises:
        NotFoundError: there is no generation, or the view has no files.
        ConflictError: the view is not that of the newest generation, or changes meanwhile;
            nothing was committed.
        UnsafeError: a file in the view holds more than tensors.
    """
    state = newest_generation(storage)
    if state is None:
        raise NotFoundError(
            f"{storage.location} has no generation; plain files need no adopting, open them"
        )
    there = storage.list("").files
    names = [name for name in state.manifest.files if name in there]
    if not names:
        raise NotFoundError(f"the view of {storage.location} holds none of the checkpoint's files")
    late = _look_to_adopt(storage, state).late

    def write(files: NewFiles) -> None:
        for name, entry in state.manifest.texts.items():
            if name in there:
                files.write_text(name, entry.text if name in late else read_text(storage, name))
        for name in names:
            path = state.path(state.manifest.files[name].path) if name in late else name
            _copy(storage, path, name, files)
        if _look_to_adopt(storage, state).late != late:
            raise _not_adopted(storage, state)

    if dry_run:
        return (f"would commit the view as a new generation: {', '.join(names)}",)
    save = Save(
        write=write,
        index=index,
        format=state.manifest.format,
        step=state.manifest.step,
        metrics=state.manifest.metrics,
        fingerprint=state.manifest.fingerprint,
        durable=durable,
        small_view=small_view,
    )
    new = save_generation(storage, save, over_view=True)
    return (f"committed the view as generation {new.manifest.generation}: {', '.join(names)}",)


def _look_to_adopt(storage: Storage, state: Committed) -> Look:
    """Look at the view of the newest generation: any other is a mixture, or nobody's."""
    view = view_manifest(storage)
    if view is not None and view.write_id == state.manifest.write_id:
        found = look(storage, state, thorough=True)
        top = newest_generation(storage)
        if found is not None and top is not None and top.manifest.write_id == view.write_id:
            return found
    raise _not_adopted(storage, state)


def _not_adopted(storage: Storage, state: Committed) -> ConflictError:
    return ConflictError(
        f"the view of {storage.location} is not that of {state.manifest.called}, or is being "
        "replaced, so it may hold files of two states; nothing was committed, ckptstore doctor "
        f"--fix {storage.location} refreshes it (copy your own file elsewhere before)"
    )


def _copy(storage: Storage, path: str, name: str, files: NewFiles) -> None:
    buffer = memoryview(bytearray(_PIECE))
    with storage.open(path) as reader, files.create(name, expected_size=reader.size) as sink:
        for start in range(0, reader.size, _PIECE):
            piece = buffer[: min(_PIECE, reader.size - start)]
            reader.readinto(start, piece)
            sink.write(piece)


def _repair_view(
    storage: Storage, *, restore: bool, dry_run: bool, small: bool
) -> Iterator[Finding]:
    state = newest_generation(storage)
    if state is None:
        return
    number = state.manifest.generation
    found = look(storage, state, thorough=True) or Look({})
    if found.replaced and not restore:
        raise replaced_error(storage, found.replaced)
    wrong = tuple(dict.fromkeys((*found.replaced, *(rotten(storage, state) if restore else ()))))
    if wrong:
        if not dry_run:
            put_back(storage, state, wrong)
        verb = "would put" if dry_run else "put"
        said = f"{verb} {', '.join(wrong)} of generation {number} back into the view"
        yield Finding("view", said, _REPLACED, status=_status(dry_run))
    elif found.late or not shows(storage, state, small=small):
        if not dry_run:
            show(storage, state, small=small, durable=True, edited=found.edits)
        verb = "would refresh" if dry_run else "refreshed"
        said = f"{verb} the view to generation {number}"
        todo = "--fix shows it" if dry_run else ""
        yield Finding("view", said, _BEHIND, todo, _status(dry_run))


def _damaged(storage: Storage) -> Iterator[Finding]:
    for step in steps(storage):
        try:
            read_manifest(storage, step_folder(step))
        except CkptstoreError as error:
            said = f"left alone: {error}; ckptstore rm --step {step} {storage.location} removes it"
            yield Finding("damaged", said, status="open")


def _said(found: Leftovers, *, dry_run: bool) -> Iterator[Finding]:
    removed, given_up = ("would remove", "would give up") if dry_run else ("removed", "gave up")
    removes, ends = ("--fix removes it", "--fix ends it") if dry_run else ("", "")
    status = _status(dry_run)
    for folder in found.folders:
        yield Finding("leftover", f"{removed} the leftover {folder}", _KILLED, removes, status)
    for entry in found.files:
        kind = "temporary" if entry.name.rpartition("/")[2].startswith(TEMPORARY) else "leftover"
        yield Finding("leftover", f"{removed} the {kind} {entry.name}", _KILLED, removes, status)
    for upload in found.uploads:
        said = f"{given_up} the unfinished upload of {upload.name}"
        yield Finding("upload", said, _UPLOAD, ends, status)
    for phrase in found.unclear:
        yield Finding("unclear", f"left alone: {phrase}")


def _status(dry_run: bool) -> Literal["mended", "mendable"]:
    return "mendable" if dry_run else "mended"
