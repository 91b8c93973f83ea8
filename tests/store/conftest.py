"""Small states to save."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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
def faults() -> Callable[..., dict[str, Any]]:
    """Return a function that runs ``python -m benchmarks.faults`` on one storage.

    It gives the counts, once everything that has to be zero was zero.
    """

    def run(*arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.faults", "--json", *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        [counts] = json.loads(done.stdout)["storages"].values()
        return dict(counts)

    return run


@pytest.fixture
def same() -> Any:
    return equal
