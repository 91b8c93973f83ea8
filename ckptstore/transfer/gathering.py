"""Everything that a checkpoint holds, as what a format writes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import Committed
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.opening import open_state
from ckptstore.storage.base import Storage
from ckptstore.texts import dump_json

__all__ = ["contents_of", "opened", "own_fields", "part_of"]

# What a training_state.json of less than 1 KB has room for beside step and file names.
_MOST_FIELDS = 600
# Each that has no room there becomes a file: as many as anybody would look through.
_MOST_NAMES = 500


def contents_of(
    origin: Checkpoint,
    *,
    optimizer: bool,
    roomy: bool,
    later: bool = False,
    tokenizer_files: Mapping[str, bytes] | None = None,
) -> Contents:
    """Return everything that a checkpoint holds.

    Args:
        origin: the checkpoint.
        optimizer: False for model, config and tokenizer only.
        roomy: whether fields of the training state may have any size; otherwise the largest become
            states.
        later: whether tensors may be read when they are written, where its format can do that;
            otherwise all are loaded.
        tokenizer_files: what the tokenizer is to have beside its state.

    Raises:
        UnsupportedError: it has more fields than can be kept apart.
    """
    files = dict(tokenizer_files or {})
    if not optimizer:
        return Contents(
            model=part_of(origin, "model", later=later),
            config=origin.config,
            tokenizer_state=origin.tokenizer_state,
            tokenizer_files=files,
        )
    fields = own_fields(origin)
    states = {name: part_of(origin, name, later=later) for name in origin.states()}
    if not roomy:
        _make_room(fields, states, origin.location)
    return Contents(
        model=part_of(origin, "model", later=later),
        config=origin.config,
        tokenizer_state=origin.tokenizer_state,
        optimizer=part_of(origin, "optimizer", later=later),
        states=states,
        step=origin.step,
        training_state=fields,
        metrics_log=origin.load_metrics_log(),
        tokenizer_files=files,
    )


def part_of(origin: Checkpoint, part: str, *, later: bool) -> Any:
    """Return the model, the optimizer or a state.

    Args:
        origin: the checkpoint.
        part: ``model``, ``optimizer``, or the name of a state.
        later: whether its tensors may be read when they are asked for.
    """
    if part == "model":
        model = origin.reader.model_later() if later else None
        return origin.load_model() if model is None else model
    if part == "optimizer":
        optimizer = origin.reader.optimizer_later() if later else None
        return origin.load_optimizer() if optimizer is None else optimizer
    return origin.reader.state_later(part) if later else origin.load_state(part)


def opened(place: Storage, there: Committed | None) -> Checkpoint | None:
    """Return what a destination holds; None too where it cannot be opened."""
    with suppress(CkptstoreError):
        return None if there is None else open_state(place, there)
    return None


def own_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the fields of a training state that are neither its step nor names of files."""
    known = {"step", "optimizer_file", *(f"{name}_file" for name in checkpoint.states())}
    return {n: v for n, v in (checkpoint.training_state or {}).items() if n not in known}


def _make_room(fields: dict[str, Any], states: dict[str, Any], where: str) -> None:
    """Make states of the largest fields; nothing of them is lost by that."""
    if len(fields) > _MOST_NAMES:
        raise UnsupportedError(
            f"training_state.json of {where} holds {len(fields)} fields, and more than "
            f"{_MOST_NAMES} cannot be kept apart; put them under one name, then convert"
        )
    sizes = {name: len(dump_json({name: value})) for name, value in fields.items()}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if sum(map(sizes.__getitem__, fields)) <= _MOST_FIELDS:
            break
        # Other programs put whole configs there.
        free = name
        while free in states:
            free += "_"
        states[free] = fields.pop(name)
