"""The speed of a training loop while saves go on beside it, on one core less than there are."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.speed.rows import Job, LeftOut, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_SECONDS, _SHORT = 8.0, 0.3


class _Loop:
    """A real loop: forward, backward and AdamW of a model that is all large layers.

    The state, model and optimizer, has about the size of the job. A step takes so long that
    the clock sees it, and so short that many fit into a save.
    """

    def __init__(self, job: Job) -> None:
        import torch

        cores = os.cpu_count() or 1
        if cores < 2:
            raise LeftOut("there is one core")
        torch.set_num_threads(cores - 1)
        torch.manual_seed(1)
        # Of eight layers a third of the job's bytes, as AdamW has twice the model's.
        width = max(32, int((job.nbytes / 3 / 4 / 8) ** 0.5) // 8 * 8)
        layers = [
            layer for _ in range(8) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())
        ]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.seconds = _SHORT if job.small else _SECONDS
        self._data = torch.randn(256, width)
        for _ in range(2):
            self.step()

    def step(self) -> float:
        """Do a step, and return how long it took."""
        start = time.perf_counter()
        loss = (self.model(self._data) - self._data).square().mean()
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
        "a training step, while saves go on all the time",
        (
            Variant("no saves", _alone),
            Variant("during save_async", _saving, ours=True, wanted=(Wanted("speed", 0.97),)),
        ),
        mib=768,
        state=False,
        weight=0.8,
    ),
)
