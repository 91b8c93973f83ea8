"""What a state dict says about the model that it belongs to.

The weights are the truth: they were trained, and a config can be edited. So each architecture
field is read off the names and shapes, and a config that says otherwise is an error that names
both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ckptstore import CorruptionError
from gpt.config import ARCHITECTURE, GPTConfig

__all__ = ["architecture_of", "check_memory", "check_names", "config_for", "without_masks"]

_MASK = re.compile(r"(?:^|\.)sa\.heads\.\d+\.tril$")
_HEAD = re.compile(r"blocks\.(\d+)\.sa\.heads\.(\d+)\.(key|query|value)\.(weight|bias)$")
_SHOWN = 3


def without_masks(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict without the causal masks that old code stored beside the weights."""
    return {name: value for name, value in state.items() if not _MASK.search(name)}


def architecture_of(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Any]:
    """Return the architecture fields that names and shapes fix.

    Args:
        shapes: parameter name to shape, masks left out.
        where: what holds them, for the error.

    Raises:
        CorruptionError: they are not those of a GPT of this family.
    """
    for name in ("token_embedding_table.weight", "position_embedding_table.weight"):
        if len(shapes.get(name, ())) != 2:
            raise CorruptionError(
                f"{where} holds no weights of this GPT: {name!r} is "
                f"{'not a matrix' if name in shapes else 'absent'}; there are {_some(shapes)}"
            )
    heads = [match.groups() for match in map(_HEAD.match, shapes) if match]
    vocab_size, n_embd = shapes["token_embedding_table.weight"]
    return {
        "block_size": shapes["position_embedding_table.weight"][0],
        "vocab_size": vocab_size,
        "n_embd": n_embd,
        "n_head": len({head for _, head, _, _ in heads}),
        "n_layer": len({block for block, _, _, _ in heads}),
        "bias": any(kind == "bias" for _, _, _, kind in heads),
    }


def config_for(
    config: Mapping[str, Any] | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    config_name: str,
    weights_name: str,
) -> GPTConfig:
    """Return the config of a checkpoint, checked against its weights.

    Fields that the config lacks are taken from the weights, so that a config older than a field
    still loads.

    Args:
        config: what the checkpoint says; None where it says nothing.
        shapes: parameter name to shape, masks left out.
        config_name: what holds the config, for errors.
        weights_name: what holds the weights, for errors.

    Raises:
        CorruptionError: a field has a value that it cannot have, or the weights say another.
    """
    said = dict(config or {})
    held = architecture_of(shapes, weights_name)
    different = [
        f"{name} {said[name]!r}, {weights_name} holds {held[name]!r}"
        for name in ARCHITECTURE
        if name in said and said[name] != held[name]
    ]
    if different:
        raise CorruptionError(
            f"{config_name} says {'; '.join(different)}; "
            "put back what the weights hold, which is what was trained"
        )
    try:
        return GPTConfig.from_dict({**said, **{n: v for n, v in held.items() if n not in said}})
    except ValueError as error:
        raise CorruptionError(f"{config_name} cannot be used: {error}") from error


def check_names(
    state: Mapping[str, Any], expected: Mapping[str, Any], *, weights_name: str
) -> None:
    """Check that a state dict has exactly the names and shapes of a model.

    Args:
        state: parameter name to tensor.
        expected: likewise, of the model.
        weights_name: what holds the state, for the error.

    Raises:
        CorruptionError: it does not; the message names the first few differences.
    """
    faults = [f"{name!r} is absent" for name in expected if name not in state]
    faults += [f"{name!r} is not of this model" for name in state if name not in expected]
    faults += [
        f"{name!r} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CorruptionError(
            f"{weights_name} does not fit the model that its config describes: "
            f"{'; '.join(faults[:_SHOWN])}{more}"
        )


def check_memory(state: Mapping[str, Any], *, weights_name: str) -> None:
    """Check that every element of a state dict is there; one row can be expanded into any number.

    Parameters have memory of their own, so such a row would be copied as often as it claims.

    Args:
        state: parameter name to tensor.
        weights_name: what holds the state, for the error.

    Raises:
        CorruptionError: a tensor is larger than what it looks into; the message names it.
    """
    for name, value in state.items():
        there = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > there:
            raise CorruptionError(
                f"{weights_name} has {name!r} of shape {tuple(value.shape)}, of which only {there} "
                "bytes are there; nobody trained these weights, take a good copy"
            )


def _some(names: Mapping[str, Any]) -> str:
    listed = ", ".join(map(repr, list(names)[:_SHOWN])) or "no tensors"
    return f"{listed} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else listed
