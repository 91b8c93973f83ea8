"""Between a model and its checkpoints, in both directions, through ckptstore."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ckptstore
from ckptstore import Checkpoint, NotFoundError, UnsupportedError
from gpt.config import usable_device
from gpt.vocabulary import Vocabulary
from gpt.weights import check_names, config_for, without_masks

if TYPE_CHECKING:
    from torch import Tensor

    from gpt.model import GPT

__all__ = [
    "load",
    "load_legacy",
    "load_model",
    "load_states",
    "other_fields",
    "save_bundle",
    "save_weights",
]

Location = str | os.PathLike[str]
Loaded = tuple["GPT", "dict[str, Any] | None", "int | None", "dict[str, Any] | None"]
_ALIGNMENT = 64
_ROOM = 800  # bytes of 1,024; the rest is for step and file names


def load_model(
    kind: type[GPT],
    checkpoint: Checkpoint,
    *,
    map_location: Any = None,
    changes: Mapping[str, Any] | None = None,
) -> GPT:
    """Return the model of an opened checkpoint; its vocabulary is made when it is needed.

    Args:
        kind: the class to make.
        checkpoint: any format.
        map_location: where to put it; None is the config's device, or the CPU with a warning.
        changes: config fields that are not part of the architecture, to be used instead.

    Raises:
        CorruptionError: config and weights do not belong together; the message says where.
    """
    import torch

    names = _names(checkpoint)
    shapes = {name: info.shape for name, info in without_masks(checkpoint.tensors()).items()}
    config = config_for(checkpoint.config, shapes, **names).with_values(**(changes or {}))
    device = usable_device(config.device) if map_location is None else map_location
    with torch.device("meta"):  # names and shapes only: the values come from the checkpoint
        model = kind(config)
    state = without_masks(checkpoint.load_model(map_location=device))
    check_names(state, model.state_dict(), weights_name=names["weights_name"])
    model.load_state_dict(_owned(state), assign=True)
    model.vocabulary = Vocabulary(
        config.vocab_size, checkpoint.tokenizer_state, checkpoint.load_tokenizer
    )
    model.training_state = other_fields(checkpoint)
    return model


def load(kind: type[GPT], location: Location, map_location: Any = None) -> Loaded:
    """Return model, tokenizer state, step and optimizer state; see `GPT.load`."""
    return _load(kind, ckptstore.open(location), map_location)


def load_legacy(kind: type[GPT], path: Location, map_location: Any = None) -> Loaded:
    """Return what `load` returns, of a legacy file; see `GPT.load_legacy`."""
    checkpoint = ckptstore.open(path)
    if checkpoint.format != "legacy":
        raise UnsupportedError(
            f"{checkpoint.location} is a checkpoint of format {checkpoint.format!r}, "
            "not a legacy file; use GPT.load"
        )
    return _load(kind, checkpoint, map_location)


def load_states(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the further states of a checkpoint by name; absent files are left out, and said."""
    states = {}
    for name in checkpoint.states():
        try:
            states[name] = checkpoint.load_state(name)
        except NotFoundError as error:
            warnings.warn(f"going on without the state {name!r}: {error}", stacklevel=3)
    return states


def other_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the fields of the training state that are neither the step nor a file's name."""
    ours = {"step", "optimizer_file", *(f"{name}_file" for name in checkpoint.states())}
    fields = checkpoint.training_state or {}
    return {name: value for name, value in fields.items() if name not in ours}


def save_weights(model: GPT, location: Location) -> None:
    """Save new weights, and carry over whatever else is at the location; see `GPT.save`."""
    try:
        there = ckptstore.open(location)
    except NotFoundError:
        ckptstore.save(location, model=model)
        return
    ckptstore.save(
        location,
        model=model,
        config=there.config,
        tokenizer=there.tokenizer_state,
        optimizer=_optimizer_if_there(there),
        step=there.step,
        state=load_states(there) or None,
        training_state=_fitting(other_fields(there)),
    )


def save_bundle(
    model: GPT,
    location: Location,
    *,
    step: int | None = None,
    optimizer: Any = None,
    states: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Save the whole checkpoint.

    Args:
        model: with its config and its tokenizer.
        location: any.
        step: finished optimizer steps.
        optimizer: the optimizer or its state dict.
        states: further states by name.
        metrics: what was measured.
    """
    model.training_state = _fitting(model.training_state)
    ckptstore.save(
        location,
        model=model,
        config=model.config.to_dict(),
        tokenizer=model.vocabulary.known,
        optimizer=optimizer,
        step=step,
        state=states,
        training_state=model.training_state,
        metrics=metrics,
    )


def _fitting(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that training_state.json has room for; what is left out is said.

    Other writers have put whole configs there, and a bundle keeps that file under 1 KB: better
    to lose a copy of their settings than to be unable to save what was trained since.
    """
    fitting = dict(fields)
    while len(json.dumps(fitting, indent=2)) > _ROOM:
        largest = max(fitting, key=lambda name: len(json.dumps(fitting[name], indent=2)))
        del fitting[largest]
        warnings.warn(
            f"leaving {largest!r} out of training_state.json, which is to stay under 1 KB",
            stacklevel=4,
        )
    return fitting


def _load(kind: type[GPT], checkpoint: Checkpoint, map_location: Any) -> Loaded:
    from gpt.fit import Pending

    model = load_model(kind, checkpoint, map_location=map_location)
    model.pending = Pending.of(checkpoint)
    optimizer = _optimizer_if_there(checkpoint)
    return model, checkpoint.tokenizer_state, checkpoint.step, optimizer


def _optimizer_if_there(checkpoint: Checkpoint) -> dict[str, Any] | None:
    try:
        return checkpoint.load_optimizer()
    except NotFoundError as error:
        warnings.warn(f"going on without the optimizer: {error}", stacklevel=4)
        return None


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what holds config and weights, for errors."""
    if checkpoint.format == "bundle":
        return {
            "config_name": f"{checkpoint.location}: config.json",
            "weights_name": "model.pt",
        }
    return {"config_name": f"{checkpoint.location}: its config", "weights_name": "its state dict"}


def _owned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as parameters of a model can be: float32, each with memory of its own.

    Two parameters that share memory would be trained twice a step; and where memory is not
    aligned like any other parameter's, a library may round differently, and a resumed run would
    no longer be exact (G8).
    """
    import torch

    seen: set[int] = set()
    owned = {}
    for name, tensor in state.items():
        value = tensor.to(torch.float32)
        address = value.untyped_storage().data_ptr()
        if address in seen or value.data_ptr() % _ALIGNMENT or not value.is_contiguous():
            value = value.clone(memory_format=torch.contiguous_format)
        seen.add(address)
        owned[name] = value
    return owned
