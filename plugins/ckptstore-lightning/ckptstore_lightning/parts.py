"""A checkpoint of Lightning as the parts of a bundle, and back.

    state_dict           model.pt
    optimizer_states     optimizer.pt; of several optimizers optimizer_0.pt, optimizer_1.pt, …
    hyper_parameters     config.json, the fields that JSON can hold
    callbacks, loops, …  a file each, as far as training_state.json has room for their names
    all the rest         lightning.pt, with the order of everything and with where the parts belong
    global_step, epoch, pytorch-lightning_version      also in training_state.json, to be read

What has a file of its own is in that file alone, so that there is nothing to disagree. What comes
back is what went in: the same keys in the same order, and values of the same types.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptstore import CorruptionError, UnsupportedError
from ckptstore_lightning.hyper import HPARAMS, as_edited, config_of, with_config
from ckptstore_lightning.kept import Mark, put, restored, stand_in

if TYPE_CHECKING:
    from ckptstore import Checkpoint

__all__ = ["REST", "Parts", "joined", "parted"]

REST = "lightning"
VERSION = 1

_OPTIMIZERS = "optimizer_states"
_METRICS = "callback_metrics"
# Their values are looked at together, and are small.
_INSIDE = frozenset((HPARAMS, _METRICS, "datamodule_hyper_parameters"))
_TAKEN = frozenset(("model", "optimizer", REST, "manifest", "latest", "final", "metrics"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_ROOM = 700  # training_state.json stays under 1 KB, and a line of it names each file.
_SHOWN = ("epoch", "pytorch-lightning_version")
_MOST_SHOWN = 100
_MOST_STEPS = 10**18 - 1
_PLAIN = re.compile(r"[\w.+ -]*", re.ASCII)
_WRAPPED = re.compile(r"^module\.|(?:^|\.)_orig_mod\.")

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Parts:
    """What `ckptstore.Store.save` takes of a checkpoint."""

    model: Mapping[str, Any]
    state: dict[str, Any]
    optimizer: Mapping[str, Any] | None = None
    config: dict[str, Any] | None = None
    step: int | None = None
    training_state: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def parted(checkpoint: Mapping[str, Any], path: str) -> Parts:
    """Part a checkpoint of Lightning, or any dict that Fabric saves; what is given stays as it is.

    Args:
        checkpoint: as a strategy passes it to its `CheckpointIO`.
        path: where it goes; callbacks know by it which score is its own.

    Raises:
        UnsafeError: something in it could only be read back by running code.
    """
    marks: list[Mark] = []
    plain = type(checkpoint) in (dict, OrderedDict)
    tree = stand_in(checkpoint if plain else dict(checkpoint), (), marks)
    places = dict(_places(tree))
    found = {name: _at(tree, place) for name, place in places.items()}
    model = found.pop("model", {})
    optimizer = found.pop("optimizer", None)
    config, config_marks = config_of(tree)
    for place in places.values():
        tree = put(tree, place, None)
    rest = {
        "version": VERSION,
        "checkpoint": tree,
        "places": [(place, name) for name, place in places.items()],
        "config": None if config is None else list(config),
        "marks": [*config_marks, *marks],
        "model": _form(model),
    }
    return Parts(
        model=model,
        optimizer=optimizer,
        state={**found, REST: rest},
        config=config,
        step=_step(checkpoint),
        training_state=_shown(checkpoint),
        metrics=_metrics(checkpoint, path),
    )


def joined(
    checkpoint: Checkpoint, map_location: Any = "cpu", *, optimizers: bool = True
) -> dict[str, Any]:
    """Return the checkpoint of Lightning that was parted.

    Args:
        checkpoint: has the state `REST`.
        map_location: where tensors go, as `torch.load` has it.
        optimizers: whether those are read, too; their key is left out otherwise.

    Raises:
        CorruptionError, UnsafeError, SupersededError: as `Checkpoint.load_model` does.
        NotFoundError: a file of it is absent.
        UnsupportedError: a newer release wrote it.
    """
    where = f"{REST}.pt in {checkpoint.location}"
    rest = checkpoint.load_state(REST, map_location)
    try:
        if rest["version"] > VERSION:
            raise UnsupportedError(
                f"{where} has version {rest['version']}, this ckptstore-lightning reads up to "
                f"{VERSION}; install a newer one"
            )
        tree, marks = rest["checkpoint"], rest["marks"]
        if rest["config"] is not None:
            tree[HPARAMS] = with_config(tree[HPARAMS], rest["config"], checkpoint.config or {})
        names = {name for _, name in rest["places"]}
        if len(names) < len(rest["places"]):
            raise ValueError("a part that belongs to two places")
        for place, name in rest["places"]:
            if not optimizers and name.startswith("optimizer"):
                tree = {key: value for key, value in tree.items() if key != place[0]}
                marks = [mark for mark in marks if mark[0][:1] != place[:1]]
                continue
            part = _loaded(checkpoint, name, map_location, rest["model"])
            tree = put(tree, place, part)
        if "config.json" in checkpoint.edited:
            tree, marks = as_edited(tree, marks)
        found: dict[str, Any] = restored(tree, marks)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CorruptionError(
            f"{where} is no checkpoint of Lightning: {type(error).__name__} {error}; "
            "restore it from a good copy"
        ) from error
    return found


# -- what goes where ------------------------------------------------------------------------


def _places(tree: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the parts that get a file of their own, and the keys that lead to each."""
    model = _place_of_model(tree)
    if model is not None:
        yield "model", model
    if model == ():
        return
    room = _ROOM
    for name, place in (*_places_of_optimizers(tree), *_places_of_states(tree, model)):
        room -= len(f'  "{name}_file": "{name}.pt",\n')
        if room >= 0 or name == "optimizer":
            yield name, place


