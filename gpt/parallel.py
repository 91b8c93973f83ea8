"""Gradients averaged over ranks, summed in the same order in every run."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["data_parallel"]


def data_parallel(model: nn.Module) -> nn.Module:
    """Return `DistributedDataParallel` around a model, warmed up.

    It puts gradients into buckets, and puts them into others after its first step, in the order in
    which they came. In which order the parts of a bucket are summed depends on where they are in
    it; so a run that was interrupted would round otherwise in its first step than one that was
    not. One step on nothing comes before all others, here and there, and after it the buckets
    stay. It leaves no gradients; its random numbers are the caller's to put back.

    Args:
        model: a `GPT` on its device; in torch's process group, all ranks call this.
    """
    device = next(model.parameters()).device
    wrapped = nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None
    )
    nothing = torch.zeros(1, 1, dtype=torch.long, device=device)
    for _ in range(2):  # The second begins with the new buckets.
        wrapped(nothing, nothing)[1].backward()
    model.zero_grad(set_to_none=True)
    return wrapped
