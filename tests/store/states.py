"""A small training, every scheduler of torch's, and what it means that two states are the same."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

import ckptstore

__all__ = ["SCHEDULERS", "exactly", "made", "saved", "trained"]


class Warmup:
    """A rule of a learning rate with a state of its own, as LambdaLR saves it."""

    def __init__(self, over: int) -> None:
        self.over = over
        self.seen: list[int] = []

    def __call__(self, step: int) -> float:
        self.seen.append(step)
        return min(1.0, (step + 1) / self.over)


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 0.9**step),
    "LambdaLR of an object": lambda o: schedulers.LambdaLR(o, Warmup(5)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 2, 6]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, total_iters=6),
    "LinearLR": schedulers.LinearLR,
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 9),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 1.0, 3),
    "CyclicLR of a rule": lambda o: schedulers.CyclicLR(o, 0.01, 1.0, 3, scale_fn=lambda x: x),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 1.0, 20),
    "SWALR": lambda o: SWALR(o, 0.05),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.MultiStepLR(o, [2])], [3]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], optimizer=o
    ),
}


def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def trained(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> list[float]:
    rates = []
    for _ in range(4):
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def exactly(one: Any, other: Any) -> bool:
    """Whether two states are the same, type for type and bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return [*one] == [*other] and all(exactly(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(exactly, one, other))
    return bool(one == other)


def saved(folder: Any, **state: Any) -> ckptstore.Checkpoint:
    return ckptstore.save(folder, model=made()[0], state=state)
