"""What a training saves, when, and where to.

Rules:

1. One store is open over a whole run, and it is made in one place, `open_store`.
2. "saved" is said of what is committed and durable. What is being saved in the background is
   "saving", and its "saved" follows when that is true.
3. A save in the background that failed is a warning, and training goes on. At the end the last
   save must have succeeded, or the run fails with its error.
4. However the run ends, what is under way is finished first; but a second signal waits for
   nothing: what is not committed by then does not count (G2).
5. Of several ranks the first saves. All others give it their random states for that, so they call
   the same methods after the same steps.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ckptstore import Keep, Preemption, Store, Tier, UnsupportedError
from gpt import bundle
from gpt.agreed import check_seen
from gpt.leaving import Outcome, Stopped
from gpt.pace import Pace
from gpt.pending import RNG, rng_state
from gpt.ranks import Ranks
from gpt.saves import Saves
from gpt.trail import TRAIL, Trail

if TYPE_CHECKING:
    import torch

    from gpt.data import GPTDataLoader
    from gpt.model import GPT

__all__ = ["Saver", "keep_of", "open_store"]

Location = str | os.PathLike[str]

_TO_END = 1.0
"""Seconds of the budget that the end of the process may need."""


def keep_of(location: Location, keep: Keep | None, tier: Tier | None = None) -> Keep | None:
    """Return what a training at a location keeps: what is asked for, or what is there.

    Args:
        location: any.
        keep: what is asked for.
        tier: where it is copied to; what is there counts where the location has nothing.

    Returns:
        None for a single checkpoint; where the newest state is a step, and nothing else is asked
        for, a `Keep` with which all steps stay.
    """
    if keep is not None:
        return keep
    store = Store(location)
    if tier is not None and not store.steps() and not store.generations():
        store = Store(tier.location, storage_options=tier.storage_options)
    if not store.steps():
        return None
    if store.generations() and store.open().generation is not None:
        return None
    return Keep()


def open_store(location: Location, keep: Keep | None, tier: Tier | None = None) -> Store:
    """Return the store that a training saves into."""
    return Store(location, keep=keep_of(location, keep, tier), tier=tier)


class Saver:
    """Saves the steps of one run; a context manager that ends with nothing under way.

    Args:
        model: with the vocabulary and the states that it carries.
        optimizer: over its parameters.
        data_loader: whose place is saved.
        trail: the losses of the last steps, saved beside it.
        location: where to; None saves nothing.
        saves: when, and how.
        say: prints a line.
        outcome: is told what is saved.
        ranks: of the run.
    """

    def __init__(
        self,
        model: GPT,
        optimizer: torch.optim.Optimizer,
        data_loader: GPTDataLoader,
        trail: Trail,
        location: Location | None,
        saves: Saves,
        say: Callable[[str], None],
        outcome: Outcome,
        ranks: Ranks,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._data_loader = data_loader
        self._trail = trail
        self._saves = saves
        self._say = say
        self._outcome = outcome
        self._ranks = ranks
        self._location = location
        self._has_saved = False  # in this run
        self._is_seen = not ranks.many  # whether all ranks see what it saved
        self._store = None
        if location is not None and ranks.first:
            self._store = open_store(location, saves.keep, saves.tier)
        self._pace: Pace | None = None
        if saves.overhead is not None and self._store is not None:
            # An optimizer of this family keeps two numbers beside each weight.
            nbytes = 3 * sum(weight.nbytes for weight in model.parameters())
            self._pace = Pace(saves.overhead, nbytes, saves.clock, say)
        self._prepared = location is None or not saves.background
        self._under_way: tuple[int, Future[Any]] | None = None
        self._failed: BaseException | None = None
        self._preemption: Preemption | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._store is None or isinstance(value, Stopped):
            return  # Who stops it at once waits for nothing, and the process ends.
        if self._preemption is not None and kind is None:
            # What is not copied to the tier by then is copied by the next run.
            left = self._preemption.remaining() or 0.0
            self._store.close(timeout=max(0.0, left - _TO_END))
        else:
            self._store.__exit__(kind, value, traceback)
        self._settle()
        if self._pace is not None:
            self._pace.say_total()
        if kind is None and self._failed is not None:
            raise self._failed

    def is_due(self, step: int, *, is_evaluated: bool) -> bool:
        """Whether a step is one to save; the last one of a run is so beside these.

        Args:
            step: finished optimizer steps.
            is_evaluated: whether its losses were measured.
        """
        if self._location is None:
            return False
        if self._saves.overhead is None:
            return step % (self._saves.interval or 1) == 0
        keep = self._saves.keep
        if keep is not None and keep.best is not None and not is_evaluated:
            return False  # What was not measured could never be the best.
        # Only rank 0 knows what saves cost, and all have to do the same.
        is_due: bool = self._ranks.broadcast(self._is_within_pace())
        return is_due

    def step_finished(self) -> None:
        """Say what became of the save under way; call it after every step."""
        if self._pace is not None:
            self._pace.step_finished()
        if self._under_way is not None and self._under_way[1].done():
            self._settle()
        if not self._prepared:
            # Not before the first step: an optimizer has no state until then.
            self._prepared = True
            states = self._states()
            if self._store is not None:
                with self._stall(is_save=False):
                    self._store.prepare(model=self._model, optimizer=self._optimizer, state=states)

    def save(self, step: int, losses: dict[str, float]) -> str:
        """Save a finished step, and return the word for what is true of it.

        Args:
            step: finished optimizer steps.
            losses: what was measured of just this state, by split; empty where nothing was.

        Returns:
            ``saved``; ``saving`` while that goes on in the background; ``""`` where nothing is.

        Raises:
            CkptstoreError: the save failed, and not in the background.
        """
        states = self._states()
        self._check_seen()
        if self._store is None:
            return ""
        background = self._saves.background
        with self._stall():
            self._wait()
            saved = self._save(self._store, step, losses, states, background=background)
        if background:
            self._under_way = step, saved
        if self._pace is not None:
            self._pace.say_interval()
        return "saving" if background else "saved"

    def save_again(self, step: int, losses: dict[str, float]) -> str:
        """Replace a step that was saved before it was evaluated; return what `save` does.

        Args:
            step: finished optimizer steps.
            losses: what was measured of just this state, by split.

        Raises:
            CkptstoreError: the save failed.
        """
        states = self._states()
        if self._store is None:
            return ""
        try:
            self._save(self._store, step, losses, states, overwrite=True)
        except UnsupportedError as error:
            warnings.warn(f"step {step} stays without its evaluation: {error}", stacklevel=2)
            return ""
        return "saved"

    def leave(
        self, step: int, losses: dict[str, float], preemption: Preemption, *, unevaluated: bool
    ) -> None:
        """Save the step with which a run ends before its time, unless it is saved already.

        Args:
            step: finished optimizer steps.
            losses: what was measured of just this state; empty where nothing was.
            preemption: which asked for that.
            unevaluated: whether it is still to be evaluated by who goes on from here.

        Raises:
            CkptstoreError: the save failed.
        """
        states = self._states(unevaluated=unevaluated)
        self._preemption = preemption
        if self._store is None or self._outcome.saved == step:
            return
        self._say(
            f"{preemption.reason}: saving step {step}, {preemption.remaining():.1f} s are left"
        )
        self._wait()
        if self._outcome.saved != step:
            # Nothing trains beside it: no copy is made, for which there may be no room.
            self._save(self._store, step, losses, states)
            self._failed = None
            self._say(f"step {step} saved")

    def _save(
        self,
        store: Store,
        step: int,
        losses: dict[str, float],
        states: dict[str, Any],
        *,
        background: bool = False,
        overwrite: bool = False,
    ) -> Any:
        if step in self._saves.replace and step in store.steps():
            # Of equal content the store would keep what is there, and that is damaged.
            store.remove(step)
        saved = bundle.save_bundle(
            self._model,
            store,
            step=step,
            optimizer=self._optimizer,
            states=states,
            # The line of the evaluation shows a loss that is no number; JSON cannot.
            metrics={f"{name}_loss": loss for name, loss in losses.items() if math.isfinite(loss)},
            background=background,
            overwrite=overwrite,
        )
        if not background:
            self._outcome.saved = step
        return saved

    def _is_within_pace(self) -> bool:
        is_busy = self._under_way is not None and not self._under_way[1].done()
        return self._pace is not None and self._pace.is_due(is_busy=is_busy)

    def _stall(self, *, is_save: bool = True) -> AbstractContextManager[None]:
        return nullcontext() if self._pace is None else self._pace.stall(is_save=is_save)

    def _states(self, *, unevaluated: bool = False) -> dict[str, Any]:
        """Return what all ranks have of their own; where nothing is saved, nothing."""
        if self._location is None:
            return {}
        rng = rng_state(self._data_loader, self._ranks, unevaluated=unevaluated)
        return {RNG: {**rng, TRAIL: self._trail.state()}}

    def _check_seen(self) -> None:
        """See once whether all ranks see the first save, and not only when they resume from it."""
        if self._location is not None and self._has_saved and not self._is_seen:
            self._is_seen = check_seen(self._ranks, self._location)
        self._has_saved = True

    def _wait(self) -> None:
        """Wait for the save under way, so that what became of it is said before the next."""
        if self._under_way is not None:
            self._under_way[1].exception()
            self._settle()

    def _settle(self) -> None:
        """Say what became of the save that was under way and is not any more."""
        if self._under_way is None:
            return
        (step, future), self._under_way = self._under_way, None
        self._failed = future.exception()
        if self._failed is None:
            self._outcome.saved = step
        # What failed in it the store has logged, as an error and at once.
        self._say(f"step {step} saved" if self._failed is None else f"step {step} is not saved")
