"""Opening: from a location to a checkpoint, the newest or the one that is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from ckptstore import fallback as falling
from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.edits import hand_edits
from ckptstore.commit.files import CommittedFiles, PlainFiles, read_text
from ckptstore.commit.layout import Committed, newest, read_manifest, step_named
from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.formats.base import Files, Format
from ckptstore.manifest import MANIFEST
from ckptstore.storage.base import Listing, Storage

__all__ = ["Location", "open", "open_place", "open_state"]

log = logging.getLogger(__name__)

Location = str | os.PathLike[str]

_TRIES = 5
_LISTED = 8


def open(
    location: Location,
    *,
    step: int | None = None,
    fallback: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Open the newest checkpoint of a location, with small reads only.

    Guarantee: a whole committed state, the newest or the one that is asked for, whatever is
    being saved meanwhile (G2); it stays that one (G7). No weights are read, torch is not
    imported.

    Args:
        location: path or URL of a checkpoint, of a history, or of a single file of weights.
        step: the training step of a history; the newest by default.
        fallback: where the newest state is damaged, open the newest that is sound, warn in the
            log, and say in `Checkpoint.passed_over` what was passed over. Reads and proves all of
            what it opens (G4).
        storage_options: what fsspec's filesystem takes.

    Raises:
        NotFoundError: nothing there is a checkpoint, or there is none of that step.
        CorruptionError: a file that says what is there is malformed; with ``fallback``, no state
            is sound.
        UnsafeError: reading what is there would run code, or lead outside the location.
        UnsupportedError: it is of a format that is not installed; ``step`` beside ``fallback``.
        ConflictError: a person replaced a file of weights in the view.
        StorageError: the storage failed.
    """
    place, file = storage.locate(location, storage_options)
    if file is None:
        return open_place(place, step, fallback=fallback)
    files = PlainFiles(place, (file,), named=file)
    checkpoint = _read(files, step, location=f"{place.location}/{file}")
    if fallback:
        falling.check(checkpoint)
    return checkpoint


def open_place(place: Storage, step: int | None, *, fallback: bool = False) -> Checkpoint:
    """Open the newest checkpoint of a storage; see `open`."""
    if step is not None and (not isinstance(step, int) or isinstance(step, bool)):
        raise UnsupportedError(f"step is {step!r}, not a whole number")
    if step is not None and fallback:
        raise UnsupportedError("step= and fallback= exclude each other: a step that is named is it")
    for _ in range(_TRIES):
        try:
            return _open_sound(place) if fallback else _open_newest(place, step)
        except SupersededError:
            continue
    raise ConflictError(f"{place.location} changes faster than it can be opened; try again")


def open_state(place: Storage, state: Committed) -> Checkpoint:
    """Return a checkpoint of a state that was just committed, without looking for edits."""
    checkpoint = _read(CommittedFiles(place, state, edits={}), None)
    checkpoint.stored = state.stored
    return checkpoint


def _open_newest(place: Storage, step: int | None) -> Checkpoint:
    listing = place.list("") if step is None else None
    state = newest(place, listing) if step is None else step_named(place, step)
    return _open_plain(place, step, listing) if state is None else _open_edited(place, state)


def _open_sound(place: Storage) -> Checkpoint:
    def opened(state: Committed, is_newest: bool) -> Checkpoint:
        return _open_edited(place, state) if is_newest else open_state(place, state)

    checkpoint = falling.newest_sound(place, opened)
    if checkpoint is None:
        checkpoint = _open_plain(place, None)
        falling.check(checkpoint)
    return checkpoint


def _open_edited(place: Storage, state: Committed) -> Checkpoint:
    """Return the checkpoint of the newest state, with what somebody edited in its view."""
    edits: dict[str, str] | None = {}
    if state.manifest.generation is not None:
        edits = hand_edits(place, state, _format_named(state.manifest.format, place.location).texts)
    if edits is None:
        raise SupersededError(f"{state.manifest.called} of {place.location} was replaced meanwhile")
    return _read(CommittedFiles(place, state, edits=edits), None)


def _open_plain(place: Storage, step: int | None, listing: Listing | None = None) -> Checkpoint:
    """Return the checkpoint that plain files are, where nothing is committed.

    Raises:
        SupersededError: a first save was committed meanwhile, and what was read may be some of
            its files beside some that were there before.
    """
    try:
        files = _plain(place, listing or place.list(""))
        checkpoint = _read(files, step)
    except CkptstoreError as error:
        _check_nothing_committed(place, error)
        raise
    _check_nothing_committed(place, None)
    if isinstance(files, PlainFiles):
        files.settled = True
    return checkpoint


def _check_nothing_committed(place: Storage, error: CkptstoreError | None) -> None:
    if newest(place) is not None:
        raise SupersededError(f"{place.location} was saved to while it was opened") from error


def _plain(place: Storage, listing: Listing) -> Files:
    manifest = read_manifest(place, "") if MANIFEST in listing.files else None
    if manifest is None:
        sizes = {name: entry.size for name, entry in listing.files.items()}
        return PlainFiles(place, tuple(sizes), sizes=sizes)
    format = _format_named(manifest.format, place.location)
    known = {*manifest.texts, *format.texts} - {MANIFEST}
    texts = {name: read_text(place, name) for name in sorted(known) if name in listing.files}
    edits = {
        name: text
        for name, text in texts.items()
        if name not in manifest.texts or text != manifest.texts[name].text
    }
    return CommittedFiles(place, Committed("", manifest), edits=edits, present=listing)


def _read(files: Files, step: int | None, *, location: str | None = None) -> Checkpoint:
    format = _format_of(files)
    reader = format.read(files)
    if step is not None and reader.step != step:
        raise NotFoundError(
            f"no checkpoint at step {step} in {files.location}; it holds step {reader.step}"
        )
    checkpoint = Checkpoint(files, format, reader, location=location)
    called = files.manifest.called if files.manifest is not None else "plain files"
    log.info("opened %s: %s, format %s", checkpoint.location, called, format.name)
    return checkpoint


def _format_named(name: str, location: str) -> Format:
    """Return the format that a manifest names."""
    try:
        return plugins.format_named(name)
    except UnsupportedError as error:
        raise UnsupportedError(f"{location} cannot be opened: {error}") from error


def _format_of(files: Files) -> Format:
    if files.manifest is not None:
        return _format_named(files.manifest.format, files.location)
    found = [format for format in plugins.formats().values() if format.matches(files)]
    names = {format.name for format in found}
    found = [format for format in found if not names & set(format.yields_to)]
    if len(found) > 1:
        both = " and ".join(format.name for format in found)
        raise UnsupportedError(
            f"{files.location} looks like {both}; move one of them into a folder of its own"
        )
    if not found:
        held = sorted(files.names())
        listed = ", ".join(held[:_LISTED]) + (", …" if len(held) > _LISTED else "")
        hint = "; name a file to open it alone" if any(n.endswith(".pt") for n in held) else ""
        raise NotFoundError(
            f"no checkpoint in {files.location}: "
            + (
                f"it holds {listed}, and no model.pt; of the formats that are installed "
                f"({', '.join(plugins.formats())}) none matches{hint}"
                if held
                else "nothing is there"
            )
        )
    return found[0]
