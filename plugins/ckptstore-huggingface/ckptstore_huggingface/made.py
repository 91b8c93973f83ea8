"""A state dict under other names, each of whose tensors is made when it is asked for.

So that a model which is renamed, turned and joined is never there a second time (G6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Made", "State", "joined", "kept", "turned", "zeros"]


@dataclass(frozen=True)
class Made:
    """A tensor that is made when it is asked for.

    Attributes:
        dtype: torch's name, without the prefix.
        shape: the size of each dimension.
        make: makes it.
    """

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]


class State(Mapping[str, "torch.Tensor"]):
    """A state dict of tensors that are made when they are asked for.

    Args:
        made: by name, in the order of the state dict.
    """

    def __init__(self, made: Mapping[str, Made]) -> None:
        self._made = dict(made)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._made[name].make()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    @property
    def forms(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each, without making any."""
        return {name: (made.dtype, made.shape) for name, made in self._made.items()}

    @property
    def dtype(self) -> str:
        """The dtype in which none of them loses anything: theirs, or ``float32`` for several."""
        found = {made.dtype for made in self._made.values() if math.prod(made.shape)}
        return found.pop() if len(found) == 1 else "float32"


def kept(tensor: torch.Tensor) -> Made:
    """Return a tensor as it is."""
    return Made(_dtype(tensor), tuple(tensor.shape), lambda: tensor)


def turned(tensor: torch.Tensor) -> Made:
    """Return a matrix with rows for columns, as a view."""
    return Made(_dtype(tensor), tuple(reversed(tensor.shape)), lambda: tensor.t())


def joined(tensors: list[torch.Tensor], *, turn: bool = False) -> Made:
    """Return tensors as one, along their first dimension.

    Args:
        tensors: of one dtype, and of one shape.
        turn: with rows for columns afterwards.
    """
    import torch

    shape = (len(tensors) * tensors[0].shape[0], *tensors[0].shape[1:])
    if turn:
        return Made(_dtype(tensors[0]), tuple(reversed(shape)), lambda: torch.cat(tensors).t())
    return Made(_dtype(tensors[0]), shape, lambda: torch.cat(tensors))


def zeros(like: torch.Tensor, size: int) -> Made:
    """Return a vector of zeros of a tensor's dtype."""
    import torch

    return Made(_dtype(like), (size,), lambda: torch.zeros(size, dtype=like.dtype))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
