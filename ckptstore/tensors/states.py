"""Further states: out of anything that has one, and into it again.

Rule 1: what can be compared is compared before anything is changed: modules, optimizers, torch's
learning rate schedulers and gradient scalers, generators and random states. Rule 2: what only its
own ``load_state_dict`` can judge is asked first, so that its refusal leaves all others as they
were. Rule 3: random states come last, for what is loaded before may draw numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ckptstore.errors import UnsupportedError
from ckptstore.tensors.modules import (
    check_model,
    restore_model,
    restore_optimizer,
    state_dict_of,
)
from ckptstore.tensors.optimizers import check_optimizer, listed
from ckptstore.tensors.randomness import RandomStates

__all__ = ["check_states", "foreign_states", "known_states", "restore_states", "state_of"]

_SCHEDULERS = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")
# What versions of torch have added to the states of schedulers, or taken out.
_COMES_AND_GOES = frozenset(("default_min_lr", "verbose"))


def state_of(value: Any, name: str = "state") -> Any:
    """Return the state of what has one, and anything else as it is.

    That is ``state_dict()``, for modules without what wrappers put before names, and
    ``get_state()`` of a `torch.Generator`.

    Args:
        value: an object, a state dict, or plain data.
        name: what to call it in errors.

    Raises:
        UnsupportedError: it is a class.
    """
    if isinstance(value, type) and hasattr(value, "state_dict"):
        raise UnsupportedError(
            f"the state {name!r} is the class {value.__qualname__}, not an object of it; make one"
        )
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.nn.Module):
        return state_dict_of(value)
    return value.state_dict() if hasattr(value, "state_dict") else value


def check_states(into: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Compare states with the objects that they are for; nothing is changed.

    Args:
        into: objects by name.
        found: their states by name.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: one does not fit; the message says which, and what differs.
    """
    for name, value in into.items():
        kind, state, called = type(value), found[name], f"the state {name!r}"
        if isinstance(value, torch.nn.Module):
            check_model(value, state, where=f"{called} in {where}")
        elif _is_optimizer(value):
            check_optimizer(value, state, where, what=called)
        elif kind.__module__ in _SCHEDULERS:
            fault = _scheduler_fault(value, state)
            if fault:
                raise UnsupportedError(
                    f"{called} in {where} does not fit the {kind.__name__}: {fault}; make the "
                    "scheduler as it was when it was saved, or pass what "
                    f"load_state({name!r}) returns to its load_state_dict yourself"
                )
        elif isinstance(value, torch.amp.GradScaler):
            if value.is_enabled() and not state:
                raise UnsupportedError(
                    f"{called} in {where} is empty, for the scaler that was saved was not "
                    "enabled, and this one is; start with a fresh scaler: leave it out of state="
                )
        elif isinstance(value, torch.Generator):
            _check_generator(value, state, f"{called} in {where}")
        elif isinstance(value, RandomStates):
            value.check(state, f"{called} in {where}")
        elif not hasattr(value, "load_state_dict"):
            raise UnsupportedError(
                f"{called} cannot be restored into a {kind.__qualname__}, which has no "
                f"load_state_dict(); load_state({name!r}) returns it"
            )


def foreign_states(into: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the objects that only themselves can say what fits them."""
    return tuple(name for name, value in into.items() if not _is_known(value))


def known_states(into: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the other objects, those with random states last."""
    known = [name for name, value in into.items() if _is_known(value)]
    return tuple(sorted(known, key=lambda name: isinstance(into[name], _RANDOM)))


def restore_states(
    names: Sequence[str], into: Mapping[str, Any], found: Mapping[str, Any], where: str
) -> None:
    """Load states into the objects that they are for, in place.

    Args:
        names: which, in what order.
        into: objects by name.
        found: their states by name, compared by `check_states`.
        where: what to call the checkpoint in errors.

    Raises:
        UnsupportedError: an object refuses its state; the message says which, and which objects
            before it hold theirs.
    """
    for done, name in enumerate(names):
        value, state = into[name], found[name]
        try:
            _loader(value)(state)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        # Whatever the code behind somebody's load_state_dict raises says that it did not fit.
        except Exception as error:
            before = listed("; restored before it:", map(repr, names[:done]))
            raise UnsupportedError(
                f"the state {name!r} in {where} does not fit the {type(value).__qualname__}: "
                f"{type(error).__name__}: {error}{before}"
            ) from error


def _loader(value: Any) -> Callable[[Any], object]:
    if isinstance(value, torch.Generator):
        return value.set_state
    if isinstance(value, torch.nn.Module):
        return lambda state: restore_model(value, state)
    if _is_optimizer(value):
        return lambda state: restore_optimizer(value, state)
    loads: Callable[[Any], object] = value.load_state_dict
    return loads


_RANDOM = (torch.Generator, RandomStates)


def _is_optimizer(value: Any) -> bool:
    return hasattr(value, "load_state_dict") and isinstance(
        getattr(value, "param_groups", None), list
    )


def _is_known(value: Any) -> bool:
    kinds = (torch.nn.Module, torch.amp.GradScaler, *_RANDOM)
    return isinstance(value, kinds) or _is_optimizer(value) or type(value).__module__ in _SCHEDULERS


def _scheduler_fault(scheduler: Any, state: Any) -> str | None:
    """Return why a state is another scheduler's; torch would mix the two without a word.

    What its ``load_state_dict`` does is to overwrite its attributes with those of the state.
    """
    own = scheduler.state_dict()
    if not isinstance(state, Mapping):
        return f"it is a {type(state).__name__}, not a state dict"
    faults = [
        listed("it lacks", _public(own, state)),
        listed("the scheduler has no", _public(state, own)),
    ]
    groups, there = own.get("base_lrs"), state.get("base_lrs")
    if isinstance(groups, list) and isinstance(there, list) and len(groups) != len(there):
        faults.append(f"it is of {len(there)} parameter groups, the optimizer has {len(groups)}")
    inner, others = getattr(scheduler, "_schedulers", ()), state.get("_schedulers", ())
    if not isinstance(others, (list, tuple)) or len(inner) != len(others):
        faults.append(f"it is not of {len(inner)} schedulers, one after another")
    else:
        for number, (one, other) in enumerate(zip(inner, others, strict=True)):
            fault = _scheduler_fault(one, other)
            faults.append(f"in its scheduler {number}, {fault}" if fault else "")
    return "; ".join(filter(None, faults)) or None


def _public(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of one that another lacks, but for those that versions differ in."""
    absent = [name for name in one if name not in other and name not in _COMES_AND_GOES]
    return [name for name in absent if not str(name).startswith("_")]


def _check_generator(generator: torch.Generator, state: Any, called: str) -> None:
    """Try a state on a generator that nobody uses."""
    try:
        torch.Generator(device=generator.device).set_state(state)
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            f"{called} does not fit the generator: {str(error).splitlines()[0]}"
        ) from error
