"""Removal: manifest first, then the files, each only while it is still that manifest's."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from contextlib import suppress

from ckptstore.commit.edits import check_replaced
from ckptstore.commit.layout import (
    GENERATIONS,
    STEP,
    Committed,
    generation_folder,
    generations,
    is_number,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.view import view_manifest
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError, UnsupportedError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Storage
from ckptstore.storage.names import TEMPORARY

__all__ = [
    "leftover_generations",
    "old_step_leftovers",
    "old_temporaries",
    "remove_everything",
    "remove_folder",
    "remove_older",
    "remove_single",
    "remove_state",
    "remove_step",
]

_OWN_NAME = re.compile(r"\.[0-9a-f]{12}(\.|$)")  # With the id of the write in it.


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


def remove_step(storage: Storage, step: int) -> None:
    """Remove a step, also one whose manifest nobody can read."""
    folder = step_folder(step)
    try:
        manifest = read_manifest(storage, folder)
    except (CorruptionError, UnsafeError, UnsupportedError):
        storage.delete(f"{folder}/{MANIFEST}")
        remove_folder(storage, folder)
        return
    if manifest is not None:
        remove_state(storage, Committed(folder, manifest))


def remove_single(storage: Storage) -> None:
    """Remove the view and every generation, the newest last: while it is there, all is whole."""
    view = view_manifest(storage)
    there = storage.list("").files
    for name in shown_names(view, there):
        storage.delete(name)
    for number in generations(storage):
        folder = generation_folder(number)
        storage.delete(f"{folder}/{MANIFEST}")
        remove_folder(storage, folder)
    for folder in storage.list(GENERATIONS).folders:
        remove_folder(storage, f"{GENERATIONS}/{folder}")


def shown_names(view: Manifest | None, there: Collection[str]) -> tuple[str, ...]:
    """Return the names of the view's files that are there, its manifest first."""
    names = (MANIFEST, *view.files, *view.texts) if view else ()
    return tuple(name for name in names if name in there)


def remove_older(storage: Storage, newest: int) -> None:
    """Remove the generations below ``newest``, and leftovers that can no longer count."""
    for number in generations(storage):
        if number < newest:
            folder = generation_folder(number)
            manifest = read_manifest(storage, folder)
            if manifest is not None:
                remove_state(storage, Committed(folder, manifest))
    for folder in leftover_generations(storage):
        remove_folder(storage, folder)


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
    names = (f"{GENERATIONS}/{name}" for name in folders if is_number(name))
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
    view = view_manifest(storage)
    numbers, committed = generations(storage), steps(storage)
    if not numbers and not committed and view is None:
        raise NotFoundError(
            f"nothing in {storage.location} was committed by ckptstore; files of others are "
            "left alone"
        )
    _check_not_replaced(storage)
    shown = shown_names(view, storage.list("").files)
    if not dry_run:
        for step in committed:
            remove_step(storage, step)
        remove_single(storage)
    return (*shown, *map(step_folder, committed), *map(generation_folder, numbers))


def _check_not_replaced(storage: Storage) -> None:
    try:
        state = newest_generation(storage)
    except (CorruptionError, UnsafeError, UnsupportedError):
        return  # Nobody can say any more what was shown, and removing is the way out.
    if state is not None:
        check_replaced(storage, state)


def old_step_leftovers(storage: Storage, *, older_than: float) -> tuple[str, ...]:
    """Return the folders that a killed save left in a history of ours.

    They have a step's name and no manifest, hold nothing but what a save writes, and their
    newest file is older than some seconds. Where nothing was committed nothing is ours.
    """
    committed = steps(storage)
    if not committed:
        return ()
    ours = _names_in(storage, committed)
    oldest = time.time() - older_than
    found = []
    for folder in storage.list("").folders:
        name = folder.removeprefix(STEP)
        if name == folder or not is_number(name) or int(name) in committed:
            continue
        files = storage.list(folder)
        old = all(entry.modified < oldest for entry in files.files.values())
        if old and not files.folders and all(_written(file, ours) for file in files.files):
            found.append(folder)
    return tuple(found)


def _names_in(storage: Storage, committed: tuple[int, ...]) -> set[str]:
    """Return the plain names of the files of the newest step that can be read."""
    for step in reversed(committed):
        with suppress(CorruptionError, UnsafeError, UnsupportedError):
            manifest = read_manifest(storage, step_folder(step))
            if manifest is not None:
                return {*manifest.texts, *manifest.files}
    return set()


def _written(name: str, ours: set[str]) -> bool:
    """Whether a save may have written a file: under a plain name, its own, or a temporary one."""
    return name in ours or name.startswith(TEMPORARY) or _OWN_NAME.search(name) is not None


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
