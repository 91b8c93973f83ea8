"""Commits what is saved into one location, and removes what its policy does not keep."""

from __future__ import annotations

import logging

from ckptstore.commit.layout import Committed, read_manifest, step_folder, steps
from ckptstore.commit.remove import remove_state
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import CkptstoreError, StorageError
from ckptstore.keep import Keep
from ckptstore.storage.base import Storage
from ckptstore.tiers.journal import Journal

__all__ = ["Committer"]

log = logging.getLogger(__name__)

_WORTH_A_WORD = 4


class Committer:
    """Saves into one location, one after the other.

    Args:
        storage: the location.
        keep: what stays of a history; without it the location holds a single checkpoint.
        tier: where what is saved is to be copied, for people; None for nowhere.
        optimizer: whether those copies have one.

    Attributes:
        journal: what has still to be copied, and stays until it was.
        last: the step that was saved last; what the next one has in common with it need not be
            sent again.
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
        self.last: Committed | None = None
        self._told = 0

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

    def retain(self, saved: Committed, *, durable: bool = True) -> None:
        """Remove the steps that the policy does not keep; what fails is logged, and done later.

        Args:
            saved: the step that was committed just now, which stays.
            durable: as the save was.
        """
        if self.keep is None:
            return
        try:
            self._retain(self.keep, saved, durable=durable)
        except CkptstoreError as error:
            step = saved.manifest.step
            log.warning("step %s is committed, older ones were not removed: %s", step, error)

    def _commit(self, save: Save, overwrite: bool) -> Committed:
        if self.keep is None:
            return save_generation(self.storage, save)
        self.last = save_step(self.storage, save, overwrite=overwrite, base=self.last)
        return self.last

    def _say_what_waits(self) -> None:
        """After a failure, which a full disk may be: say what of it is held for the tier."""
        waiting = self.journal.count()
        if waiting:
            log.warning(
                "%s in %s wait to be copied to a tier, and are not removed before: their room on "
                "the disk is free once they were (ckptstore upload)",
                f"{waiting} saves" if waiting > 1 else "1 save",
                self.storage.location,
            )

    def _retain(self, keep: Keep, saved: Committed, *, durable: bool) -> None:
        if keep.everything:
            return
        states = []
        for step in steps(self.storage):
            try:
                manifest = read_manifest(self.storage, step_folder(step))
            except CkptstoreError as error:
                log.warning("step %s stays, for it cannot be read: %s", step, error)
                continue
            if manifest is not None:
                states.append(Committed(step_folder(step), manifest))
        stay = keep.kept([state.manifest for state in states])
        going = [
            state
            for state in states
            if state.manifest.step not in stay and state.folder != saved.folder
        ]
        held = self.journal.held_steps() if going else frozenset()
        for state in going:
            if state.manifest.step not in held:
                remove_state(self.storage, state, durable=durable)
        self._say_what_stays([state for state in going if state.manifest.step in held])

    def _say_what_stays(self, states: list[Committed]) -> None:
        """Log what a policy would have removed, when it has doubled since it was said last."""
        if len(states) < max(2 * self._told, _WORTH_A_WORD):
            self._told = self._told if states else 0
            return
        self._told = len(states)
        nbytes = sum(sum(state.manifest.sizes().values()) for state in states)
        log.warning(
            "%d steps of %s that the policy does not keep stay until they were copied to the "
            "tier: %d MB of the disk",
            len(states),
            self.storage.location,
            nbytes // 10**6,
        )
