"""Saving one state: write, commit, show, retain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptstore.commit.attempt import Attempt, Index
from ckptstore.commit.draft import Rehearsal, draft
from ckptstore.commit.edits import check_replaced
from ckptstore.commit.intact import Age
from ckptstore.commit.layout import (
    Committed,
    generation_folder,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.pins import check_not_replacing
from ckptstore.commit.remove import remove_older, remove_state
from ckptstore.commit.stored import nothing_of
from ckptstore.commit.view import show, view_manifest
from ckptstore.errors import CkptstoreError, ConflictError, UnsupportedError
from ckptstore.formats.base import NewFiles
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Storage
from ckptstore.storage.several import delete_or_leave

__all__ = ["Begun", "Index", "Save", "begin", "publish", "save_generation", "save_step"]

log = logging.getLogger(__name__)

_REMEMBERED = 64


@dataclass(frozen=True)
class Begun:
    """A write that began before it is committed, because others write files for it.

    Attributes:
        folder: the new generation's folder, or the step's.
        manifest: its manifest, without files.
        base: the forerunner that it is the next of; a step has none.
        age: since when it is under way.
    """

    folder: str
    manifest: Manifest
    base: Committed | None
    age: Age


@dataclass(frozen=True)
class Save:
    """What is to be saved, and how.

    Attributes:
        write: writes the files; called once, and once more where a step is there already, or
            where what was taken over from another step was removed meanwhile.
        index: reads the tensor index of a file just written.
        format: the name of the layout.
        step: finished optimizer steps.
        metrics: what was measured of the model.
        fingerprint: of the tokenizer's vocabulary.
        durable: whether it must survive a loss of power.
        small_view: whether the view holds JSON and manifest only.
        resident: whether what `write` lends is in memory anyhow, as a model's tensors are.
        parallel: whether threads of its own may compute digests.
        anew: write a step also where the same content is committed, because its bytes are damaged.
        begun: the write that this is the end of; without, it begins when it is saved.
    """

    write: Callable[[NewFiles], None]
    index: Index
    format: str = "bundle"
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str | None = None
    durable: bool = True
    small_view: bool = False
    resident: bool = True
    parallel: bool = True
    anew: bool = False
    begun: Begun | None = None

    def manifest(self, generation: int | None, base: Manifest | None = None) -> Manifest:
        """Return the manifest to start from."""
        return draft(
            format=self.format,
            generation=generation,
            step=self.step,
            metrics=self.metrics,
            fingerprint=self.fingerprint,
            earlier={} if base is None else _earlier(base),
        )

    def step_manifest(self) -> Manifest:
        """Return that of a step: of the write that began, or of a new one."""
        return self.manifest(None) if self.begun is None else self.begun.manifest

    def attempt(
        self, storage: Storage, folder: str, manifest: Manifest, base: Committed | None = None
    ) -> Attempt:
        """Return the write itself; what its base has need not be stored again."""
        return Attempt(
            storage,
            folder,
            manifest,
            index=self.index,
            durable=self.durable,
            base=base,
            resident=self.resident,
            parallel=self.parallel,
            age=None if self.begun is None else self.begun.age,
        )


def begin(storage: Storage, save: Save, *, history: bool) -> Begun:
    """Begin a write to which others add files before it is committed.

    Args:
        storage: where.
        save: what; what it writes is of no account yet.
        history: whether it is a step of a history, or the next generation.

    Raises:
        ConflictError: a save would take something away from somebody.
        UnsupportedError: it is a step of a history, and has no number.
    """
    if history:
        folder = step_folder(_numbered(storage, save))
        return Begun(folder, save.manifest(None), None, Age(storage.location))
    return _next_generation(storage, save, over_view=False)


def _next_generation(storage: Storage, save: Save, *, over_view: bool) -> Begun:
    base = newest_generation(storage)
    _check_place(storage, base, over_view=over_view)
    number = 1 if base is None else (base.manifest.generation or 0) + 1
    manifest = save.manifest(number, base.manifest if base else None)
    return Begun(generation_folder(number), manifest, base, Age(storage.location))


def _numbered(storage: Storage, save: Save) -> int:
    if save.step is None:
        raise UnsupportedError(
            f"{storage.location} is a history, and its checkpoints are known by their steps; "
            "pass step="
        )
    return save.step


def save_generation(storage: Storage, save: Save, *, over_view: bool = False) -> Committed:
    """Save the next generation of a single checkpoint, show it, and remove the older ones.

    Guarantee: whole or absent (G2); of several writers of one generation one commits (G7).

    Args:
        storage: where.
        save: what.
        over_view: replace files of bytes that a person put into the view.

    Raises:
        ConflictError: another writer was first, a person's file stands in the view, or the
            location is a history.
    """
    begun = save.begun or _next_generation(storage, save, over_view=over_view)
    with save.attempt(storage, begun.folder, begun.manifest, begun.base) as attempt:
        save.write(attempt)
        state = attempt.commit()
    try:
        _withdraw_if_late(storage, state)
    except ConflictError:
        raise
    except CkptstoreError as error:
        error.committed = None  # It is there; whether a newer one is too could not be seen.
        raise
    return publish(storage, state, small_view=save.small_view, durable=save.durable)


def _check_place(storage: Storage, base: Committed | None, *, over_view: bool) -> None:
    """Refuse to save where a save would take something away from somebody."""
    if base is not None:
        if not over_view:
            check_replaced(storage, base)
        return
    if steps(storage):
        raise ConflictError(
            f"{storage.location} is a history of steps; save to it with "
            "ckptstore.Store(location, keep=ckptstore.Keep(...)), or choose another location"
        )
    if MANIFEST in storage.list("").files and view_manifest(storage) is None:
        raise ConflictError(
            f"{MANIFEST} in {storage.location} is not ckptstore's, and a save would replace it; "
            "move it away, or choose another location"
        )


def publish(storage: Storage, state: Committed, *, small_view: bool, durable: bool) -> Committed:
    """Refresh the view and remove older generations; what fails here is done by the next save."""
    try:
        shown = show(storage, state, small=small_view, durable=durable)
        remove_older(storage, shown.manifest.generation or 0)
    except CkptstoreError as error:
        log.warning(
            "generation %s of %s is committed, but its view or its forerunners were not "
            "brought up to date: %s",
            state.manifest.generation,
            storage.location,
            error,
        )
    return state


def save_step(
    storage: Storage, save: Save, *, overwrite: bool, base: Committed | None = None
) -> Committed:
    """Save a step of a history.

    Saved again with the same content it changes nothing; with other content it is refused, or
    with ``overwrite`` replaces the step in one operation.

    Args:
        storage: where.
        save: what.
        overwrite: whether a step that is there may be replaced.
        base: another step, whose bytes need not be stored again.

    Raises:
        ConflictError: the step is there with other content, and pinned or not to be replaced; or
            another writer was first.
        UnsupportedError: no step was given, or the storage cannot replace in one operation.
    """
    folder = step_folder(_numbered(storage, save))
    existing = read_manifest(storage, folder)
    same = False
    if existing is not None:
        rehearsal = Rehearsal(save.step_manifest())
        save.write(rehearsal)
        same = rehearsal.manifest.same_content(existing)
        if same and not save.anew:
            if save.durable:  # Whoever wrote it may not have asked for that, or died before.
                storage.flush(folder)
            return Committed(folder, existing, nothing_of(existing))
        if not same and not overwrite:
            raise ConflictError(
                f"step {save.step} is in {storage.location} already, with other content; "
                "pass overwrite=True to replace it, or go back with Store(...).rewind(step)"
            )
    old = None if existing is None else Committed(folder, existing)
    if save.begun is not None:
        base = None  # What other processes wrote for this write could not be written anew.
    state = _write_step(storage, save, folder, old, base, same=same)
    if old is not None:
        kept = {*state.manifest.paths()}
        gone = (path for path in old.manifest.paths() if path not in kept)
        delete_or_leave(storage, map(old.path, gone))
    return state


def _write_step(
    storage: Storage,
    save: Save,
    folder: str,
    old: Committed | None,
    base: Committed | None,
    *,
    same: bool,
) -> Committed:
    """Write a step and commit it; anew where another step was removed that it leaned on."""
    with save.attempt(storage, folder, save.step_manifest(), base) as attempt:
        if old is not None and not same:
            check_not_replacing(storage, old, attempt.taken)
        save.write(attempt)
        if attempt.stands:
            return attempt.commit() if old is None else attempt.replace(old)
        attempt.abandon()
    log.info("%s of %s was removed meanwhile, and is not used", base and base.folder, folder)
    return _write_step(storage, save, folder, old, None, same=same)


def _withdraw_if_late(storage: Storage, state: Committed) -> None:
    top = newest_generation(storage)
    number = state.manifest.generation or 0
    if top is not None and (top.manifest.generation or 0) > number:
        remove_state(storage, state)
        raise ConflictError(
            f"generation {number} of {storage.location} came too late: generation "
            f"{top.manifest.generation} was committed meanwhile; nothing of this save is left, "
            "open what is there and decide"
        )


def _earlier(base: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the digests of all that the view may still get from this and its forerunners."""
    own = {name: entry.sha256 for name, entry in base.texts.items()}
    own |= {name: entry.digest.sha256 for name, entry in base.files.items()}
    earlier = dict(base.earlier)
    for name, digest in own.items():
        others = (other for other in base.earlier.get(name, ()) if other != digest)
        earlier[name] = (*others, digest)[-_REMEMBERED:]
    return earlier
