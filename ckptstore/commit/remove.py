"""Removal: manifest first, then the files, each only while it is still that manifest's."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from ckptstore.commit.edits import check_replaced
from ckptstore.commit.layout import (
    GENERATIONS,
    PIN,
    Committed,
    generation_folder,
    generations,
    is_number,
    listed_steps,
    newest_generation,
    read_manifest,
    step_folder,
)
from ckptstore.commit.pins import announced, check_unpinned, is_word
from ckptstore.commit.view import left_behind, view_manifest
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage import locks
from ckptstore.storage.base import Entry, Storage
from ckptstore.storage.several import each

__all__ = [
    "leftover_generations",
    "remove_everything",
    "remove_folder",
    "remove_older",
    "remove_saved",
    "remove_single",
    "remove_state",
    "remove_step",
]

log = logging.getLogger(__name__)

_MANY = 32
"""From so many files on it is worth having several removals under way."""


def remove_state(storage: Storage, state: Committed, *, durable: bool = True) -> bool:
    """Remove a committed state; return False where it was gone or another's already.

    With ``durable`` a loss of power leaves all of it or no manifest: on a disk the order of two
    removals counts only if the first is made safe before the second.

    Raises:
        PinnedError: it is a step, and pinned.
    """
    if state.manifest.generation is not None:
        before = storage.list(state.folder).files
        there = read_manifest(storage, state.folder)
        if there is None or there.write_id != state.manifest.write_id:
            return False
        _remove(storage, Committed(state.folder, there), before, durable=durable)
        return True
    return remove_saved(storage, state.folder, state.manifest.write_id, durable=durable)


def remove_saved(storage: Storage, folder: str, write_id: str, *, durable: bool = True) -> bool:
    """Remove one save of a step, as `remove_state` does.

    Raises:
        PinnedError: it is pinned.
        CorruptionError: nobody can read its manifest; nothing was removed.
    """
    damaged: CkptstoreError | None = None
    with announced(storage, folder) as before:
        try:
            manifest = read_manifest(storage, folder)
        except CkptstoreError as error:
            damaged = error  # Raised when the word is taken away: nothing is under way.
        else:
            if manifest is not None and manifest.write_id == write_id:
                _remove(storage, Committed(folder, manifest), before, durable=durable)
                return True
    if damaged is not None:
        raise damaged
    return False


def _remove(
    storage: Storage, state: Committed, before: Mapping[str, Entry], *, durable: bool
) -> None:
    """Remove manifest and files of a state.

    A name that carries the write id is this state's for ever. A plain one may by the time of its
    removal be a newer save's of the same step: it goes only while it is the file that was there
    before the manifest went.
    """
    storage.delete(state.path(MANIFEST))
    if durable:
        storage.flush(state.folder)
    after = storage.list(state.folder).files
    own = state.manifest.write_id
    _delete_all(
        storage,
        [
            state.path(path)
            for path in state.manifest.paths()
            if own in path or (path in after and before.get(path) == after[path])
        ],
    )
    if state.manifest.generation is None and PIN in after:
        # Of who came too late, and is told so: no pin counts beside the word of a removal.
        storage.delete(state.path(PIN))
    log.info("removed %s of %s", state.manifest.called, storage.location)


def _delete_all(storage: Storage, names: Sequence[str]) -> None:
    """Delete files; those of hundreds of ranks several at once, where each is a request."""
    for _ in each(storage.delete, names, storage.at_once if len(names) >= _MANY else 1):
        pass


def remove_step(storage: Storage, step: int) -> None:
    """Remove a step, also one whose manifest nobody can read.

    Raises:
        PinnedError: it is pinned.
    """
    folder = step_folder(step)
    try:
        manifest = read_manifest(storage, folder)
    except (CorruptionError, UnsafeError, UnsupportedError):
        with announced(storage, folder):
            storage.delete(f"{folder}/{MANIFEST}")
            storage.flush(folder)
            for name in storage.list(folder).files:
                if not is_word(name):
                    storage.delete(f"{folder}/{name}")
        return
    if manifest is not None:
        remove_state(storage, Committed(folder, manifest))


def remove_single(storage: Storage) -> None:
    """Remove the view and every generation, the newest last: while it is there, all is whole."""
    numbers = generations(storage)
    for name in _to_go(storage, numbers):
        storage.delete(name)
    storage.flush("")  # Without its generation a part of the view would pass for a checkpoint.
    for number in numbers:
        _remove_manifest_first(storage, generation_folder(number))
    for folder in storage.list(GENERATIONS).folders:
        # Another writer may have committed one since: whole or absent it has to be, too.
        _remove_manifest_first(storage, f"{GENERATIONS}/{folder}")


def _remove_manifest_first(storage: Storage, folder: str) -> None:
    storage.delete(f"{folder}/{MANIFEST}")
    storage.flush(folder)
    remove_folder(storage, folder)


def _to_go(storage: Storage, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the view's files, in the order of their removal.

    Where a generation says what is whole, the view's manifest goes last: whoever completes this
    removal finds by it what is left. What a refresh that was cut off put there goes by its bytes.
    """
    view, there = view_manifest(storage), storage.list("").files
    names = shown_names(view, there)
    if not numbers:
        return names
    if view is None and MANIFEST in there and _is_damaged(storage):
        names = (MANIFEST,)  # Beside generations it was the view's, and nobody can read it.
    strays: tuple[str, ...] = ()
    with suppress(CorruptionError, UnsafeError, UnsupportedError):
        newest = read_manifest(storage, generation_folder(numbers[-1]))
        if newest is not None:
            strays = left_behind(storage, newest, there.keys() - {*names}, own=True)
    return (*strays, *sorted(names, key=lambda name: name == MANIFEST))


def _is_damaged(storage: Storage) -> bool:
    try:
        read_manifest(storage, "")
    except (CorruptionError, UnsafeError, UnsupportedError):
        return True
    return False


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
            if manifest is not None and not _is_held(storage, folder):
                # Of an older generation nothing is asked any more, so its removal may be torn.
                remove_state(storage, Committed(folder, manifest), durable=False)
    for folder in leftover_generations(storage):
        remove_folder(storage, folder)


def _is_held(storage: Storage, folder: str) -> bool:
    """Whether a process of this machine copies a state elsewhere, and holds its manifest for that.

    Else a copy that takes longer than the time between two saves would never be done.
    """
    path = storage.on_disk(f"{folder}/{MANIFEST}")
    return path is not None and not locks.is_free(path)


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
        ConflictError: a person's own file of weights stands in the view, or steps are pinned;
            nothing was removed.
    """
    view = view_manifest(storage)
    numbers, committed = generations(storage), listed_steps(storage)
    if not numbers and not committed and view is None:
        raise NotFoundError(
            f"nothing in {storage.location} was committed by ckptstore; files of others are "
            "left alone"
        )
    _check_not_replaced(storage)
    shown = shown_names(view, storage.list("").files)
    check_unpinned(storage, {step: it.pinned for step, it in committed.items()}, "removing all")
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
