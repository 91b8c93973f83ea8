"""Doing once what the journal says: each piece of work whole, acknowledged, then forgotten.

What is copied is what the local folder holds now: a step that is gone there is not copied any
more, of a single checkpoint the newest generation is copied and stands for those before it, and
steps that the tier's own policy would remove at once are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptstore.commit.layout import (
    Committed,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.remove import remove_older, remove_step
from ckptstore.committer import Committer
from ckptstore.errors import CkptstoreError, NotFoundError, SupersededError
from ckptstore.keep import Keep
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.opening import open_place, open_state
from ckptstore.progress import OnProgress
from ckptstore.retaining import measured_of
from ckptstore.storage import locks
from ckptstore.storage.base import Storage
from ckptstore.tiers.journal import Entry, Journal
from ckptstore.transfer.copying import copy_state

if TYPE_CHECKING:
    from ckptstore.transfer.report import Transfer

__all__ = ["Piece", "Rounds", "called"]

log = logging.getLogger(__name__)

_TRIES = 5


@dataclass(frozen=True)
class Piece:
    """One state to be copied, or one rewinding, and the entries that it settles."""

    entries: tuple[Entry, ...]

    @property
    def first(self) -> Entry:
        """The entry that stands for all."""
        return self.entries[0]

    def __str__(self) -> str:
        what, step = self.first.what, self.first.step
        if what == "newest":
            return "the newest generation"
        return f"step {step}" if what == "step" else f"going back to step {step}"


def called(tier: Storage) -> str:
    """Return what a tier is called in the journal: its path, or its URL without credentials."""
    return tier.on_disk("") or tier.location


class Rounds:
    """Copies what waits in one location to one tier.

    Args:
        local: the location.
        tier: where to.
        keep: what stays of the history on the local disk; None for a single checkpoint, and where
            nothing is to be removed.
        tier_keep: what stays of the history in the tier; None for all.
    """

    def __init__(
        self, local: Storage, tier: Storage, *, keep: Keep | None, tier_keep: Keep | None
    ) -> None:
        self.journal = Journal(local)
        self._local = local
        self._tier = tier
        self._kept_here = Committer(local, keep)
        self._kept_there = Committer(tier, tier_keep)

    def waiting(self) -> tuple[Entry, ...]:
        """Return what may be done now: the entries of this tier whose saves have ended."""
        entries = self.journal.entries(called(self._tier))
        return tuple(entry for entry in entries if self.journal.is_free(entry))

    def pieces(self, entries: Sequence[Entry]) -> list[Piece]:
        """Return what they come to, in the order in which it is to be done.

        What was gone back to comes first: what the local folder has by now is what counts. Steps
        that need not be copied are forgotten here.

        Raises:
            CkptstoreError: the local disk failed.
        """
        found: dict[tuple[str, int | None], list[Entry]] = {}
        for entry in entries:
            found.setdefault((entry.what, entry.step), []).append(entry)
        pieces = [Piece(tuple(group)) for group in found.values()]
        back = [piece for piece in pieces if piece.first.what == "rewind"]
        copies = [piece for piece in pieces if piece.first.what != "rewind"]
        return back + self._wanted(copies)

    def do(self, piece: Piece, progress: OnProgress | None = None) -> Transfer | None:
        """Do one piece, and forget it once the tier has acknowledged it.

        Returns:
            What was copied; None where there was nothing to copy.

        Raises:
            CkptstoreError: of either side; the piece is still in the journal.
        """
        entry = piece.first
        if entry.what == "rewind":
            self._go_back(entry.step or 0)
            self.journal.done(piece.entries)
            return None
        if entry.what == "newest":
            return self._copy_newest(piece, progress)
        return self._copy_step(piece, entry.step or 0, progress)

    # -- inside -----------------------------------------------------------------------------

    def _wanted(self, copies: list[Piece]) -> list[Piece]:
        """Leave out the steps that are gone, and those that the tier would not keep."""
        manifests: dict[int, Manifest] = {}
        left: list[Piece] = []
        for piece in copies:
            step = piece.first.step
            try:
                manifest = None if step is None else self._manifest(step)
            except CkptstoreError:
                left.append(piece)  # What is damaged is told when its turn comes.
                continue
            if step is not None and manifest is None:
                self.journal.done(piece.entries)  # Removed since, or never committed.
                continue
            if step is not None and manifest is not None:
                manifests[step] = manifest
            left.append(piece)
        keep = self._kept_there.keep
        if keep is None:
            return left
        # More steps in the tier could only make it keep fewer of these.
        known = [measured_of(step, manifest) for step, manifest in manifests.items()]
        passed = manifests.keys() - keep.rules(known).keys()
        for piece in left:
            if piece.first.step in passed:
                log.info("%s is not copied: the tier would not keep it", piece)
                self.journal.done(piece.entries)
        if passed:
            self._retain_here()
        return [piece for piece in left if piece.first.step not in passed]

    def _manifest(self, step: int) -> Manifest | None:
        return read_manifest(self._local, step_folder(step))

    def _copy_step(self, piece: Piece, step: int, progress: OnProgress | None) -> Transfer | None:
        manifest = self._manifest(step)
        if manifest is None:
            self.journal.done(piece.entries)
            return None
        origin = open_state(self._local, Committed(step_folder(step), manifest))
        try:
            transfer = copy_state(
                origin,
                self._tier,
                history=True,
                optimizer=piece.entries[-1].optimizer,
                overwrite=any(entry.overwrite for entry in piece.entries),
                progress=progress,
            )
        except NotFoundError as error:
            if self._manifest(step) is None:
                raise SupersededError(f"step {step} was removed while it was copied") from error
            raise
        self.journal.done(piece.entries)
        self._retain_there(step)
        self._retain_here()
        return transfer

    def _copy_newest(self, piece: Piece, progress: OnProgress | None) -> Transfer | None:
        for _ in range(_TRIES):
            state = newest_generation(self._local)
            if state is None:
                self.journal.done(piece.entries)
                return None
            # Held, it stays until it was copied, however many generations come after it.
            held = locks.lock(str(self._local.on_disk(f"{state.folder}/{MANIFEST}")), shared=True)
            if held is None:
                continue
            try:
                origin = open_place(self._local, None)
                if origin.generation != state.manifest.generation:
                    continue
                transfer = copy_state(
                    origin,
                    self._tier,
                    history=False,
                    optimizer=piece.entries[-1].optimizer,
                    progress=progress,
                )
            finally:
                locks.unlock(held)
            self._remove_older()  # Before it is said that nothing waits any more.
            self.journal.done(piece.entries)
            return transfer
        raise SupersededError(f"{self._local.location} changes faster than it can be opened")

    def _go_back(self, step: int) -> None:
        """Remove what is later from the tier, unless the local folder has the same."""
        for later in reversed(steps(self._tier)):
            if later <= step:
                return
            there = read_manifest(self._tier, step_folder(later))
            here = self._manifest(later)
            if there is not None and not (here is not None and _is_copy(there, here)):
                remove_step(self._tier, later)

    def _retain_there(self, step: int) -> None:
        if self._kept_there.keep is None or self._kept_there.keep.everything:
            return
        try:
            manifest = read_manifest(self._tier, step_folder(step))
        except CkptstoreError as error:
            log.warning("step %s was copied, older ones were not removed: %s", step, error)
            return
        if manifest is not None:
            self._kept_there.retain(Committed(step_folder(step), manifest))

    def _retain_here(self) -> None:
        """Let the policy of the local disk go on where a step that was held now may go.

        The step that was saved last stays, whatever its number.
        """
        if self._kept_here.keep is None or self._kept_here.keep.everything:
            return
        try:
            last = self._kept_here.retention.saved_last()
        except CkptstoreError as error:
            log.warning("steps of %s that were copied stay: %s", self._local.location, error)
            return
        if last is not None:
            self._kept_here.retain(last)

    def _remove_older(self) -> None:
        try:
            state = newest_generation(self._local)
            if state is not None:
                remove_older(self._local, state.manifest.generation or 0)
        except CkptstoreError as error:
            log.warning("older generations of %s stay: %s", self._local.location, error)


def _is_copy(there: Manifest, here: Manifest) -> bool:
    """Whether a step of the tier is a copy, with or without optimizer, of one on the disk."""
    both = there.files.keys() & here.files.keys()
    same = all(there.files[n].digest.sha256 == here.files[n].digest.sha256 for n in both)
    return bool(both) and same and there.step == here.step
