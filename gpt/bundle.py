"""Between a model and its checkpoints, in both directions, through ckptstore."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ckptstore
from ckptstore import (
    Checkpoint,
    CorruptionError,
    NotFoundError,
    Store,
    UnsupportedError,
    plugins,
)
from gpt.config import usable_device
from gpt.others import load_metrics_log, load_states, other_fields, parted, rows_until
from gpt.vocabulary import Vocabulary
from gpt.weights import check_memory, check_names, config_for, without_masks

if TYPE_CHECKING:
    from torch import Tensor

    from ckptstore.tokenizers.base import Tokenizer
    from gpt.model import GPT

__all__ = [
    "carry",
    "contradiction",
    "load",
    "load_legacy",
    "load_model",
    "save_bundle",
    "save_weights",
]

Location = str | os.PathLike[str]
Loaded = tuple["GPT", "dict[str, Any] | None", "int | None", "dict[str, Any] | None"]
_ALIGNMENT = 64


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
    said = f"{checkpoint.location}: {names['config_name']}"
    weights_name = names["weights_name"]
    config = config_for(
        checkpoint.config, _shapes(checkpoint), config_name=said, weights_name=weights_name
    ).with_values(**(changes or {}))
    device = usable_device(config.device) if map_location is None else map_location
    with torch.device("meta"):  # names and shapes only: the values come from the checkpoint
        model = kind(config)
    state = without_masks(checkpoint.load_model(map_location=device))
    check_names(state, model.state_dict(), weights_name=weights_name)
    check_memory(state, weights_name=weights_name)
    model.load_state_dict(_owned(state), assign=True)
    model.vocabulary = _vocabulary(config.vocab_size, checkpoint)
    model.training_state = other_fields(checkpoint)
    return model


def contradiction(checkpoint: Checkpoint) -> str | None:
    """Return in what config and weights do not belong together, or None; needs no torch."""
    # A device of its own, because the default asks torch.
    said = {"device": "cpu", **(checkpoint.config or {})}
    try:
        config_for(said, _shapes(checkpoint), **_names(checkpoint))
    except CorruptionError as error:
        return str(error)
    return None


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


def carry(model: GPT, checkpoint: Checkpoint) -> None:
    """Let a model carry the further states and the metrics of its checkpoint, to be written back.

    Its random states wait for `fit`, where they are of a known step.
    """
    from gpt.pending import Pending

    states = load_states(checkpoint)
    model.metrics_log = load_metrics_log(checkpoint)
    model.pending = Pending.taken_from(states, checkpoint.step)
    model.states = states


def save_weights(model: GPT, location: Location) -> None:
    """Save new weights, and carry over whatever else is at the location; see `GPT.save`."""
    try:
        there = ckptstore.open(location)
    except NotFoundError:
        ckptstore.save(location, model=model)
        return
    optimizer = _optimizer_if_there(there)
    fields, states = parted(
        other_fields(there),
        load_states(there),
        step=there.step,
        has_optimizer=optimizer is not None,
    )
    ckptstore.save(
        location,
        model=model,
        config=there.config,
        tokenizer=there.tokenizer_state,
        optimizer=optimizer,
        step=there.step,
        state=states,
        training_state=fields,
        metrics_log=load_metrics_log(there),
        vocabulary=there.tokenizer_files(),
    )


def save_bundle(
    model: GPT,
    store: Store,
    *,
    step: int | None = None,
    optimizer: Any = None,
    states: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    background: bool = False,
    overwrite: bool = False,
) -> Any:
    """Save the whole checkpoint.

    Args:
        model: with its config and its tokenizer.
        store: of any location.
        step: finished optimizer steps.
        optimizer: the optimizer or its state dict.
        states: further states by name, beside those that the model carries.
        metrics: what was measured.
        background: whether to return as soon as all was copied aside.
        overwrite: in a history, replace a step that is there with other content.

    Returns:
        The `Checkpoint`, or its future.
    """
    own = dict(states or {})
    model.training_state, model.states = parted(
        model.training_state,
        model.states,
        step=step,
        has_optimizer=optimizer is not None,
        own=own,
    )
    save = store.save_async if background else store.save
    return save(
        model=model,
        config=model.config.to_dict(),
        tokenizer=model.vocabulary.known,
        optimizer=optimizer,
        step=step,
        state={**model.states, **own},
        training_state=model.training_state,
        metrics=metrics,
        metrics_log=rows_until(model.metrics_log, step),
        vocabulary=model.vocabulary.files,
        overwrite=overwrite,
    )


def _load(kind: type[GPT], checkpoint: Checkpoint, map_location: Any) -> Loaded:
    model = load_model(kind, checkpoint, map_location=map_location)
    carry(model, checkpoint)
    optimizer = _optimizer_if_there(checkpoint)
    return model, checkpoint.tokenizer_state, checkpoint.step, optimizer


def _vocabulary(rows: int, checkpoint: Checkpoint) -> Vocabulary:
    """Return the vocabulary of a checkpoint, with what it carries: later that may be replaced."""
    state, files = checkpoint.tokenizer_state, dict(checkpoint.tokenizer_files())

    def load() -> Tokenizer:
        return plugins.load_tokenizer(state or {}, fingerprint=checkpoint.fingerprint, files=files)

    return Vocabulary(rows, state, load, files)


def _optimizer_if_there(checkpoint: Checkpoint) -> dict[str, Any] | None:
    try:
        return checkpoint.load_optimizer()
    except NotFoundError as error:
        warnings.warn(f"going on without the optimizer: {error}", stacklevel=4)
        return None


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what holds config and weights, for errors."""
    if checkpoint.format == "bundle":
        return {"config_name": "config.json", "weights_name": "model.pt"}
    return {"config_name": "its config", "weights_name": "its state dict"}


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in without_masks(checkpoint.tensors()).items()}


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
