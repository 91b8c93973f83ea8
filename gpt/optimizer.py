"""The optimizer, and whether a state from a checkpoint belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["new_optimizer", "set_learning_rate"]

_MOMENTS = ("exp_avg", "exp_avg_sq")
_OPTIONS = ("lr", "betas", "eps", "weight_decay")
_SHOWN = 3


def new_optimizer(
    model: nn.Module, learning_rate: float, state: Mapping[str, Any] | None = None
) -> torch.optim.AdamW:
    """Return AdamW over all parameters in their order, fresh or continued.

    Args:
        model: whose parameters.
        learning_rate: of a fresh optimizer.
        state: a state to go on from, its learning rate included.

    Raises:
        ValueError: the state is not one of AdamW over these parameters.
    """
    # Fused goes through the memory once, the default on a CPU once for each of a dozen operations.
    # They round differently, so a state says which one made it, and goes on with that one.
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    if state is not None:
        # Checked first: torch says only that a group "doesn't match", and lets wrong shapes pass.
        faults = list(islice(_faults(model, state), _SHOWN))
        if faults:
            raise ValueError(f"the optimizer state does not fit the model: {'; '.join(faults)}")
        optimizer.load_state_dict(dict(state))
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _faults(model: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    groups, moments = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(moments, Mapping):
        yield f"it is no optimizer's state_dict but holds {sorted(map(str, state))}"
        return
    if len(groups) != 1:
        yield f"it has {len(groups)} parameter groups, not 1"
        return
    absent = [name for name in _OPTIONS if name not in groups[0]]
    if absent:
        yield f"it is not of AdamW, for it has no {' and no '.join(absent)}"
        return
    named = list(model.named_parameters())
    numbers = groups[0].get("params", [])
    if len(numbers) != len(named):
        yield f"it is of {len(numbers)} parameters, the model has {len(named)}"
        return
    for number, (name, parameter) in zip(numbers, named, strict=True):
        if number in moments:
            yield from _moment_faults(name, parameter, moments[number])


def _moment_faults(name: str, parameter: Tensor, moments: Mapping[str, Any]) -> Iterator[str]:
    for moment in ("step", *_MOMENTS):
        if moment not in moments:
            yield f"for {name!r} it has {sorted(moments)}, not AdamW's {moment!r}"
    for moment in _MOMENTS:
        shape = tuple(getattr(moments.get(moment), "shape", parameter.shape))
        if shape != tuple(parameter.shape):
            yield f"its {moment!r} of {name!r} has shape {shape}, not {tuple(parameter.shape)}"
