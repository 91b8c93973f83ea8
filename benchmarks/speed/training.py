"""The speed of a training loop while saves go on beside it, on one core less than there are."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.speed.rows import Job, LeftOut, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_SECONDS, _SHORT = 8.0, 0.3
_LAYERS, _HEAD, _TOKENS, _LETTERS = 8, 64, 128, 65


class _Loop:
    """The steps of `gpt train`: forward, backward and AdamW of a GPT.

    The state, model and optimizer, has about the size of the job. A step takes so long that
    the clock sees it, and so short that many fit into a save.
    """

    def __init__(self, job: Job) -> None:
        import torch

        from gpt.config import GPTConfig
        from gpt.model import GPT

        cores = os.cpu_count() or 1
        if cores < 2:
            raise LeftOut("there is one core")
        torch.set_num_threads(cores - 1)
        torch.manual_seed(1)
        # A layer has 12 times the square of its width; AdamW has twice the model's bytes.
        width = max(_HEAD, int((job.nbytes / 3 / 4 / 12 / _LAYERS) ** 0.5) // _HEAD * _HEAD)
        config = GPTConfig(
            vocab_size=_LETTERS,
            block_size=_TOKENS,
            n_embd=width,
            n_head=width // _HEAD,
            n_layer=_LAYERS,
            dropout=0.0,
            device="cpu",
        )
        self.model = GPT(config)
        self.optimizer = self.model.configure_optimizer()
        self.seconds = _SHORT if job.small else _SECONDS
        tokens = torch.randint(_LETTERS, (1, _TOKENS + 1))
        self._data, self._targets = tokens[:, :-1], tokens[:, 1:]
        for _ in range(2):
            self.step()

    def step(self) -> float:
        """Do a step, and return how long it took."""
        start = time.perf_counter()
        _, loss = self.model(self._data, self._targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def _alone(job: Job) -> Timed:
    loop = _Loop(job)

    def train() -> dict[str, float]:
        end = time.perf_counter() + loop.seconds
        steps = []
        while time.perf_counter() < end or not steps:
            steps.append(loop.step())
        return {"seconds": sum(steps) / len(steps), "steps": len(steps)}

    return Timed(train)


def _saving(job: Job) -> Timed:
    """Save one state after the other; only the steps that lie inside a save count.

    What `save_async` itself takes is measured in a row of its own.
    """
    import ckptstore

    loop = _Loop(job)
    store = ckptstore.Store(job.folder / "store")
    store.prepare(model=loop.model, optimizer=loop.optimizer)

    def train() -> dict[str, float]:
        end = time.perf_counter() + loop.seconds
        steps: list[float] = []
        saves, future = 0, None
        while time.perf_counter() < end or not steps:
            if future is None or future.done():
                saves += 1
                future = _save(store, loop, saves)
            seconds = loop.step()
            # The first step counts in any case, so that there is one.
            if not future.done() or not steps:
                steps.append(seconds)
        return {"seconds": sum(steps) / len(steps), "steps": len(steps), "saves": saves}

    return Timed(train, after=store.close)


def _save(store: Any, loop: _Loop, step: int) -> Any:
    return store.save_async(model=loop.model, optimizer=loop.optimizer, step=step)


ROWS = (
    Row(
        "training",
        "a training step of gpt, while saves go on all the time",
        (
            Variant("no saves", _alone),
            Variant("during save_async", _saving, ours=True, wanted=(Wanted("speed", 0.97),)),
        ),
        mib=768,
        state=False,
        weight=1.2,
    ),
)
