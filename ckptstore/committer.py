"""Commits what is saved into one location, and removes what its policy does not keep."""

from __future__ import annotations

import logging

from ckptstore.commit.layout import Committed, read_manifest, step_folder, steps
from ckptstore.commit.remove import remove_state
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import CkptstoreError
from ckptstore.keep import Keep
from ckptstore.storage.base import Storage

__all__ = ["Committer"]

log = logging.getLogger(__name__)


class Committer:
    """Saves into one location, one after the other.

    Args:
        storage: the location.
        keep: what stays of a history; without it the location holds a single checkpoint.

    Attributes:
        last: the step that was saved last; what the next one has in common with it need not be
            sent again.
    """

    def __init__(self, storage: Storage, keep: Keep | None) -> None:
        self.storage = storage
        self.keep = keep
        self.last: Committed | None = None

    def commit(self, save: Save, overwrite: bool) -> Committed:
        """Commit the next generation, or a step of the history.

        Args:
            save: what.
            overwrite: whether a step that is there may be replaced.

        Raises:
            ConflictError, UnsupportedError, StorageError: see `save_generation`, `save_step`.
        """
        if self.keep is None:
            return save_generation(self.storage, save)
        state = save_step(self.storage, save, overwrite=overwrite, base=self.last)
        self.last = state
        try:
            self._retain(self.keep, state, durable=save.durable)
        except CkptstoreError as error:
            log.warning("step %s is committed, older ones were not removed: %s", save.step, error)
        return state

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
        for state in states:
            if state.manifest.step not in stay and state.folder != saved.folder:
                remove_state(self.storage, state, durable=durable)
