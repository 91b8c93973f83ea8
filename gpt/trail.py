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

__all__ = ["TRAIL", "Trail", "surroundings"]

TRAIL = "trail"
_MOST = 1000
_WHAT = ("torch", "threads", "machine")


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
        self._losses: deque[Tensor] = deque((recorded or {}).get("losses", ()), _MOST)
        self._evaluation = {"eval_interval": eval_interval, "eval_iters": eval_iters}

    def add(self, loss: Tensor) -> None:
        """Take the loss of the step that was just finished; it stays on its device."""
        self._losses.append(loss)

    def state(self) -> dict[str, Any]:
        """Return it in types that a weights-only load takes.

        Returns:
            ``losses``: of the last steps, the newest last, float32, shape (steps,); how it was
            evaluated; and `surroundings`.
        """
        losses = [loss.to("cpu", torch.float32) for loss in self._losses]
        return {
            "losses": torch.stack(losses) if losses else torch.empty(0),
            **self._evaluation,
            **surroundings(),
        }


def surroundings() -> dict[str, Any]:
    """Return what decides, beside the data, how the numbers of a training are rounded."""
    values = torch.__version__, torch.get_num_threads(), platform.machine()
    return dict(zip(_WHAT, map(_plain, values), strict=True))


def _plain(value: object) -> int | str:
    return value if isinstance(value, int) else str(value)
