"""What is committed at a location: looked at, looked after, taken away."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import (
    generations,
    listed_steps,
    newest_generation,
    no_such_step,
    step_folder,
    steps,
)
from ckptstore.commit.pins import check_unpinned, pin, pinned_steps, unpin
from ckptstore.commit.remove import remove_everything, remove_single, remove_step
from ckptstore.commit.repair import adopt_view, repair
from ckptstore.errors import UnsupportedError
from ckptstore.keep import Keep
from ckptstore.opening import open_place
from ckptstore.retaining import Retained, Retention
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
        keep: which steps of a history stay; None where it is a single checkpoint.
    """

    keep: Keep | None = None

    def __init__(self, storage: Storage, *, durable: bool, small_view: bool) -> None:
        self.location = storage.location
        self._storage = storage
        self._durable = durable
        self._small_view = small_view

    @property
    @abstractmethod
    def _retention(self) -> Retention:
        """What applies policies to this location."""

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

    def pinned(self) -> tuple[int, ...]:
        """Return the steps that are pinned, ascending; see `pin`. Reads no manifest."""
        return pinned_steps(self._storage)

    # -- keeping ------------------------------------------------------------------------

    def pin(self, step: int) -> None:
        """Make a step of the history stay: no policy removes it, nor do `remove` and `rewind`.

        A pin is a small file beside the manifest, which is not changed. When this returns the
        step stays until `unpin`, whatever other processes are removing meanwhile (G2).

        Raises:
            NotFoundError: there is no such step, or it was removed meanwhile.
            CorruptionError: nobody can read its manifest.
            ConflictError: somebody is removing it at this moment, or a removal was cut off.
        """
        self._settle()
        pin(self._storage, step, durable=self._durable)

    def unpin(self, step: int) -> bool:
        """Take the pin from a step; return whether there was one.

        Raises:
            NotFoundError: there is no such step.
        """
        self._settle()
        return unpin(self._storage, step, durable=self._durable)

    def retain(self, keep: Keep | None = None, *, dry_run: bool = False) -> Retained:
        """Apply a policy to the history now, as each save does after its commit.

        The newest step stays, and so does what is pinned and what cannot be read (G2).

        Args:
            keep: the policy; the store's own by default.
            dry_run: only say what would go.

        Returns:
            Which steps stay, by which rules, and which went, with their bytes.

        Raises:
            UnsupportedError: there is no policy.
            NotFoundError: there is no step; or none has the metric of `Keep(best=...)` while some
                would go. Nothing was removed.
            StorageError: the storage failed; the steps that went are in the log.
        """
        self._settle()
        policy = keep if keep is not None else self.keep
        if policy is None:
            raise UnsupportedError(
                f"{self.location} was opened without a policy; pass one: "
                "retain(ckptstore.Keep(last=3))"
            )
        return self._retention.apply(policy, durable=self._durable, dry_run=dry_run)

    # -- removing and mending -----------------------------------------------------------

    def rewind(self, step: int) -> tuple[int, ...]:
        """Go back to a step of the history: remove all that is later, and return which steps.

        A single checkpoint at the same location goes too where its step is later.

        Raises:
            NotFoundError: there is no such step; nothing was removed.
            ConflictError: a later step is pinned; nothing was removed, but where it was pinned
                meanwhile.
        """
        self._settle()
        there = listed_steps(self._storage)
        if step not in there:
            raise no_such_step(self._storage, step, there)
        later = [known for known in there if known > step]
        pinned = {known: there[known].pinned for known in later}
        check_unpinned(self._storage, pinned, f"going back to step {step}")
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
            ConflictError: it is pinned, or one of them is; nothing was removed, but where it was
                pinned meanwhile.
        """
        self._settle()
        if step is None:
            return remove_everything(self._storage, dry_run=dry_run)
        there = listed_steps(self._storage)
        if step not in there:
            raise no_such_step(self._storage, step, there)
        check_unpinned(self._storage, {step: there[step].pinned}, f"removing step {step}")
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
