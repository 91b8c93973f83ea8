"""Commits what is saved into one location, and removes what its policy does not keep."""

from __future__ import annotations

import logging
from contextlib import suppress

from ckptstore.commit.layout import Committed, newest_step
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import CkptstoreError, StorageError
from ckptstore.keep import Keep
from ckptstore.retaining import Retention
from ckptstore.storage.base import Storage
from ckptstore.tiers.journal import Journal

__all__ = ["Committer"]

log = logging.getLogger(__name__)


class Committer:
    """Saves into one location, one after the other.

    Args:
        storage: the location.
        keep: what stays of a history; without it the location holds a single checkpoint.
        tier: where what is saved is to be copied, for people; None for nowhere.
        optimizer: whether those copies have one.

    Attributes:
        journal: what has still to be copied, and stays until it was.
        retention: what applies policies, and remembers what manifests say.
        last: the step that was saved last; what the next one has in common with it need not be
            stored again.
    """

    def __init__(
        self,
        storage: Storage,
        keep: Keep | None,
        *,
        tier: str | None = None,
        optimizer: bool = True,
    ) -> None:
        self.storage = storage
        self.keep = keep
        self.journal = Journal(storage, tier, optimizer=optimizer)
        self.retention = Retention(storage, held=self.journal.held_steps)
        self.last: Committed | None = None

    def commit(self, save: Save, overwrite: bool) -> Committed:
        """Commit the next generation, or a step of the history.

        Args:
            save: what.
            overwrite: whether a step that is there may be replaced.

        Raises:
            ConflictError, UnsupportedError, StorageError: see `save_generation`, `save_step`.
        """
        step = None if self.keep is None else save.step
        if self.keep is not None and step is None:
            return save_step(self.storage, save, overwrite=overwrite)  # Refuses it.
        try:
            with self.journal.saving(step, overwrite=overwrite, durable=save.durable):
                state = self._commit(save, overwrite)
        except StorageError:
            self._say_what_waits()
            raise
        if self.keep is not None:
            self.retain(state, durable=save.durable)
        return state

    def _forerunner(self) -> Committed | None:
        """Return the step that was saved last, or the newest that an earlier run has left."""
        if self.last is None and self.storage.taking_over != "never":
            try:
                self.last = newest_step(self.storage)
            except CkptstoreError as error:
                log.info("all of the first step is stored anew: %s", error)
        return self.last

    def retain(self, saved: Committed, *, durable: bool = True) -> None:
        """Remove the steps that the policy does not keep; what fails is logged, and done later.

        Args:
            saved: the step that was committed just now, which stays.
            durable: as the save was.
        """
        if self.keep is None:
            return
        try:
            self.retention.after_save(self.keep, saved, durable=durable)
        except CkptstoreError as error:
            step = saved.manifest.step
            log.warning("step %s is committed, older ones were not removed: %s", step, error)

    def _commit(self, save: Save, overwrite: bool) -> Committed:
        if self.keep is None:
            return save_generation(self.storage, save)
        self.last = save_step(self.storage, save, overwrite=overwrite, base=self._forerunner())
        return self.last

    def _say_what_waits(self) -> None:
        """After a failure, which a full disk may be: say what of it is held for the tier."""
        waiting = 0
        with suppress(CkptstoreError):  # The disk that fails may be the journal's, too.
            waiting = self.journal.count()
        if waiting:
            log.warning(
                "%s in %s wait to be copied to a tier, and are not removed before: their room on "
                "the disk is free once they were (ckptstore upload)",
                f"{waiting} saves" if waiting > 1 else "1 save",
                self.storage.location,
            )
