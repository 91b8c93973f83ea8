"""What `doctor` does: complete what was cut off, and settle what a person changed."""

from __future__ import annotations

from collections.abc import Iterator

from ckptstore.commit.edits import Look, look, replaced_error
from ckptstore.commit.files import read_text
from ckptstore.commit.layout import newest_generation, read_manifest, step_folder, steps
from ckptstore.commit.remove import (
    leftover_generations,
    old_step_leftovers,
    old_temporaries,
    remove_folder,
)
from ckptstore.commit.save import Index, Save, save_generation
from ckptstore.commit.view import put_back, show, shows
from ckptstore.errors import CkptstoreError, NotFoundError
from ckptstore.formats.base import NewFiles
from ckptstore.storage.base import Storage

__all__ = ["adopt_view", "repair"]

_DAY = 86_400.0
_PIECE = 8 * 2**20


def repair(
    storage: Storage, *, restore: bool = False, dry_run: bool = False, small_view: bool = False
) -> tuple[str, ...]:
    """Refresh a view that is behind, and remove leftovers that can no longer count.

    Args:
        restore: put the newest generation's files back where somebody replaced them.
        dry_run: only say what would be done.
        small_view: whether the view holds JSON and manifest only.

    Returns:
        What was done, or would be, a line each.

    Raises:
        NotFoundError: there is nothing at all.
        ConflictError: somebody replaced a file in the view, and ``restore`` was not asked for.
    """
    if not steps(storage) and newest_generation(storage) is None and not storage.list("").files:
        raise NotFoundError(f"no checkpoint in {storage.location}: nothing is there")
    view = _repair_view(storage, restore=restore, dry_run=dry_run, small=small_view)
    return (*view, *_remove_leftovers(storage, dry_run=dry_run), *_damaged(storage))


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

    Raises:
        NotFoundError: there is no generation, or the view has no files.
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

    def write(files: NewFiles) -> None:
        for name in state.manifest.texts:
            if name in there:
                files.write_text(name, read_text(storage, name))
        for name in names:
            _copy(storage, name, files)

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


def _copy(storage: Storage, name: str, files: NewFiles) -> None:
    buffer = memoryview(bytearray(_PIECE))
    with storage.open(name) as reader, files.create(name, expected_size=reader.size) as sink:
        for start in range(0, reader.size, _PIECE):
            piece = buffer[: min(_PIECE, reader.size - start)]
            reader.readinto(start, piece)
            sink.write(piece)


def _repair_view(storage: Storage, *, restore: bool, dry_run: bool, small: bool) -> Iterator[str]:
    state = newest_generation(storage)
    if state is None:
        return
    number = state.manifest.generation
    found = look(storage, state) or Look({})
    if found.replaced and not restore:
        raise replaced_error(storage, found.replaced)
    if found.replaced:
        if not dry_run:
            put_back(storage, state, found.replaced)
        verb = "would put" if dry_run else "put"
        yield f"{verb} {', '.join(found.replaced)} of generation {number} back into the view"
    elif found.late or not shows(storage, state, small=small):
        if not dry_run:
            show(storage, state, small=small, durable=True, edited=found.edits)
        verb = "would refresh" if dry_run else "refreshed"
        yield f"{verb} the view to generation {number}"


def _damaged(storage: Storage) -> Iterator[str]:
    for step in steps(storage):
        try:
            read_manifest(storage, step_folder(step))
        except CkptstoreError as error:
            yield (f"left alone: {error}; ckptstore rm --step {step} {storage.location} removes it")


def _remove_leftovers(storage: Storage, *, dry_run: bool) -> Iterator[str]:
    verb = "would remove" if dry_run else "removed"
    folders = (
        *leftover_generations(storage),
        *old_step_leftovers(storage, older_than=_DAY),
    )
    for folder in folders:
        if not dry_run:
            remove_folder(storage, folder)
        yield f"{verb} the leftover {folder}"
    for name in old_temporaries(storage, older_than=_DAY):
        if not dry_run:
            storage.delete(name)
        yield f"{verb} the temporary {name}"
