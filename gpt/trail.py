"""What a run leaves on its way, so that going on from a checkpoint can be proved to be exact.

The losses of the last steps, and what decides how numbers are rounded. It depends on the training
alone, and not on when it was saved or interrupted.
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["TRAIL", "Trail"]

TRAIL = "trail"
_MOST = 1000


class Trail:
    """The losses of the last steps of a run, at most a thousand.

    Args:
        recorded: what `state` returned, of the checkpoint that the run goes on from.
        eval_interval: steps between evaluations.
        eval_iters: batches of each split in one.
    """

    def __init__(
        self, recorded: Mapping[str, Any] | None, *, eval_interval: int, eval_iters: int
    ) -> None:
        self._known: Tensor = (recorded or {}).get("losses", torch.empty(0))
        self._new: deque[Tensor] = deque(maxlen=_MOST)
        self._evaluation = {"eval_interval": eval_interval, "eval_iters": eval_iters}

    def add(self, loss: Tensor) -> None:
        """Take the loss of the step that was just finished; it stays on its device."""
        self._new.append(loss)

    def state(self) -> dict[str, Any]:
        """Return it in types that a weights-only load takes.

        Returns:
            ``losses``: of the last steps, the newest last, float32, shape (steps,); how it was
            evaluated; and what decides, beside the data, how its numbers are rounded.
        """
        if self._new:
            new = torch.stack(tuple(self._new)).to("cpu", torch.float32)
            self._new.clear()
            self._known = torch.cat((self._known, new))[-_MOST:].clone()
        return {
            "losses": self._known,
            **self._evaluation,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
