"""`sync`: the same bytes, in another place."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ckptstore import storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import (
    Committed,
    newest,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.errors import (
    ConflictError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.opening import Location, open
from ckptstore.progress import OnProgress
from ckptstore.storage.base import Storage
from ckptstore.storage.shown import without_secrets
from ckptstore.transfer.carrying import Copy
from ckptstore.transfer.report import Transfer

__all__ = ["copy_state", "sync", "sync_steps"]

log = logging.getLogger(__name__)

_MOST_STARTS = 5


def sync(
    source: Location,
    destination: Location,
    *,
    optimizer: bool = True,
    vocabulary: bool | None = None,
    fallback: bool = False,
    prove: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Copy one state of a checkpoint to another location, what differs, and commit it there.

    Guarantee: every byte that passes through here is proved on the way (G4); what one S3 service
    copies by itself is not read, but with ``prove``. The destination is the old state or the new
    one, whatever dies (G2); a source that is replaced meanwhile is copied as it is then. A
    destination whose manifest is equal and whose files have the right sizes is left alone. Hand
    edits of the JSON are carried over. What was cut off goes on when it is called again.

    Args:
        source: path or URL; of a history, its newest step.
        destination: path or URL; a history gets the step, anything else its next generation.
        optimizer: False for an inference copy: model, config and tokenizer only.
        vocabulary: whether the copy carries the files that the tokenizer needs beside its state,
            such as the ranks of ``gpt2``: True adds those that the source lacks, from this
            machine, False leaves them out. By default they are carried where the source has them,
            and added to an inference copy where they are on this machine.
        fallback: where the newest state of the source is damaged, copy the newest that is sound;
            see `ckptstore.open`.
        prove: read what the destination has already too, and copy again what is damaged; let no
            service copy by itself.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        destination_options: the same for the destination alone, instead of those.
        progress: called with `Progress` events.

    Raises:
        UnsupportedError: the source is no folder of files; convert it. Or ``vocabulary`` asks for
            files that are not on this machine.
        NotFoundError, CorruptionError, ConflictError, StorageError: of either side.
    """
    own = storage_options if destination_options is None else destination_options
    place = storage.connect(destination, own)
    for start in itertools.count(1):
        origin = open(source, fallback=fallback, storage_options=storage_options)
        try:
            return _sync(
                origin,
                place,
                optimizer=optimizer,
                vocabulary=vocabulary,
                prove=prove,
                dry_run=dry_run,
                progress=progress,
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
    vocabulary: bool | None = None,
    prove: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
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
        optimizer, vocabulary, prove, dry_run: as in `sync`.
        storage_options, destination_options, progress: as in `sync`.

    Yields:
        What was done with each step, as soon as it is committed.

    Raises:
        NotFoundError: the source has no steps.
        ConflictError: the destination holds a single checkpoint, or a step with other content.
        CorruptionError, UnsafeError, StorageError: of either side.
    """
    own = storage_options if destination_options is None else destination_options
    place = storage.connect(destination, own)
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
                vocabulary=vocabulary,
                prove=prove,
                dry_run=dry_run,
                progress=progress,
                history=True,
            )
        except (NotFoundError, SupersededError) as error:
            if step in steps(storage.connect(source, storage_options)):
                raise
            log.warning("step %s was removed while it was copied, and is left out: %s", step, error)


def copy_state(
    origin: Checkpoint,
    place: Storage,
    *,
    history: bool,
    optimizer: bool = True,
    overwrite: bool = False,
    progress: OnProgress | None = None,
) -> Transfer:
    """Copy one state that is open, as `sync` and `sync_steps` do.

    Args:
        origin: what to copy.
        place: where to.
        history: whether it becomes a step there, or else the next generation.
        optimizer: False for an inference copy.
        overwrite: whether a step of other content that is there is replaced.
        progress: called with `Progress` events.

    Raises:
        ConflictError: the place is no history, or is one; or a step of other content is there.
        SupersededError: the state was removed meanwhile.
        NotFoundError, CorruptionError, StorageError: of either side.
    """
    if history and newest_generation(place) is not None:
        raise ConflictError(
            f"{place.location} holds a single checkpoint; choose another destination for steps"
        )
    if not history and newest_generation(place) is None and steps(place):
        raise ConflictError(
            f"{place.location} is a history of steps; choose another destination for a single "
            "checkpoint"
        )
    return _sync(
        origin,
        place,
        optimizer=optimizer,
        vocabulary=None,
        prove=False,
        dry_run=False,
        progress=progress,
        history=history,
        overwrite=overwrite,
    )


def _sync(
    origin: Checkpoint,
    place: Storage,
    *,
    optimizer: bool,
    vocabulary: bool | None,
    prove: bool,
    dry_run: bool,
    progress: OnProgress | None,
    history: bool = False,
    overwrite: bool = False,
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
    copy = Copy(
        origin,
        place,
        there,
        history,
        optimizer=optimizer,
        vocabulary=vocabulary,
        prove=prove,
        progress=progress,
        overwrite=overwrite,
    )
    if there is not None and copy.same_as(there) and copy.all_spared():
        return copy.report(there, changed=False)
    copy.check_free()
    if dry_run:
        return copy.report(None, changed=True)
    state = copy.run()
    return copy.report(state, changed=there is None or state.manifest != there.manifest)


def _state_at(place: Storage, step: int | None) -> Committed | None:
    """Return what a copy is compared with: of a history the same step, else the newest state."""
    there = newest(place)
    if there is None or there.manifest.generation is not None or step is None:
        return there
    same = read_manifest(place, step_folder(step))
    return there if same is None else Committed(step_folder(step), same)
