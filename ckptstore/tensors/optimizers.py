"""Whether a state from a checkpoint belongs to an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ckptstore.errors import UnsupportedError
from ckptstore.ptfile import repaired_names

__all__ = ["check_optimizer", "listed"]

_MOST_SHOWN = 5
# What torch's optimizers keep for each element; other names may have shapes of their own.
_ELEMENTWISE = frozenset(
    (
        *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"),
        *("grad_avg", "acc_delta", "sum", "ax", "prev"),
    )
)
# What a step of torch's own classes looks up for each parameter that has a state; each of them
# has kept these names since it first was in torch.
_ADAM = ("step", "exp_avg", "exp_avg_sq")
_NEEDED = {
    "ASGD": ("step", "eta", "mu", "ax"),
    "Adadelta": ("square_avg", "acc_delta"),
    "Adagrad": ("step", "sum"),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Adamax": ("step", "exp_avg", "exp_inf"),
    "NAdam": (*_ADAM, "mu_product"),
    "RAdam": _ADAM,
    "RMSprop": ("square_avg",),
    "Rprop": ("prev", "step_size"),
    "SGD": ("momentum_buffer",),
    "SparseAdam": _ADAM,
}
# Switches that versions of torch have added, and what a step does not look up.
_LATER = frozenset(
    (
        *("amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused"),
        *("initial_accumulator_value", "maximize"),
    )
)


def check_optimizer(
    optimizer: Any, state: Any, where: str, *, what: str = "the optimizer state"
) -> None:
    """Refuse the state of another optimizer, which torch would take and then stumble over.

    Args:
        optimizer: what the state is for; one that is not of torch's make is not judged.
        state: a state dict.
        where: what to call the checkpoint in errors.
        what: what to call the state in them.

    Raises:
        UnsupportedError: the kind of optimizer, its groups, their parameters or shapes differ.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list):
        return  # Not one of torch's kind: it knows itself what fits.
    saved = state.get("param_groups") if isinstance(state, Mapping) else None
    kept = state.get("state") if isinstance(state, Mapping) else None
    fault = None
    if not isinstance(saved, list) or not isinstance(kept, Mapping):
        fault = "it has no param_groups and state, so it is no optimizer's state dict"
    elif len(saved) != len(groups):
        fault = f"it has {len(saved)} parameter groups, the optimizer {len(groups)}"
    else:
        fault = (
            _group_fault(groups, saved)
            or _kind_fault(optimizer, saved, kept)
            or _state_fault(groups, saved, kept)
        )
    if fault:
        raise UnsupportedError(
            f"{what} in {where} does not fit the optimizer: {fault}; make the "
            "optimizer as it was when it was saved, or go on with a fresh one"
        )


def _group_fault(groups: list[Any], saved: list[Any]) -> str | None:
    for index, (group, other) in enumerate(zip(groups, saved, strict=True)):
        held = other.get("params") if isinstance(other, Mapping) else None
        if not isinstance(held, list):
            return f"its group {index} lists no parameters"
        if len(held) != len(group["params"]):
            return (
                f"its group {index} has {len(held)} parameters, the optimizer's "
                f"{len(group['params'])}"
            )
        names, others = group.get("param_names"), other.get("param_names")
        if names and others:
            clean, cleaned = list(repaired_names(names).values()), repaired_names(others).values()
            for one, two in zip(clean, cleaned, strict=False):
                if one != two:
                    return f"its group {index} has {two!r} where the optimizer has {one!r}"
    return None


def _state_fault(groups: list[Any], saved: list[Any], kept: Mapping[Any, Any]) -> str | None:
    parameters = {
        key: parameter
        for group, other in zip(groups, saved, strict=True)
        for key, parameter in zip(other["params"], group["params"], strict=True)
    }
    faults = []
    for key, values in kept.items():
        parameter = parameters.get(key)
        if parameter is None:
            faults.append(f"state {key!r} belongs to no parameter")
            continue
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if (
                name in _ELEMENTWISE
                and isinstance(value, torch.Tensor)
                and value.shape != parameter.shape
            ):
                faults.append(
                    f"{name} of parameter {key} is {list(value.shape)} there, the parameter "
                    f"{list(parameter.shape)}"
                )
    return listed("its state differs:", faults) or None


def _kind_fault(
    optimizer: Any, saved: list[Mapping[str, Any]], kept: Mapping[Any, Any]
) -> str | None:
    """Return what a state lacks that the optimizer's next step would look up."""
    kind = type(optimizer)
    own_way = getattr(kind, "load_state_dict", None) is not torch.optim.Optimizer.load_state_dict
    if own_way or getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None):
        return None  # It may make something else of the state, and is asked itself.
    for index, group in enumerate(_as_loaded(optimizer, saved)):
        absent = [name for name in optimizer.defaults if name not in group and name not in _LATER]
        if absent:
            return listed(f"it is not of {kind.__qualname__}: its group {index} has no", absent)
    needed = _NEEDED.get(kind.__name__, ()) if kind.__module__.startswith("torch.optim.") else ()
    for key, values in kept.items():
        absent = [name for name in needed if isinstance(values, Mapping) and name not in values]
        if values and absent:
            return (
                f"it is not of {kind.__qualname__}: its parameter {key} has "
                f"{listed('', values).strip()} and no {' and no '.join(absent)}"
            )
    return None


def _as_loaded(optimizer: Any, saved: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return saved groups with the defaults that a class fills in for older versions' states.

    It does so in its ``__setstate__``, which a twin without any state is given here.
    """
    groups = [{**group, "params": []} for group in saved]
    twin = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__, defaults=dict(optimizer.defaults))
    try:
        twin.__setstate__({"state": {}, "param_groups": groups})
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return []  # What such a class makes of a state, only loading it will tell.
    return list(twin.param_groups)


def listed(what: str, names: Iterable[str]) -> str:
    """Return some names behind what is to be said of them; nothing where there are none."""
    shown = list(names)
    if not shown:
        return ""
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return f"{what} {', '.join(shown[:_MOST_SHOWN])}{more}"
