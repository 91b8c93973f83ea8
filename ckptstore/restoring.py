"""A checkpoint into objects that are there already, in place.

Rule: all that is read beside the objects is read, and all that can be compared is compared, before
the first of them is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptstore.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint

__all__ = ["restore"]


def restore(
    checkpoint: Checkpoint,
    *,
    model: Any,
    optimizer: Any,
    state: Mapping[str, Any],
    atomic: bool,
) -> None:
    """Do what `Checkpoint.restore` says."""
    from ckptstore import tensors

    where = checkpoint.location
    _check_names(checkpoint, state)
    into = None if model is None else tensors.fillable(model)
    if into is not None and not tensors.fits(into, checkpoint.tensors()):
        into = None  # Whether it can be loaded all the same, and what differs, is said below.
    weights = None if model is None or into is not None else checkpoint.load_model()
    moments = None if optimizer is None else _moments(checkpoint)
    found = {name: checkpoint.load_state(name) for name in state}
    if moments is not None:
        tensors.check_optimizer(optimizer, moments, where)
    if weights is not None:
        tensors.check_model(model, weights, where=where)
    tensors.check_states(state, found, where)

    def fill() -> dict[str, Any] | None:
        if into is not None and not checkpoint.reader.fill_model(into, atomic=atomic):
            return checkpoint.load_model()
        return weights

    # What is proved as it is read into the model may be found damaged. With `atomic` that leaves
    # everything alone, without it only what refuses its state must leave everything else alone.
    if atomic:
        weights = fill()
    tensors.restore_states(tensors.foreign_states(state), state, found, where)
    if not atomic:
        weights = fill()
    tensors.restore(model, weights, optimizer, moments, where=where)
    tensors.restore_states(tensors.known_states(state), state, found, where)


def _check_names(checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
    if not isinstance(state, Mapping):
        raise UnsupportedError(
            f"state= is a {type(state).__qualname__}, not a dict of objects by the names that they "
            "were saved under"
        )
    there = checkpoint.states()
    absent = [name for name in state if name not in there]
    if absent:
        raise NotFoundError(
            f"{checkpoint.location} has no state {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, there)) or 'none'}; restore without what is missing, and start "
            "with a fresh one"
        )


def _moments(checkpoint: Checkpoint) -> dict[str, Any]:
    moments = checkpoint.load_optimizer()
    if moments is None:
        raise NotFoundError(
            f"{checkpoint.location} has no optimizer state; restore the model alone, and start "
            "with a fresh optimizer"
        )
    return moments
