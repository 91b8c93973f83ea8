"""The view of a single checkpoint: plain files at the top, a copy of its newest generation.

The view is never the truth. It is refreshed file by file, manifest last, and looked at again
until it shows the newest; a refresh that was cut off is completed by the next save or by `doctor`.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from ckptstore.commit.files import digest_of
from ckptstore.commit.layout import Committed, newest_generation, read_manifest
from ckptstore.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Storage

__all__ = ["as_shown", "left_behind", "put_back", "show", "shows", "view_manifest"]

_TRIES = 10


def show(
    storage: Storage,
    state: Committed,
    *,
    small: bool,
    durable: bool,
    edited: Collection[str] = (),
) -> Committed:
    """Refresh the view, until it shows the newest generation; return the one that it shows.

    Args:
        storage: where.
        state: the generation to show, the newest as far as is known.
        small: JSON and manifest only.
        durable: make it survive a loss of power.
        edited: JSON files of this generation's view that stay as a person edited them.

    Raises:
        ConflictError: newer generations appear faster than they can be shown.
    """
    for _ in range(_TRIES):
        complete = _refresh(storage, state, small=small, durable=durable, edited=edited)
        top = newest_generation(storage)
        if top is None or (complete and top.folder == state.folder):
            return state
        state, edited = top, ()
    raise ConflictError(
        f"{storage.location} is saved to faster than its view can be refreshed; "
        "every save is committed, and the next one refreshes it",
        committed=True,
    )


def put_back(storage: Storage, state: Committed, names: tuple[str, ...]) -> None:
    """Put files of a generation back into its view; hand edits of the other JSON stay."""
    for name in names:
        if name in state.manifest.texts:
            storage.replace(name, state.manifest.texts[name].text.encode())
        else:
            storage.copy(state.path(state.manifest.files[name].path), name)
    view = view_manifest(storage)
    if view is not None:
        listed = storage.list("").files
        versions = {name: listed[name].version or "" for name in names if name in listed}
        view = replace(view, shown={**view.shown, **versions})
        storage.replace(MANIFEST, view.to_json().encode())


def shows(storage: Storage, state: Committed, *, small: bool) -> bool:
    """Whether the view is that of a generation, and all of it is there."""
    view = view_manifest(storage)
    if view is None or view.write_id != state.manifest.write_id:
        return False
    names = {*state.manifest.texts, *(() if small else state.manifest.files)}
    return names <= storage.list("").files.keys()


def left_behind(
    storage: Storage, manifest: Manifest, names: Collection[str], *, own: bool = False
) -> tuple[str, ...]:
    """Return those of some files in the view whose bytes are a forerunner's of a generation.

    Args:
        storage: where; a file that has a forerunner's name is read.
        manifest: the generation's.
        names: the files.
        own: the generation's own files too.
    """
    known = {name: {*digests} for name, digests in manifest.earlier.items()}
    if own:
        for name, text in manifest.texts.items():
            known.setdefault(name, set()).add(text.sha256)
        for name, file in manifest.files.items():
            known.setdefault(name, set()).add(file.digest.sha256)
    found = []
    for name in sorted(known.keys() & {*names}):
        with suppress(NotFoundError, CorruptionError):  # It changes at this moment: another's.
            if digest_of(storage, name) in known[name]:
                found.append(name)
    return tuple(found)


def view_manifest(storage: Storage) -> Manifest | None:
    """Return the view's manifest; None too where it is broken, since nothing depends on it."""
    try:
        return read_manifest(storage, "")
    except (CorruptionError, UnsafeError, UnsupportedError):
        return None


def as_shown(manifest: Manifest) -> Manifest:
    """Return a generation's manifest under the plain names of its view."""
    return replace(
        manifest,
        texts={name: replace(entry, path=name) for name, entry in manifest.texts.items()},
        files={name: replace(entry, path=name) for name, entry in manifest.files.items()},
    )


def _refresh(
    storage: Storage, state: Committed, *, small: bool, durable: bool, edited: Collection[str]
) -> bool:
    manifest = state.manifest
    before = view_manifest(storage)
    shown = {} if small else manifest.files
    for name, entry in shown.items():
        try:
            storage.copy(state.path(entry.path), name, durable=durable)
        except NotFoundError:
            return False
    for name, text in manifest.texts.items():
        if name not in edited:
            storage.replace(name, text.text.encode(), durable=durable)
    listed = storage.list("").files
    for name in manifest.texts.keys() & listed.keys() - {*edited}:
        if listed[name].size < len(manifest.texts[name].text.encode()):
            return False  # Not taken whole; under this manifest it would pass for an edit.
    stale = {*before.files, *before.texts} if before is not None else set()
    # A refresh that was cut off put files there that no manifest of the view ever named.
    stale |= {*left_behind(storage, manifest, listed.keys() - stale - {*shown, *manifest.texts})}
    for name in stale - {*shown, *manifest.texts}:
        storage.delete(name)
    names = {*shown, *manifest.texts} - {*edited}
    versions = {n: e.version for n, e in listed.items() if n in names and e.version is not None}
    view = replace(as_shown(manifest), shown=versions)
    storage.replace(MANIFEST, view.to_json().encode(), durable=durable)
    if durable:
        storage.flush("")
    return True
