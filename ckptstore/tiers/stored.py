"""What a store has of its tier: where it opens from, how far the copies are, the end of it all."""

from __future__ import annotations

import logging

from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import steps
from ckptstore.committer import Committer
from ckptstore.errors import CkptstoreError, CorruptionError, NotFoundError
from ckptstore.keep import Keep
from ckptstore.managing import Managed
from ckptstore.opening import open_place
from ckptstore.storage.base import Storage
from ckptstore.tiers.beside import Uploading, connected, finalized
from ckptstore.tiers.rounds import called
from ckptstore.tiers.tier import Tier, Uploads
from ckptstore.transfer.copying import copy_state

__all__ = ["Tiered"]

log = logging.getLogger(__name__)


class Tiered(Managed):
    """A location whose states may be copied to a tier.

    Args:
        storage: the location.
        keep: what stays of its history.
        tier: where its states are copied to; None for nowhere.
        durable: whether what is committed here survives a loss of power (G3).
        small_view: whether the view holds only JSON and the manifest.

    Raises:
        UnsupportedError: the tier does not go with the location.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        keep: Keep | None,
        tier: Tier | None,
        durable: bool,
        small_view: bool,
    ) -> None:
        super().__init__(storage, durable=durable, small_view=small_view)
        self._uploading: Uploading | None = None
        self._there: Storage | None = None
        shown = None
        if tier is not None:
            self._there = connected(storage, tier, keep)
            self._uploading = Uploading(storage, self._there, tier, keep)
            finalized(self, self._uploading)
            shown = called(self._there)
        optimizer = tier is None or tier.optimizer
        self._committer = Committer(storage, keep, tier=shown, optimizer=optimizer)
        if self._uploading is not None:
            self._uploading.start_if_needed()

    # -- opening --------------------------------------------------------------------------

    def open(self, step: int | None = None, *, fallback: bool = False) -> Checkpoint:
        """Open the newest checkpoint, or that of a step; see `ckptstore.open`.

        With a tier: the local folder's, unless the tier's has a higher step, or the folder has
        none (a new machine). A step that is named is the local folder's where it is there, else
        the tier's. Where the tier cannot be reached, or while going back to a step has still to
        reach it, the local folder alone counts.

        Raises:
            NotFoundError, CorruptionError, StorageError: see `ckptstore.open`; of the tier only
                where the local folder has nothing to open.
        """
        if self._there is None:
            return super().open(step, fallback=fallback)
        try:
            here = super().open(step, fallback=fallback)
        except NotFoundError as absent:
            return self._opened_in(self._there, step, fallback=fallback, instead_of=absent)
        except CorruptionError as damaged:
            if not fallback:
                raise
            return self._opened_in(self._there, step, fallback=fallback, instead_of=damaged)
        if step is not None or self._going_back():
            return here
        try:
            there = open_place(self._there, None, fallback=fallback)
        except NotFoundError:
            return here
        except CkptstoreError as error:
            log.warning("%s is opened, for its tier cannot be: %s", here.location, error)
            return here
        if (there.step or 0) <= (here.step or 0):
            return here
        log.warning(
            "step %s of the tier %s is opened, for %s has only step %s",
            there.step,
            there.location,
            here.location,
            here.step,
        )
        return there

    def rewind(self, step: int) -> tuple[int, ...]:
        """Go back to a step of the history: remove all that is later, and return which steps.

        A single checkpoint at the same location goes too where its step is later. With a tier,
        what is later goes there, too, in the background; a step that only the tier has is
        copied back first.

        Raises:
            NotFoundError: there is no such step; nothing was removed.
        """
        if self._there is None or self._uploading is None:
            return super().rewind(step)
        self._settle()
        if step not in self.steps() and step in steps(self._there):
            origin = open_place(self._there, step)
            copy_state(origin, self._storage, history=True)
        with self._committer.journal.rewinding(step):
            gone = super().rewind(step)
        self._uploading.look()
        return gone

    def remove(self, step: int | None = None, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove a step, or everything that was ever committed here; legacy files stay.

        What is copied to a tier stays there; what waited to be copied does not wait any more.

        Args:
            step: which step; all steps, generations and the view by default.
            dry_run: only say what would go.

        Returns:
            The names that went, below the location.

        Raises:
            NotFoundError: there is no such step, or nothing of ours.
        """
        gone = super().remove(step, dry_run=dry_run)
        if step is None and not dry_run:
            journal = self._committer.journal
            journal.done(tuple(e for e in journal.entries() if journal.is_free(e)))
        return gone

    # -- uploads --------------------------------------------------------------------------

    def uploads(self) -> Uploads:
        """Return how far the copies to the tier are; nothing waits where there is none.

        Looks into the journal on the local disk, and asks the tier nothing.
        """
        return Uploads() if self._uploading is None else self._uploading.status()

    def wait_for_uploads(self, timeout: float | None = None) -> bool:
        """Wait until all that was saved is copied to the tier, and say whether it is.

        A save under way is waited for first. What failed before is tried once more. Never raises
        because of an upload; `uploads` says what failed.

        Args:
            timeout: seconds, at most; by default as long as nothing fails for good.

        Returns:
            Whether nothing waits any more: False in time, or where what waits needs somebody who
            mends it, such as other credentials.
        """
        self._settle()
        return self._uploading is None or self._uploading.wait(timeout)

    # -- inside ---------------------------------------------------------------------------

    def _saved(self) -> None:
        """Have what was just committed copied."""
        if self._uploading is not None:
            self._uploading.look()

    def _end_uploads(self, timeout: float | None = None) -> CkptstoreError | None:
        """Wait for the uploads and end them; return what failed for good."""
        return None if self._uploading is None else self._uploading.close(timeout)

    def _going_back(self) -> bool:
        entries = self._committer.journal.entries(self._committer.journal.tier)
        return any(entry.what == "rewind" for entry in entries)

    def _opened_in(
        self, tier: Storage, step: int | None, *, fallback: bool, instead_of: CkptstoreError
    ) -> Checkpoint:
        if self._going_back():
            raise instead_of
        try:
            return open_place(tier, step, fallback=fallback)
        except NotFoundError as error:
            raise instead_of from error