def _place_of_model(tree: dict[str, Any]) -> Path | None:
    """Return where the weights are: Lightning's key, Fabric's usual one, or anywhere."""
    if type(tree.get("state_dict")) in (dict, OrderedDict):
        return ("state_dict",)
    if _is_weights(tree):
        return ()
    return next(
        (key for key in (("model",), *((k,) for k in tree)) if _is_weights(tree.get(key[0]))), None
    )


def _is_weights(value: Any) -> bool:
    import torch

    return (
        type(value) in (dict, OrderedDict)
        and bool(value)
        and all(isinstance(key, str) for key in value)
        and all(isinstance(item, torch.Tensor) for item in value.values())
    )


def _places_of_optimizers(tree: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    states = tree.get(_OPTIMIZERS)
    if type(states) is list and all(type(state) is dict for state in states):
        for at in range(len(states)):
            yield "optimizer" if len(states) == 1 else f"optimizer_{at}", (_OPTIMIZERS, at)
        return
    found = [key for key, value in tree.items() if _is_optimizer(value)]
    if len(found) == 1:
        yield "optimizer", (found[0],)


def _is_optimizer(value: Any) -> bool:
    return type(value) is dict and value.keys() >= {"state", "param_groups"}


def _places_of_states(tree: dict[str, Any], model: Path | None) -> Iterator[tuple[str, Path]]:
    taken = set(_TAKEN)
    for key, value in tree.items():
        if key in _INSIDE or (key,) == model or not isinstance(value, (dict, list, tuple)):
            continue
        alone = isinstance(key, str) and _NAME.fullmatch(key) and not key.startswith("optimizer")
        if value and alone and key.lower() not in taken:
            taken.add(key.lower())
            yield key, (key,)


def _loaded(checkpoint: Checkpoint, name: str, map_location: Any, form: Mapping[str, Any]) -> Any:
    if name == "model":
        return _formed(checkpoint.load_model(map_location=map_location), form)
    if name == "optimizer":
        return checkpoint.load_optimizer(map_location)
    return checkpoint.load_state(name, map_location)


# -- the model ------------------------------------------------------------------------------


def _form(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Checkpoint.load_model` does not give back: names that it repairs, the type."""
    wrapped = any(isinstance(name, str) and _WRAPPED.search(name) for name in model)
    versions = getattr(model, "_metadata", None)
    return {
        "ordered": type(model) is OrderedDict,
        "names": list(model) if wrapped else None,
        "metadata": dict(versions) if wrapped and versions is not None else None,
    }


def _formed(model: dict[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    if not form["ordered"]:
        model = dict(model)
    if form["names"] is None:
        return model
    named = type(model)(zip(form["names"], model.values(), strict=True))
    if form["metadata"] is not None:
        named._metadata = OrderedDict(form["metadata"])  # type: ignore[attr-defined]
    return named


# -- what is known of it --------------------------------------------------------------------


def _step(checkpoint: Mapping[str, Any]) -> int | None:
    step = checkpoint.get("global_step", checkpoint.get("step"))
    return step if type(step) is int and 0 <= step <= _MOST_STEPS else None


def _shown(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: checkpoint[name] for name in _SHOWN if name in checkpoint}
    return {
        name: value
        for name, value in fields.items()
        if (type(value) is int and abs(value) <= _MOST_STEPS)
        or (type(value) is str and len(value) <= _MOST_SHOWN and _PLAIN.fullmatch(value))
    }


def _metrics(checkpoint: Mapping[str, Any], path: str) -> dict[str, float]:
    """Return what was measured of this state: what a callback recorded, and its score."""
    scores: dict[str, Any] = {}
    recorded = checkpoint.get(_METRICS)
    if isinstance(recorded, Mapping):
        scores.update(recorded)
    callbacks = checkpoint.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        best = state.get("best_k_models") if isinstance(state, Mapping) else None
        if isinstance(best, Mapping) and path in best:
            scores[state.get("monitor")] = best[path]
    return {
        name: number
        for name, score in scores.items()
        if (number := _number(name, score)) is not None
    }


def _number(name: Any, score: Any) -> float | None:
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if isinstance(name, str) and math.isfinite(number) else None


# -- trees ----------------------------------------------------------------------------------


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree
