"""Removal: manifest first, then the files, each only while it is still that manifest's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ckptstore.commit.layout import (
    GENERATIONS,
    STEP,
    Committed,
    generation_folder,
    generations,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.view import check_replaced, view_manifest
from ckptstore.errors import NotFoundError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Storage
from ckptstore.storage.names import TEMPORARY

__all__ = [
    "clean_generations",
    "leftover_generations",
    "old_step_leftovers",
    "old_temporaries",
    "remove_everything",
    "remove_folder",
    "remove_older",
    "remove_state",
]


def remove_state(storage: Storage, state: Committed) -> bool:
    """Remove a committed state; return False where it was gone or another's already.

    A name that carries the write id is this state's for ever. A plain one may by the time of its
    removal be a newer save's of the same step: it goes only while it is the file that was there
    before the manifest went.
    """
    before = storage.list(state.folder).files
    found = read_manifest(storage, state.folder)
    if found is None or found.write_id != state.manifest.write_id:
        return False
    storage.delete(state.path(MANIFEST))
    after = storage.list(state.folder).files
    for path in state.manifest.paths():
        own = state.manifest.write_id in path
        if own or (path in after and before.get(path) == after[path]):
            storage.delete(state.path(path))
    return True


def remove_older(storage: Storage, newest: int) -> None:
    """Remove the generations below ``newest``, and leftovers that can no longer count."""
    for number in generations(storage):
        if number < newest:
            folder = generation_folder(number)
            manifest = read_manifest(storage, folder)
            if manifest is not None:
                remove_state(storage, Committed(folder, manifest))
    clean_generations(storage)


def clean_generations(storage: Storage) -> tuple[str, ...]:
    """Remove what `leftover_generations` finds, and return the folders' names."""
    folders = leftover_generations(storage)
    for folder in folders:
        remove_folder(storage, folder)
    return folders


def leftover_generations(storage: Storage) -> tuple[str, ...]:
    """Return the folders without a manifest at or below the newest generation.

    No commit can count there any more: a writer that creates its manifest in one of them finds
    a newer generation afterwards, and withdraws.
    """
    folders = storage.list(GENERATIONS).folders
    committed = generations(storage)
    if not committed:
        return ()
    kept = {generation_folder(number) for number in committed}
    newest = generation_folder(committed[-1])
    names = (f"{GENERATIONS}/{name}" for name in folders if name.isdigit())
    return tuple(name for name in names if name not in kept and name <= newest)


def remove_folder(storage: Storage, folder: str) -> None:
    """Remove every file directly in a folder, and the folder, which may be empty already."""
    for name in (*storage.list(folder).files, MANIFEST):
        storage.delete(f"{folder}/{name}")


def remove_everything(storage: Storage, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove the view, all generations and all steps; return their names, the newest last.

    As long as the newest generation is there the location opens whole, so it goes last.

    Raises:
        NotFoundError: nothing here was committed by ckptstore.
        ConflictError: a person's own file of weights stands in the view.
    """
    states = [
        *(Committed(step_folder(number), m) for number, m in _each(storage, steps, step_folder)),
        *(
            Committed(generation_folder(number), m)
            for number, m in _each(storage, generations, generation_folder)
        ),
    ]
    view = view_manifest(storage)
    if not states and view is None:
        raise NotFoundError(
            f"nothing in {storage.location} was committed by ckptstore; files of others are "
            "left alone"
        )
    if states and states[-1].manifest.generation is not None:
        check_replaced(storage, states[-1])
    there = storage.list("").files
    shown = [n for n in (MANIFEST, *view.files, *view.texts) if n in there] if view else []
    if not dry_run:
        for name in shown:
            storage.delete(name)
        for state in states:
            remove_state(storage, state)
        for folder in storage.list(GENERATIONS).folders:
            remove_folder(storage, f"{GENERATIONS}/{folder}")
    return (*shown, *(state.folder for state in states))


def old_step_leftovers(storage: Storage, *, older_than: float) -> tuple[str, ...]:
    """Return the step folders without a manifest whose newest file is older than some seconds."""
    committed = {step_folder(step) for step in steps(storage)}
    oldest = time.time() - older_than
    found = []
    for folder in storage.list("").folders:
        if folder.startswith(STEP) and folder not in committed:
            files = storage.list(folder).files.values()
            if all(entry.modified < oldest for entry in files):
                found.append(folder)
    return tuple(found)


def old_temporaries(storage: Storage, *, older_than: float) -> tuple[str, ...]:
    """Return the temporary files at the top and in the steps that a killed writer left there."""
    oldest = time.time() - older_than
    folders = [folder for folder in storage.list("").folders if folder.startswith(STEP)]
    found = [
        entry
        for folder in ("", *folders)
        for name, entry in storage.list(folder).files.items()
        if name.startswith(TEMPORARY)
    ]
    return tuple(entry.name for entry in found if entry.modified < oldest)


def _each(
    storage: Storage, numbers: Callable[[Storage], tuple[int, ...]], folder: Callable[[int], str]
) -> Iterator[tuple[int, Manifest]]:
    for number in numbers(storage):
        manifest = read_manifest(storage, folder(number))
        if manifest is not None:
            yield number, manifest
