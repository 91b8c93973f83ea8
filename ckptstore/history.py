"""All states of a location, or of the locations below it: listed, summed up, proved one by one.

A listing reads the manifests and nothing else, several at a time where the storage is far away.
A state that cannot be read is a row with its error, and ends no listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from ckptstore import storage, verify
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import (
    GENERATIONS,
    STEP,
    generations,
    listed_steps,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.errors import CkptstoreError, NotFoundError, StorageError, SupersededError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.opening import Location, open, open_place, open_state
from ckptstore.progress import OnProgress
from ckptstore.storage.base import Storage
from ckptstore.storage.several import each
from ckptstore.storage.shown import without_secrets

__all__ = ["Proved", "State", "Steps", "below", "prove_each", "states", "step_numbers", "steps_of"]

OnCount = Callable[[int, int], None]
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class State:
    """One committed state as a list shows it, or why it cannot be read.

    Attributes:
        location: where.
        format: the name of the layout; None where it cannot be read.
        generation: its number in a single checkpoint, or None.
        step: finished optimizer steps, or None.
        created: when it was committed, ISO 8601, or None.
        nbytes: of all files that its manifest lists together; None where it cannot be read.
        proved: whether a manifest says what every byte has to be.
        metrics: what was measured of the model.
        newest: whether it is what opens.
        pinned: whether it is a step that is pinned.
        steps: how many steps its location has; None where that is no history.
        error: why it cannot be read.
    """

    location: str
    format: str | None = None
    generation: int | None = None
    step: int | None = None
    created: str | None = None
    nbytes: int | None = None
    proved: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    newest: bool = False
    pinned: bool = False
    steps: int | None = None
    error: CkptstoreError | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, **known: Any) -> State:
        """Return the row of a checkpoint; it is what opened, so it is the newest."""
        return cls(
            location=checkpoint.location,
            format=checkpoint.format,
            generation=checkpoint.generation,
            step=checkpoint.step,
            created=checkpoint.created,
            nbytes=sum(info.size for info in checkpoint.files().values() if info.present),
            proved=checkpoint.proved,
            metrics=checkpoint.metrics,
            newest=True,
            **known,
        )

    @classmethod
    def said(cls, location: str, manifest: Manifest) -> State:
        """Return the row that a manifest makes."""
        return cls(
            location=location,
            format=manifest.format,
            generation=manifest.generation,
            step=manifest.step,
            created=manifest.created,
            nbytes=sum(manifest.sizes().values()),
            proved=True,
            metrics=manifest.metrics,
        )


@dataclass(frozen=True)
class Steps:
    """The steps of the history that a checkpoint is one of.

    Attributes:
        count: how many are committed.
        first: the lowest.
        last: the highest.
        created: when the highest was committed, ISO 8601; by the storage's clock where it is not
            the one that was opened, and None where the storage does not say.
    """

    count: int
    first: int
    last: int
    created: str | None


@dataclass(frozen=True)
class Proved:
    """What proving one of several states found: a report, or why there is none.

    Attributes:
        called: ``step 500``, or ``generation 3``.
        step: its training step, where it is known.
        report: what was found; None where it cannot be opened.
        error: why it cannot be opened; None where there is a report.
    """

    called: str
    step: int | None
    report: verify.Report | None = None
    error: CkptstoreError | None = None


def states(
    location: Location,
    *,
    last: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    counted: OnCount | None = None,
) -> tuple[State, ...]:
    """Return the states of a location: each step of its history, ascending, then the single one.

    Args:
        location: as `open` has it.
        last: only so many steps, the highest.
        storage_options: what fsspec's filesystem takes.
        counted: called with how many were read, and how many there are.

    Raises:
        NotFoundError: nothing there is a checkpoint.
        CkptstoreError: what there is cannot be read, none of it.
    """
    place, file = storage.locate(location, storage_options)
    if file is not None:
        return (State.of(open(location, storage_options=storage_options)),)
    folders = place.list("").folders
    listed = listed_steps(place) if any(folder.startswith(STEP) for folder in folders) else {}
    if not listed:
        return (State.of(open_place(place, None)),)
    chosen = [*listed] if last is None else [*listed][-last:]
    read = _each(lambda step: _of_step(place, step), chosen, place.at_once, counted)
    rows = [row for row in read if row is not None]
    single = _single(place) if GENERATIONS in folders else None
    top = rows[-1].step if rows else None
    if single is not None and (not rows or (single.step or 0) > (top or 0)):
        single, top = replace(single, newest=True), None
    rows = [
        replace(row, newest=row.step == top, pinned=listed[row.step].pinned)
        for row in rows
        if row.step is not None
    ]
    rows += [single] if single is not None else []
    errors = [row.error for row in rows if row.error is not None]
    if errors and len(errors) == len(rows):
        raise errors[-1]
    return tuple(rows)


def step_numbers(
    location: Location, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[int, ...]:
    """Return the committed steps of a history, ascending; no manifest is read.

    Raises:
        NotFoundError: there is no step.
    """
    place = storage.connect(location, storage_options)
    found = steps(place)
    if not found:
        raise NotFoundError(
            f"no steps in {place.location}: it is no history; ckptstore ls {place.location} "
            "shows what it is"
        )
    return found


def below(
    location: Location,
    names: Sequence[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    counted: OnCount | None = None,
) -> tuple[State, ...]:
    """Return the newest state of each location of a list; those that hold none are left out.

    Args:
        location: what they lie below; says how many are looked into at a time.
        names: the locations.
        storage_options: what fsspec's filesystem takes.
        counted: called with how many were looked into, and how many there are.
    """
    at_once = storage.connect(location, storage_options).at_once
    found = _each(lambda name: _newest_of(name, storage_options), names, at_once, counted)
    return tuple(row for row in found if row is not None)


def steps_of(checkpoint: Checkpoint) -> Steps | None:
    """Return what steps there are beside an open one; None where it is no step of a history.

    Lists the location, and reads no manifest.
    """
    files = checkpoint.source
    if not isinstance(files, CommittedFiles) or not files.state.folder.startswith(STEP):
        return None
    found = steps(files.storage)
    if not found:
        return None  # It was removed since it was opened.
    if found[-1] == files.manifest.step:
        created: str | None = files.manifest.created
    else:
        entry = files.storage.entry(f"{step_folder(found[-1])}/{MANIFEST}")
        seconds = entry.modified if entry is not None else 0.0
        moment = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
        created = moment.isoformat(timespec="seconds") if moment else None
    return Steps(len(found), found[0], found[-1], created)


def prove_each(
    location: Location,
    *,
    sample: float | None = None,
    seed: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Iterator[Proved]:
    """Prove every state of a location, each step ascending, then the single one (G4).

    One that is removed meanwhile is left out; one that cannot be opened is told as damaged or
    whatever it is, and the next are proved all the same.

    Args:
        location: as `open` has it.
        sample, seed, progress: as `Checkpoint.verify` has them.
        storage_options: what fsspec's filesystem takes.

    Raises:
        NotFoundError: nothing there is a checkpoint.
        StorageError: the storage failed: then nothing can be said of the rest.
    """
    place, file = storage.locate(location, storage_options)
    numbers = steps(place) if file is None else ()

    def prove(checkpoint: Checkpoint) -> verify.Report:
        return checkpoint.verify(sample=sample, seed=seed, progress=progress)

    for step in numbers:
        yield from _proved(f"step {step}", step, partial(open_place, place, step), prove)
    if not numbers:
        checkpoint = open(location, storage_options=storage_options)
        manifest = checkpoint.source.manifest
        called = manifest.called if manifest is not None else "plain files"
        yield Proved(called, checkpoint.step, prove(checkpoint))
    for number in generations(place)[-1:] if numbers else ():
        yield from _proved(f"generation {number}", None, partial(_open_single, place), prove)


def _proved(
    called: str,
    step: int | None,
    opened: Callable[[], Checkpoint],
    prove: Callable[[Checkpoint], verify.Report],
) -> Iterator[Proved]:
    try:
        checkpoint = opened()
        report = prove(checkpoint)
    except (NotFoundError, SupersededError):
        return  # It was removed since it was listed.
    except StorageError:
        raise
    except CkptstoreError as error:
        yield Proved(called, step, error=error)
    else:
        yield Proved(called, checkpoint.step, report)


def _open_single(place: Storage) -> Checkpoint:
    state = newest_generation(place)
    if state is None:
        raise NotFoundError(f"{place.location} has no generation any more")
    return open_state(place, state)


def _of_step(place: Storage, step: int) -> State | None:
    try:
        manifest = read_manifest(place, step_folder(step))
    except CkptstoreError as error:
        if isinstance(error, StorageError) and place.at_once > 1:
            raise  # A service that fails would fail for all the others, too, and take its time.
        return State(place.location, step=step, error=error)
    return None if manifest is None else State.said(place.location, manifest)


def _single(place: Storage) -> State | None:
    try:
        state = newest_generation(place)
    except CkptstoreError as error:
        return State(place.location, generation=generations(place)[-1], error=error)
    return None if state is None else State.said(place.location, state.manifest)


def _newest_of(location: str, storage_options: Mapping[str, Any] | None) -> State | None:
    """Return the row of a location, with how many steps it has; None where it holds nothing."""
    try:
        checkpoint = open(location, storage_options=storage_options)
        found = steps_of(checkpoint)
    except NotFoundError:
        return None  # A folder of other things.
    except CkptstoreError as error:
        return State(without_secrets(location), error=error)
    return State.of(checkpoint, steps=None if found is None else found.count)


def _each(
    call: Callable[[_T], _R], items: Sequence[_T], at_once: int, counted: OnCount | None
) -> Iterator[_R]:
    """Do what `each` does, and tell after each item how many there were."""
    with closing(each(call, items, at_once)) as found:
        for number, one in enumerate(found, start=1):
            if counted is not None:
                counted(number, len(items))
            yield one
