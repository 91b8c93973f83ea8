"""The states that are saved and loaded: shaped like those of a GPT, a third of them a model.

Only processes of variants import this: it needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.speed.memory import mapped
from benchmarks.speed.rows import Job

__all__ = ["checkpoint", "flat", "levelled", "module", "shapes", "size_of", "whole"]

_VOCABULARY, _POSITIONS = 8192, 512
_ALIGNED = 64  # Bytes; where torch's own tensors begin.


def shapes(nbytes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a model of about some size, in float32.

    From 256 MiB on its width is 1024, and its tensors have 32 MiB down to 4 KiB.
    """
    width = max(64, min(1024, int((nbytes / 256) ** 0.5) // 64 * 64))
    rows = min(_VOCABULARY, nbytes // 16 // width + 1)
    found: dict[str, tuple[int, ...]] = {
        "token_embedding_table.weight": (rows, width),
        "position_embedding_table.weight": (min(_POSITIONS, rows), width),
    }
    total = sum(map(math.prod, found.values()))
    number = 0
    while total < nbytes // 4:
        block = {f"blocks.{number}.{name}": shape for name, shape in _block(width).items()}
        found.update(block)
        total += sum(map(math.prod, block.values()))
        number += 1
    return found


def checkpoint(job: Job) -> dict[str, Any]:
    """Return a model's state dict, and that of its AdamW, twice as large, as training has them."""
    named = shapes(job.nbytes // 3)
    memory = _Memory(job.memory)
    states = {
        number: {
            "step": torch.tensor(1000.0),
            "exp_avg": memory.take(shape),
            "exp_avg_sq": memory.take(shape),
        }
        for number, shape in enumerate(named.values())
    }
    group = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    group |= {"amsgrad": False, "maximize": False, "foreach": None, "capturable": False}
    group |= {"differentiable": False, "fused": None, "decoupled_weight_decay": True}
    return {
        "model": {name: memory.take(shape) for name, shape in named.items()},
        "optimizer": {"state": states, "param_groups": [{**group, "params": [*states]}]},
    }


def flat(job: Job) -> dict[str, torch.Tensor]:
    """Return as many bytes as one state dict without levels."""
    memory = _Memory(job.memory)
    return {name: memory.take(shape) for name, shape in shapes(job.nbytes).items()}


def levelled(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of `checkpoint` without levels, for formats that know none."""
    found = {f"model.{name}": tensor for name, tensor in state["model"].items()}
    for number, inner in state["optimizer"]["state"].items():
        found |= {f"optimizer.{number}.{name}": tensor for name, tensor in inner.items()}
    return found


def module(job: Job) -> torch.nn.Module:
    """Return a module with the parameters of `flat`, in memory of its own that was touched."""
    root = torch.nn.Module()
    for name, shape in shapes(job.nbytes).items():
        *path, last = name.split(".")
        inner = root
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, torch.nn.Module())
            inner = getattr(inner, part)
        inner.register_parameter(last, torch.nn.Parameter(torch.zeros(shape)))
    return root


def whole(job: Job) -> memoryview:
    """Return as many bytes of prepared memory as the job saves, in one piece."""
    return memoryview(mapped(job.memory))[: job.nbytes]


def size_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _block(width: int) -> dict[str, tuple[int, ...]]:
    norms = {f"ln{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
    return {
        **norms,
        "sa.attention.weight": (3 * width, width),
        "sa.attention.bias": (3 * width,),
        "sa.proj.weight": (width, width),
        "sa.proj.bias": (width,),
        "fwd.net.0.weight": (4 * width, width),
        "fwd.net.0.bias": (4 * width,),
        "fwd.net.2.weight": (width, 4 * width),
        "fwd.net.2.bias": (width,),
    }


class _Memory:
    """Gives tensors that lie one behind the other in prepared memory; at its end it starts over."""

    def __init__(self, path: str) -> None:
        self._mapped = mapped(path)
        self._at = 0

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        if self._at + 4 * count > len(self._mapped):
            self._at = 0
        found = torch.frombuffer(self._mapped, dtype=torch.float32, count=count, offset=self._at)
        self._at += -(-4 * count // _ALIGNED) * _ALIGNED
        return found.view(shape)
