"""From logits to the next token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Sampler"]


class Sampler:
    """Chooses tokens, one after another.

    The choice is made on the CPU with a generator of its own, so that a seed gives the same draws
    on every device and the training's random numbers stay as they are.

    Args:
        temperature: what the logits are divided by; 0 takes the likeliest token.
        top_k: draw from this many likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities reach this sum.
        seed: of the draws; without one they come from torch's global generator.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature is {temperature!r}, not a number from 0 on")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k!r}, not a whole number from 1 on")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p!r}, not above 0 and up to 1")
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._generator: torch.Generator | None = None
        if seed is not None:
            self._generator = torch.Generator().manual_seed(seed)

    def choose(self, logits: Tensor) -> int:
        """Return the next token.

        Args:
            logits: one number per token of the vocabulary.

        Raises:
            ValueError: they are no numbers.
        """
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("the model computes no numbers: its weights hold infinities or NaN")
        if self._temperature == 0:
            return int(logits.argmax())
        scores = logits.float().cpu()
        # The largest becomes 0 first, so that a tiny temperature cannot overflow.
        scores = (scores - scores.max()) / self._temperature
        if self._top_k is not None and self._top_k < len(scores):
            least = torch.topk(scores, self._top_k).values[-1]
            scores = scores.masked_fill(scores < least, -math.inf)
        probabilities = torch.softmax(scores, dim=-1)
        if self._top_p is not None and self._top_p < 1:
            probabilities = _nucleus(probabilities, self._top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Set to 0 all but the fewest likeliest whose sum reaches ``top_p``; the first always stays."""
    ordered, indices = torch.sort(probabilities, descending=True)
    reached_before = ordered.cumsum(-1) - ordered >= top_p
    reached_before[0] = False
    return probabilities.index_fill(0, indices[reached_before], 0.0)
