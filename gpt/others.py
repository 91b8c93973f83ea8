"""What a checkpoint holds for others: carried from load to save, so that no resume loses it.

1. A further state is carried under its name, all but the random states, which `gpt.fit` saves anew.
2. A field of training_state.json that has no room there, for a bundle keeps that file under 1 KB,
   becomes a state of the same name: other writers put whole configs there.
3. Where a name is taken, or no file can have it, it gets an underscore; nothing replaces anything.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ckptstore import Checkpoint, NotFoundError

__all__ = ["load_metrics_log", "load_states", "other_fields", "parted", "rows_until"]

_MOST_BYTES = 1023
_OUR_FILES = ("model.pt", "optimizer.pt")
_NO_NAMES = ("model", "optimizer", "manifest", "latest", "final")  # files that are something else
_REST = "training_state"


def load_states(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the further states of a checkpoint by name; absent files are left out, and said."""
    states = {}
    for name in _states(checkpoint):
        try:
            states[name] = checkpoint.load_state(name)
        except NotFoundError as error:
            warnings.warn(f"going on without the state {name!r}: {error}", stacklevel=3)
    return states


def load_metrics_log(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl; an absent file has none, which is said."""
    try:
        return list(checkpoint.load_metrics_log())
    except NotFoundError as error:
        warnings.warn(f"going on without what was measured before: {error}", stacklevel=3)
        return []


def rows_until(rows: Iterable[dict[str, Any]], step: int | None) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl that are not of a later step."""
    if step is None:
        return list(rows)
    return [row for row in rows if not _is_later(row.get("step"), step)]


def _is_later(of: object, step: int) -> bool:
    return isinstance(of, (int, float)) and of > step


def other_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the fields of the training state that are neither the step nor a state's file."""
    ours = {"step", "optimizer_file", *(f"{name}_file" for name in _states(checkpoint))}
    fields = checkpoint.training_state or {}
    return {name: value for name, value in fields.items() if name not in ours}


def parted(
    fields: Mapping[str, Any],
    states: Mapping[str, Any],
    *,
    step: int | None,
    has_optimizer: bool,
    own: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields that training_state.json has room for, and states with all the others.

    Args:
        fields: of training_state.json, beside the step and the names of files.
        states: by name.
        step: what will be saved as the step.
        has_optimizer: whether an optimizer will be saved.
        own: the names of states that will be saved beside these.
    """
    fields = dict(fields)
    found: dict[str, Any] = {}

    def add(name: str, state: Any) -> None:
        found[_free(name, {*own, *found}, fields)] = state

    def too_long() -> bool:
        written = {"step": step, **({"optimizer_file": _OUR_FILES[1]} if has_optimizer else {})}
        names = {f"{name}_file": f"{name}.pt" for name in (*own, *found)}
        return _bytes({**written, **names, **fields}) > _MOST_BYTES

    for name, state in states.items():
        add(name, state)
    while fields and too_long():
        gains = {
            name: _bytes({name: value}) - _bytes({f"{name}_file": f"{name}.pt"})
            for name, value in fields.items()
        }
        largest = max(gains, key=gains.__getitem__)
        if gains[largest] > 0:
            add(largest, fields.pop(largest))
            _say_moved(repr(largest))
        else:  # very many small ones, which only together are shorter as a state
            rest, fields = fields, {}
            add(_REST, rest)
            _say_moved(f"what else it held ({len(rest)} fields)")
    return fields, found


def _states(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the states; ``"config_file": "config.json"`` names none."""
    fields = checkpoint.training_state or {}
    files = {name: fields.get(f"{name}_file") for name in checkpoint.states()}
    return [
        name
        for name, file in files.items()
        if not isinstance(file, str) or (file.endswith(".pt") and file not in _OUR_FILES)
    ]


def _free(name: str, taken: Collection[str], fields: Mapping[str, Any]) -> str:
    """Return a name that a state can have, the given one where that is possible."""
    free = re.sub(r'[/\\:"\x00-\x1f]', "_", name).lstrip(". ") or "state"
    # A file system may take upper and lower case for the same.
    lower = {each.lower() for each in (*_NO_NAMES, *taken)}
    while free.lower() in lower or f"{free}_file" in fields:
        free += "_"
    return free


def _bytes(value: Any) -> int:
    # What is no JSON is refused when it is saved, by a message that says so.
    return len(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode()) + 1


def _say_moved(what: str) -> None:
    warnings.warn(
        f"training_state.json stays under 1 KB and has no room for {what}, "
        "saved as a state of its own instead",
        stacklevel=5,
    )
