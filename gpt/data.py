"""From text to batches, in an order that is part of the checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt.config import GPTConfig, usable_device
from gpt.token_file import Encoder, tokenise

__all__ = ["Encoder", "GPTDataLoader"]

_TRAINING_SHARE = 0.9


class GPTDataLoader:
    """Draws random windows from a text.

    A long text is tokenised once: its ids stay in a file, which later runs map into memory.

    Guarantee (G8): the draws of training come from a generator of its own, whose state is part
    of `state_dict`; nothing else draws from it.

    Args:
        config: batch_size, block_size and device.
        tokenizer: a tokenizer, or a model.
        seed: of the order; without one it follows ``torch.manual_seed``.
        cache_dir: where the ids of long texts are kept; by default ``gpt`` in the user's folder
            for caches, ``$XDG_CACHE_HOME`` or ``~/.cache``. It may be deleted at any time.
    """

    def __init__(
        self,
        config: GPTConfig,
        tokenizer: Encoder,
        *,
        seed: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._cache_dir = cache_dir
        self._device = usable_device(config.device, warn=False)
        # Beside torch's own seed, so that order and dropout are not drawn from one sequence.
        start = torch.initial_seed() + 1 if seed is None else seed
        self._generator = torch.Generator().manual_seed(start % 2**63)
        self._splits: dict[str, Tensor] = {}
        self._sha256 = ""

    def prepare_data(self, text: str) -> None:
        """Encode the text and split it: the first nine tenths to train, the rest to validate.

        Of a short text the validation takes more than a tenth: as much as one window needs.

        Raises:
            ValueError: the text is too short for two windows, or holds what the vocabulary lacks.
        """
        tokens = tokenise(text, self._tokenizer, folder=self._cache_dir)
        ids = tokens.ids
        window = self._config.block_size + 1
        if len(ids) < 2 * window:
            raise ValueError(
                f"the text is too short: it has {len(ids)} tokens, block_size "
                f"{self._config.block_size} needs {2 * window}, one window to train and one to "
                "validate; take a longer text or a smaller block_size"
            )
        cut = min(int(_TRAINING_SHARE * len(ids)), len(ids) - window)
        self._splits = {"train": ids[:cut], "val": ids[cut:]}
        self._sha256 = tokens.sha256

    def get_batch(
        self, split: str, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids and the ids that follow them, both (batch_size, block_size).

        Args:
            split: ``train`` or ``val``.
            generator: what to draw from instead of this loader's own.

        Raises:
            ValueError: there is no such split, or `prepare_data` was not called.
        """
        if split not in self._splits:
            there = ", ".join(self._splits) or "none yet, because prepare_data was not called"
            raise ValueError(f"there is no split {split!r}; there are {there}")
        ids, size = self._splits[split], self._config.block_size
        starts = torch.randint(
            len(ids) - size,
            (self._config.batch_size,),
            generator=self._generator if generator is None else generator,
        )
        windows = ids[starts[:, None] + torch.arange(size + 1)].long().to(self._device)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Return where the order stands, and a digest of the data that it is of."""
        return {"generator": self._generator.get_state(), "sha256": self._sha256}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the order of a state; other data than its own is a warning."""
        self._generator.set_state(state["generator"])
        if state["sha256"] != self._sha256:
            warnings.warn(
                "this is not the text that the run was trained on so far; going on with it",
                stacklevel=2,
            )
