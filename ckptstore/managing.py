"""What is committed at a location: looked at, looked after, taken away."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import (
    generations,
    newest_generation,
    no_such_step,
    step_folder,
    steps,
)
from ckptstore.commit.remove import remove_everything, remove_single, remove_step
from ckptstore.commit.repair import adopt_view, repair
from ckptstore.opening import open_place
from ckptstore.saving import index
from ckptstore.storage.base import Storage

__all__ = ["Managed"]


class Managed(ABC):
    """What a store knows of its location beside saving into it.

    Args:
        storage: the location.
        durable: whether what is committed here survives a loss of power (G3).
        small_view: whether the view holds only JSON and the manifest.

    Attributes:
        location: for people.
    """

    def __init__(self, storage: Storage, *, durable: bool, small_view: bool) -> None:
        self.location = storage.location
        self._storage = storage
        self._durable = durable
        self._small_view = small_view

    @abstractmethod
    def _settle(self) -> None:
        """Wait for what is under way, before what there is may be removed."""

    # -- looking ------------------------------------------------------------------------

    def open(self, step: int | None = None, *, fallback: bool = False) -> Checkpoint:
        """Open the newest checkpoint, or that of a step; see `ckptstore.open`."""
        return open_place(self._storage, step, fallback=fallback)

    def steps(self) -> tuple[int, ...]:
        """Return the committed steps of the history, ascending."""
        return steps(self._storage)

    def generations(self) -> tuple[int, ...]:
        """Return the committed generations of the single checkpoint, ascending."""
        return generations(self._storage)

    # -- removing and mending -----------------------------------------------------------

    def rewind(self, step: int) -> tuple[int, ...]:
        """Go back to a step of the history: remove all that is later, and return which steps.

        A single checkpoint at the same location goes too where its step is later.

        Raises:
            NotFoundError: there is no such step; nothing was removed.
        """
        self._settle()
        there = self.steps()
        if step not in there:
            raise no_such_step(self._storage, step, there)
        later = [known for known in there if known > step]
        single = newest_generation(self._storage)
        if single is not None and (single.manifest.step or 0) > step:
            remove_single(self._storage)
            later.append(single.manifest.step or 0)
        for known in sorted({*later} & {*there}, reverse=True):
            remove_step(self._storage, known)
        return tuple(sorted(later))

    def remove(self, step: int | None = None, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove a step, or everything that was ever committed here; legacy files stay.

        Args:
            step: which step; all steps, generations and the view by default.
            dry_run: only say what would go.

        Returns:
            The names that went, below the location.

        Raises:
            NotFoundError: there is no such step, or nothing of ours.
        """
        self._settle()
        if step is None:
            return remove_everything(self._storage, dry_run=dry_run)
        there = self.steps()
        if step not in there:
            raise no_such_step(self._storage, step, there)
        if not dry_run:
            remove_step(self._storage, step)
        return (step_folder(step),)

    def repair(
        self, *, adopt: bool = False, restore: bool = False, dry_run: bool = False
    ) -> tuple[str, ...]:
        """Complete what was cut off: refresh the view, remove leftovers.

        Args:
            adopt: commit the view's files, replaced by hand, as a new generation.
            restore: put the newest generation's files back in place of them.
            dry_run: only say what would be done.

        Returns:
            What was done, a line each.
        """
        if adopt:
            return adopt_view(
                self._storage,
                index,
                durable=self._durable,
                small_view=self._small_view,
                dry_run=dry_run,
            )
        return repair(self._storage, restore=restore, dry_run=dry_run, small_view=self._small_view)
