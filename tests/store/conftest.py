"""Small states to save."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch


class Training(NamedTuple):
    """A model and its optimizer after a step."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def make_training(seed: int = 0) -> Training:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return Training(model, optimizer)


@pytest.fixture
def training() -> Training:
    return make_training()


@pytest.fixture
def other_training() -> Training:
    return make_training(1)


def equal(one: Any, other: Any) -> bool:
    """Whether two nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(
                one.reshape(-1).contiguous().view(torch.uint8) if one.numel() else one,
                other.reshape(-1).contiguous().view(torch.uint8) if other.numel() else other,
            )
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.fixture
def same() -> Any:
    return equal
