"""State dicts out of models and optimizers, and into them again.

A restore compares first and changes afterwards: what does not fit raises `UnsupportedError`,
because the file is good and it is the model or optimizer that is another one; it is never applied
in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.errors import UnsupportedError
from ckptstore.ptfile import repaired, repaired_names
from ckptstore.tensors.optimizers import check_optimizer, listed

__all__ = [
    "check_model",
    "fillable",
    "fits",
    "restore",
    "restore_model",
    "restore_optimizer",
    "state_dict_of",
]


def state_dict_of(value: Any) -> Mapping[str, Any]:
    """Return the state dict of a model, optimizer or anything else that has one.

    Names come without what torch.compile, DataParallel and DistributedDataParallel put before
    them. A mapping is returned as it is.

    Raises:
        UnsupportedError: it is no mapping and has no state dict.
    """
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type) or not hasattr(value, "state_dict"):
        raise UnsupportedError(
            f"a {type(value).__qualname__} has no state_dict() and is no dict of tensors; pass a "
            "model, an optimizer, or a state dict"
        )
    inner = _inner(value)
    state: Mapping[str, Any] = inner.state_dict()
    if isinstance(inner, torch.nn.Module) and any("_orig_mod" in name for name in state):
        return repaired(state)
    return state


def restore(
    model: Any,
    weights: Mapping[str, Any] | None,
    optimizer: Any,
    moments: Mapping[str, Any] | None,
    *,
    where: str,
) -> None:
    """Restore a model and an optimizer in place; both are compared before either is changed.

    Args:
        model: or None.
        weights: its state dict.
        optimizer: or None.
        moments: its state dict.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: names, shapes or groups differ; nothing was changed.
    """
    if optimizer is not None and moments is not None:
        check_optimizer(optimizer, moments, where)
    if model is not None and weights is not None:
        restore_model(model, weights, where=where)
    if optimizer is not None and moments is not None:
        restore_optimizer(optimizer, moments, where=where)


def restore_model(
    model: Any, state: Mapping[str, Any], *, strict: bool = True, where: str = "the checkpoint"
) -> None:
    """Load a state dict into a model, in place, whatever wraps either.

    Args:
        model: a module, compiled or distributed or not, or anything with ``load_state_dict``.
        state: names with or without prefixes.
        strict: whether every name has to be on both sides.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: names or shapes differ; the message says which, nothing was changed.
    """
    if not isinstance(model, torch.nn.Module):
        model.load_state_dict(state)
        return
    check_model(model, state, strict=strict, where=where)
    inner = _inner(model)
    names = repaired_names(inner.state_dict())
    found = repaired(state)
    theirs = {clean: name for name, clean in names.items()}
    renamed = type(found)((theirs.get(name, name), value) for name, value in found.items())
    if hasattr(found, "_metadata") and all(old == new for old, new in names.items()):
        renamed._metadata = found._metadata  # type: ignore[attr-defined]
    try:
        inner.load_state_dict(renamed, strict=strict)
    except RuntimeError as error:
        raise UnsupportedError(f"{where} does not fit the model: {error}") from error


def check_model(
    model: Any, state: Any, *, strict: bool = True, where: str = "the checkpoint"
) -> None:
    """Refuse the state dict of another model, before anything is changed.

    Args:
        model: what it is for; one that is no module, or that renames keys as it loads, is not
            judged: it is asked when it is loaded.
        state: names with or without prefixes.
        strict: whether every name has to be on both sides.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: names or shapes differ; the message says which.
    """
    if not isinstance(model, torch.nn.Module):
        return
    if not isinstance(state, Mapping):
        raise UnsupportedError(
            f"{where} does not fit the model: it is a {type(state).__name__}, not a state dict"
        )
    inner = _inner(model)
    if any(module._load_state_dict_pre_hooks for module in inner.modules()):
        return
    own = inner.state_dict()
    names = repaired_names(own)
    clean = {names[name]: value for name, value in own.items()}
    _check_model(clean, repaired(state), strict, where)


def fillable(model: Any) -> dict[str, torch.Tensor] | None:
    """Return what a model's weights are loaded into, by name; None where it has to do it itself.

    Then to load is to overwrite each tensor: no hook, and no module of somebody else's, has a
    hand in it.
    """
    if not isinstance(model, torch.nn.Module):
        return None
    inner = _inner(model)
    for module in inner.modules():
        kind = type(module)
        theirs = (
            kind._load_from_state_dict is not torch.nn.Module._load_from_state_dict
            or kind.load_state_dict is not torch.nn.Module.load_state_dict
            or kind.state_dict is not torch.nn.Module.state_dict
        )
        hooks = (
            *(module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks),
            *(module._state_dict_hooks, module._state_dict_pre_hooks),
        )
        if any(hooks) or (theirs and not kind.__module__.startswith("torch.nn.modules.")):
            return None
    own = inner.state_dict()
    tensors = [value for value in own.values() if type(value) is torch.Tensor]
    if len(tensors) < len(own) or any(map(torch.nn.parameter.is_lazy, inner.parameters())):
        return None
    names = repaired_names(own)
    return {names[name]: value for name, value in own.items()}


def fits(model: Mapping[str, torch.Tensor], found: Mapping[str, Any]) -> bool:
    """Whether names and shapes are those of a model.

    Args:
        model: from `fillable`.
        found: anything that has a shape, by name.
    """
    return model.keys() == found.keys() and all(
        tuple(found[name].shape) == tuple(value.shape) for name, value in model.items()
    )


def restore_optimizer(
    optimizer: Any, state: Mapping[str, Any], *, where: str = "the checkpoint"
) -> None:
    """Load a state dict into an optimizer, in place.

    Args:
        optimizer: a torch optimizer, or anything with ``load_state_dict``.
        state: what its ``state_dict()`` returned.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: the kind of optimizer, the groups, their parameters or the shapes
            differ; the message says what, nothing was changed.
    """
    check_optimizer(optimizer, state, where)
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UnsupportedError(
            f"the optimizer state in {where} does not fit the optimizer: "
            f"{type(error).__name__}: {error}"
        ) from error


def _inner(value: Any) -> Any:
    """Return the module within torch.compile's and the data-parallel wrappers."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(value, torch.nn.Module):
        if "_orig_mod" in value._modules:
            value = value._modules["_orig_mod"]
        elif isinstance(value, wrappers):
            value = value.module
        else:
            break
    return value


def _check_model(
    own: Mapping[str, Any], found: Mapping[str, Any], strict: bool, where: str
) -> None:
    faults = []
    if strict:
        faults += [listed("it lacks", [name for name in own if name not in found])]
        faults += [listed("the model lacks", [name for name in found if name not in own])]
    shapes = [
        f"{name} is {list(found[name].shape)} there and {list(value.shape)} in the model"
        for name, value in own.items()
        if isinstance(value, torch.Tensor)
        and not torch.nn.parameter.is_lazy(value)
        and isinstance(found.get(name), torch.Tensor)
        and found[name].shape != value.shape
    ]
    faults += [listed("shapes differ:", shapes)]
    faults = [fault for fault in faults if fault]
    if faults:
        raise UnsupportedError(
            f"{where} does not fit the model: {'; '.join(faults)}; make the model from the "
            "checkpoint's own config"
        )
