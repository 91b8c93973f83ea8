"""Falling back: the newest state that is sound, where the newest of all is damaged.

1. It is done only for whoever asks for it, and says which states were passed over, and why.
2. What is handed out was read as a whole and proved before.
3. Passed over is what is damaged: bytes, texts or a manifest that are not the ones committed
   (`CorruptionError`), content that reading would run (`UnsafeError`), an absent model. An absent
   optimizer is no damage. A storage that fails, a plugin that is not installed and a format that
   is newer are raised: the newest state may be sound.
4. Where nothing is sound the error of the newest is raised.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ckptstore.checkpoint import Checkpoint, PassedOver
from ckptstore.commit.layout import (
    Committed,
    generation_folder,
    generations,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.errors import CorruptionError, SupersededError, UnsafeError
from ckptstore.storage.base import Storage
from ckptstore.verify import prove

__all__ = ["check", "newest_sound"]

log = logging.getLogger(__name__)


def newest_sound(
    place: Storage, opened: Callable[[Committed, bool], Checkpoint]
) -> Checkpoint | None:
    """Return the newest committed state that is sound; None where nothing was ever committed.

    Args:
        place: where.
        opened: makes a checkpoint of a state, and is told whether the state is the newest.

    Raises:
        CorruptionError, UnsafeError: of the newest state, where none is sound.
        SupersededError: a state went while it was read: start over.
    """
    passed: list[PassedOver] = []
    first: CorruptionError | UnsafeError | None = None
    for called, step, folder in _candidates(place):
        try:
            manifest = read_manifest(place, folder)
            if manifest is None:
                raise SupersededError(f"{called} of {place.location} was removed meanwhile")
            step = manifest.step
            checkpoint = opened(Committed(folder, manifest), not passed)
            check(checkpoint)
        except (CorruptionError, UnsafeError) as error:
            first = first or error
            passed.append(PassedOver(called, step, str(error)))
            continue
        for state in passed:
            log.warning("%s of %s is passed over: %s", state.called, place.location, state.reason)
        if passed:
            log.warning("opened %s of %s instead", called, place.location)
        checkpoint.passed_over = tuple(passed)
        return checkpoint
    if first is not None and len(passed) > 1:
        raise type(first)(f"{first}; and of the {len(passed) - 1} older states none is sound")
    if first is not None:
        raise first
    return None


def check(checkpoint: Checkpoint) -> None:
    """Read a whole checkpoint, and prove it; the view of a single one is left out.

    Raises:
        CorruptionError: it is damaged, or its model is absent.
        UnsafeError: reading it would run code.
        SupersededError: it was replaced and removed meanwhile.
    """
    report = prove(
        checkpoint.source, checkpoint.reader.files(), view=False, reader=checkpoint.reader
    )
    for file in report.files:
        if file.status == "damaged" and file.error is not None:
            raise file.error
    if not report.sound:
        found = report.files[0].detail if report.files else "it names no files"
        raise CorruptionError(f"{report.location} has no model: {found}")


def _candidates(place: Storage) -> list[tuple[str, int | None, str]]:
    """Return what each committed state is called, its step and its folder, the newest first."""
    keyed: list[tuple[tuple[float, ...], tuple[str, int | None, str]]] = [
        ((step, 1), (f"step {step}", step, step_folder(step))) for step in steps(place)
    ]
    for number in generations(place):
        folder = generation_folder(number)
        keyed.append(
            ((_training_step(place, folder), 0, number), (f"generation {number}", None, folder))
        )
    return [candidate for _, candidate in sorted(keyed, reverse=True)]


def _training_step(place: Storage, folder: str) -> float:
    """Return the step of a generation; what cannot be read counts as the newest, and is told."""
    try:
        manifest = read_manifest(place, folder)
    except (CorruptionError, UnsafeError):
        return math.inf
    return (manifest.step if manifest else None) or 0
