"""What a person does about what waits: looks at it, has it copied, or gives it up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore import storage
from ckptstore.errors import CkptstoreError, ConflictError, SupersededError
from ckptstore.opening import Location
from ckptstore.progress import OnProgress
from ckptstore.tiers.journal import Journal
from ckptstore.tiers.rounds import Rounds, called
from ckptstore.transfer.report import Transfer

__all__ = ["Waiting", "forget", "upload", "waiting"]

_MOST_TRIES = 5


@dataclass(frozen=True)
class Waiting:
    """What waits in a location for one tier.

    Attributes:
        tier: where to, for people.
        count: how many saves.
        steps: of which steps, ascending; empty for a single checkpoint.
        rewinds: the steps that were gone back to, which the tier has not heard of.
    """

    tier: str
    count: int
    steps: tuple[int, ...]
    rewinds: tuple[int, ...]


def waiting(
    location: Location, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[Waiting, ...]:
    """Return what waits in a location, for each tier; nothing where it is no local folder.

    Raises:
        StorageError: the disk failed.
    """
    place = storage.connect(location, storage_options)  # Asks nobody anything.
    folder = place.on_disk("")
    entries = Journal(place).entries() if folder is not None and os.path.isdir(folder) else ()
    found = []
    for tier in sorted({entry.to for entry in entries}):
        own = [entry for entry in entries if entry.to == tier]
        saved = [entry for entry in own if entry.what != "rewind"]
        known = {entry.step for entry in saved if entry.step is not None}
        back = [entry.step for entry in own if entry.what == "rewind" and entry.step is not None]
        found.append(Waiting(tier, len(saved), tuple(sorted(known)), tuple(back)))
    return tuple(found)


def upload(
    location: Location,
    tier: Location,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Iterator[Transfer]:
    """Copy what waits in a location to a tier, one state after the other.

    Guarantee: that of `sync` for each; what was cut off goes on when it is called again. Removes
    nothing, neither here nor there, but what the tier has beyond a step that was gone back to:
    the policies are applied by the store.

    Args:
        location: path of a folder that is saved into.
        tier: path or URL.
        storage_options: what fsspec's filesystem takes for the tier.
        progress: called with `Progress` events.

    Yields:
        What was done, as soon as the tier has acknowledged it.

    Raises:
        ConflictError: another program copies what waits here; or one state is in conflict with
            what the tier has.
        NotFoundError, CorruptionError, StorageError: of either side. One state that fails stops
            no other; the first error is raised at the end.
    """
    place = storage.connect(tier, storage_options)
    rounds = Rounds(storage.connect(location), place, keep=None, tier_keep=None)
    first: CkptstoreError | None = None
    with rounds.journal.alone() as alone:
        if not alone:
            if not rounds.waiting():
                return
            raise ConflictError(
                f"another program is copying what waits in {os.fspath(location)}; leave it to that"
            )
        for piece in rounds.pieces(rounds.waiting()):
            for attempt in range(_MOST_TRIES):
                try:
                    transfer = rounds.do(piece, progress)
                except SupersededError as error:
                    if attempt + 1 == _MOST_TRIES:
                        first = first or error
                except CkptstoreError as error:
                    first = first or error
                    break
                else:
                    if transfer is not None:
                        yield transfer
                    break
    if first is not None:
        raise first


def forget(location: Location, tier: Location | None = None) -> int:
    """Take out of a location's journal what waits there, without copying it; return how much.

    Args:
        location: path of a folder that is saved into.
        tier: only what waits for it.
    """
    place = storage.connect(location)
    journal = Journal(place)
    own = None if tier is None else called(storage.connect(tier))
    entries = tuple(entry for entry in journal.entries(own) if journal.is_free(entry))
    journal.done(entries)
    return len(entries)
