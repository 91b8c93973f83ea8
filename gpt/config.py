"""What a model is made of, as it stands in config.json."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

__all__ = ["ARCHITECTURE", "GPTConfig", "usable_device"]

ARCHITECTURE = ("block_size", "vocab_size", "n_embd", "n_head", "n_layer", "bias")


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# Not frozen: training scripts of this family set fields of a config before they build a model.
@dataclass
class GPTConfig:
    """The architecture of a model, and how it was trained.

    Guarantee: `from_dict` keeps fields that it does not know, and `to_dict` writes them back in
    their places.

    Attributes:
        batch_size: sequences in a batch.
        block_size: the longest sequence that the model sees, in tokens.
        vocab_size: rows of the embedding; at least the tokenizer's number of ids.
        n_embd: width of the residual stream; a multiple of ``n_head``.
        n_head: attention heads in each block.
        n_layer: blocks.
        dropout: probability, in training.
        bias: whether key, query and value have a bias.
        device: as torch names it, kept as written; `usable_device` says what there is here.
        extra: fields that belong to others.
    """

    batch_size: int = 32
    block_size: int = 256
    vocab_size: int = 50304
    n_embd: int = 384
    n_head: int = 6
    n_layer: int = 6
    dropout: float = 0.2
    bias: bool = False
    device: str = field(default_factory=_default_device)
    extra: dict[str, Any] = field(default_factory=dict, kw_only=True)
    _order: tuple[str, ...] = field(default=(), kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """Return the names of the fields that this code knows, in the order of config.json."""
        return tuple(each.name for each in fields(cls) if each.name not in ("extra", "_order"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """Return the config of a JSON object; absent fields get their defaults.

        Raises:
            ValueError: a field has a value that it cannot have; the message names it.
        """
        known = cls.known()
        return cls(
            **{name: values[name] for name in known if name in values},
            extra={name: value for name, value in values.items() if name not in known},
            _order=tuple(values),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: fields in the order in which they were read, new ones last."""
        values = {**{name: getattr(self, name) for name in self.known()}, **self.extra}
        first = {name: values[name] for name in self._order if name in values}
        return {**first, **values}

    def with_values(self, **changes: Any) -> GPTConfig:
        """Return a copy with other values in some fields."""
        return replace(self, extra=dict(self.extra), **changes)

    def check(self) -> None:
        """Check every field.

        Raises:
            ValueError: a field has a value that it cannot have; the message names it.
        """
        for name in ("batch_size", "block_size", "vocab_size", "n_embd", "n_head", "n_layer"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, not a whole number from 1 on")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}, "
                "and each head has an equal part"
            )
        dropout = self.dropout
        if not isinstance(dropout, (int, float)) or isinstance(dropout, bool):
            raise ValueError(f"dropout is {dropout!r}, not a number")
        if not (math.isfinite(dropout) and 0 <= dropout < 1):
            raise ValueError(f"dropout is {dropout!r}, not from 0 to below 1")
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias is {self.bias!r}, not true or false")
        if not isinstance(self.device, str) or not self.device:
            raise ValueError(f"device is {self.device!r}, not a name such as 'cpu' or 'cuda'")


def usable_device(name: str, *, warn: bool = True) -> str:
    """Return the device to compute on: the named one, or the CPU where there is no such device.

    Args:
        name: as torch names it, such as ``cuda`` or ``cuda:1``.
        warn: whether to warn where it is the CPU instead.

    Raises:
        ValueError: torch knows no device of that name.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}, which torch does not know; try 'cpu'") from None
    there = {
        "cpu": lambda: True,
        "cuda": lambda: (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }.get(device.type, lambda: False)
    if there():
        return name
    if warn:
        warnings.warn(f"device {name!r} is not available here; using the CPU", stacklevel=2)
    return "cpu"
