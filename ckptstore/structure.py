"""What the pickle of a `.pt` says beside its tensors: plain data, as it stands in a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Group", "Structure", "Value", "dump_structure", "kind_of", "load_structure"]

# A hyperparameter that no other of torch's optimizers has.
_ONLY_IN = {
    "dampening": "SGD",
    "centered": "RMSprop",
    "lr_decay": "Adagrad",
    "rho": "Adadelta",
    "momentum_decay": "NAdam",
    "ns_coefficients": "Muon",
    "lambd": "ASGD",
    "etas": "Rprop",
    "max_iter": "LBFGS",
}

Value = bool | int | float | str | None | tuple["bool | int | float | str | None", ...]
"""What a hyperparameter is: a plain value, or a few of them."""


@dataclass(frozen=True)
class Group:
    """A param group of an optimizer.

    Attributes:
        params: how many parameters are in it.
        values: its hyperparameters by name, such as ``lr``; those that are plain and short.
    """

    params: int
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Structure:
    """What a pickle says, its tensors' bytes aside.

    Attributes:
        refers_to: what it refers to by name, sorted, such as ``torch._utils._rebuild_tensor_v2``;
            all of it builds tensors and containers, for nothing else is read (G5).
        ties: groups of tensors that look into one and the same storage.
        unseen: tensor to bytes of its storage that no tensor shows: a view of something larger.
        groups: of an optimizer; None for anything else.
        slots: of an optimizer, what it keeps for its parameters, such as ``exp_avg``, to the number
            of parameters that it keeps it for.
    """

    refers_to: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    unseen: Mapping[str, int] = field(default_factory=dict)
    groups: tuple[Group, ...] | None = None
    slots: Mapping[str, int] = field(default_factory=dict)


def dump_structure(structure: Structure) -> dict[str, Any]:
    """Return a structure as JSON has it."""
    groups = structure.groups
    return {
        "refers_to": list(structure.refers_to),
        "ties": [list(names) for names in structure.ties],
        "unseen": dict(structure.unseen),
        "groups": None
        if groups is None
        else [{"params": group.params, "values": dict(group.values)} for group in groups],
        "slots": dict(structure.slots),
    }


def load_structure(raw: Mapping[str, Any]) -> Structure:
    """Read a structure from JSON, and check every type in it.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    groups = raw["groups"]
    return Structure(
        refers_to=_names(raw["refers_to"]),
        ties=tuple(map(_names, _list(raw["ties"]))),
        unseen={name: _count(nbytes) for name, nbytes in raw["unseen"].items()},
        groups=None
        if groups is None
        else tuple(
            Group(_count(g["params"]), {n: _value(v) for n, v in g["values"].items()})
            for g in _list(groups)
        ),
        slots={name: _count(count) for name, count in raw["slots"].items()},
    )


def kind_of(structure: Structure) -> str | None:
    """Return the class that an optimizer's state dict most likely came from; None if unknown."""
    values: Mapping[str, object] = structure.groups[0].values if structure.groups else {}
    for name, kind in _ONLY_IN.items():
        if name in values:
            return kind
    if "amsgrad" in values:
        decoupled = values.get("decoupled_weight_decay")
        return "Adam or AdamW" if decoupled is None else "AdamW" if decoupled else "Adam"
    if "exp_inf" in structure.slots:
        return "Adamax"
    return "RAdam" if "decoupled_weight_decay" in values else None


def _list(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _names(value: object) -> tuple[str, ...]:
    names = _list(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("a name that is not text")
    return tuple(names)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _value(value: object) -> Value:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return _plain(value)


def _plain(value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} is not a plain value")
