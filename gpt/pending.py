"""What of a training is neither weights nor optimizer: random states, and where the data stands.

Of a run of several ranks the state is rank 0's, as one process would have it, and beside it stand
those of the others: so whoever knows nothing of ranks reads it as it always was.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch

from gpt.others import rows_until
from gpt.ranks import Ranks
from gpt.trail import TRAIL

if TYPE_CHECKING:
    from gpt.data import GPTDataLoader
    from gpt.model import GPT

__all__ = ["OTHER_RANKS", "RNG", "Pending", "is_rng_state", "rng_state", "take_up"]

RNG = "rng"
_KEYS = frozenset({"torch", "cuda", "data"})
OTHER_RANKS = "other_ranks"
_UNEVALUATED = "unevaluated"


@dataclass(frozen=True)
class Pending:
    """Random and data states of a checkpoint, until the loop goes on from them.

    Attributes:
        step: the step that they belong to.
        rng: what `rng_state` returned then.
    """

    step: int
    rng: dict[str, Any]

    @classmethod
    def taken_from(cls, states: dict[str, Any], step: int | None) -> Pending | None:
        """Take those of ours out of a checkpoint's states; None where there are none.

        Args:
            states: by name; a state ``rng`` of another writer stays there.
            step: of the checkpoint.
        """
        rng = states.get(RNG)
        if not is_rng_state(rng):
            return None
        del states[RNG]
        return None if step is None else cls(step, rng)

    def is_unevaluated_at(self, step: int) -> bool:
        """Whether these are of a step that was saved before it could be evaluated."""
        return self.step == step and self.rng.get(_UNEVALUATED) is True

    def states_at(self, step: int | None) -> dict[str, Any]:
        """Return these as a state to be saved, where they belong to this step."""
        return {RNG: self.rng} if self.step == step else {}


def rng_state(
    data_loader: GPTDataLoader, ranks: Ranks | None = None, *, unevaluated: bool = False
) -> dict[str, Any]:
    """Return all that is random in training, in types that a weights-only load takes.

    Args:
        data_loader: of this rank.
        ranks: of the run; every one of them calls this, and gets the states of all.
        unevaluated: whether the step is still to be evaluated: noted where it is so.
    """
    ranks = ranks or Ranks()
    there = torch.cuda.is_initialized()
    # A rank computes on one device, and leaves those of the others alone.
    own = torch.cuda.get_rng_state_all if not ranks.many else lambda: [torch.cuda.get_rng_state()]
    state = {
        "torch": torch.get_rng_state(),
        "cuda": own() if there else [],
        "data": data_loader.state_dict(),
    }
    first, *others = ranks.gathered_states(state)
    return {
        **first,
        **({OTHER_RANKS: others} if others else {}),
        **({_UNEVALUATED: True} if unevaluated else {}),
    }


def take_up(
    model: GPT, data_loader: GPTDataLoader, start_step: int, ranks: Ranks | None = None
) -> dict[str, Any] | None:
    """Go on from a step: with the rows up to it, and the states of it if the model has any.

    A state of another number of ranks is a warning: each rank takes its own where there is one,
    and draws anew where there is none.

    Returns:
        The trail of the run until then, where it is known.
    """
    ranks = ranks or Ranks()
    model.metrics_log = rows_until(model.metrics_log, start_step)
    pending, model.pending = model.pending, None
    if pending is None or pending.step != start_step:
        return None
    trail: dict[str, Any] | None = pending.rng.get(TRAIL)
    states = _by_rank(pending.rng)
    if len(states) != ranks.size:
        _say_other_size(len(states), ranks)
    if ranks.rank >= len(states):
        return trail
    own = states[ranks.rank]
    torch.set_rng_state(own["torch"])
    _take_up_cuda(own["cuda"], model.device, ranks)
    data_loader.load_state_dict(own["data"])
    return trail


def is_rng_state(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is what `rng_state` returns, and not a state of another writer."""
    return isinstance(value, dict) and value.keys() >= _KEYS


def _by_rank(rng: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the states of all ranks; what is no state of a rank is left out, and all after it."""
    found = [rng]
    others = rng.get(OTHER_RANKS)
    for each in others if isinstance(others, list) else []:
        if not is_rng_state(each):
            break
        found.append(each)
    return found


def _say_other_size(there: int, ranks: Ranks) -> None:
    if not ranks.first:
        return
    what = f"the {ranks.size} there are" if ranks.many else "one process"
    anew = f"; from rank {there} on they draw data and dropout anew" if ranks.size > there else ""
    warnings.warn(
        f"the checkpoint is of a run of {there} {'ranks' if there > 1 else 'process'}, and goes on "
        f"with {what}{anew}; weights, optimizer and step are exact, what follows is not what "
        "it would have been without the interruption",
        stacklevel=4,
    )


def _take_up_cuda(states: list[torch.Tensor], device: torch.device, ranks: Ranks) -> None:
    devices = 1 if ranks.many else torch.cuda.device_count()
    if torch.cuda.is_available() and len(states) == devices:
        if ranks.many:
            torch.cuda.set_rng_state(states[0])
        else:
            torch.cuda.set_rng_state_all(states)
    elif device.type == "cuda":
        warnings.warn(
            f"the checkpoint has random states of {len(states)} CUDA devices, there are "
            f"{devices}; dropout will not go on where it was",
            stacklevel=4,
        )
