"""What of a training is neither weights nor optimizer: random states, and where the data stands."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gpt.others import rows_until
from gpt.trail import TRAIL

if TYPE_CHECKING:
    from gpt.data import GPTDataLoader
    from gpt.model import GPT

__all__ = ["RNG", "Pending", "rng_state", "take_up"]

RNG = "rng"
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
        if not isinstance(rng, dict) or not rng.keys() >= {"torch", "cuda", "data"}:
            return None
        del states[RNG]
        return None if step is None else cls(step, rng)

    def is_unevaluated_at(self, step: int) -> bool:
        """Whether these are of a step that was saved before it could be evaluated."""
        return self.step == step and self.rng.get(_UNEVALUATED) is True

    def states_at(self, step: int | None) -> dict[str, Any]:
        """Return these as a state to be saved, where they belong to this step."""
        return {RNG: self.rng} if self.step == step else {}


def rng_state(data_loader: GPTDataLoader, *, unevaluated: bool = False) -> dict[str, Any]:
    """Return all that is random in training, in types that a weights-only load takes.

    Args:
        data_loader: whose place is in it.
        unevaluated: whether the step is still to be evaluated: noted where it is so.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "data": data_loader.state_dict(),
        **({_UNEVALUATED: True} if unevaluated else {}),
    }


def take_up(model: GPT, data_loader: GPTDataLoader, start_step: int) -> dict[str, Any] | None:
    """Go on from a step: with the rows up to it, and the states of it if the model has any.

    Returns:
        The trail of the run until then, where it is known.
    """
    model.metrics_log = rows_until(model.metrics_log, start_step)
    pending, model.pending = model.pending, None
    if pending is None or pending.step != start_step:
        return None
    torch.set_rng_state(pending.rng["torch"])
    cuda = pending.rng["cuda"]
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    elif model.device.type == "cuda":
        warnings.warn(
            f"the checkpoint has random states of {len(cuda)} CUDA devices, there are "
            f"{torch.cuda.device_count()}; dropout will not go on where it was",
            stacklevel=3,
        )
    data_loader.load_state_dict(pending.rng["data"])
    trail: dict[str, Any] | None = pending.rng.get(TRAIL)
    return trail
