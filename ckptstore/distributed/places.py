"""Which part of a state dict is the model, which the optimizer, and what each process's files hold.

torch.distributed.checkpoint flattens a state dict, and knows the path to each value. Rule 1: the
model is the one part that is called so, at the top or inside a single part (``{"app": {"model":
...}}``); where there is none, the tensors that stand under no part are it. Rule 2: of several
answers none is taken, and all are states. Rule 3: where a part was is kept, so that a later load by
torch.distributed.checkpoint finds all under its own names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore.formats.shards import MODEL, OPTIMIZER

__all__ = ["OTHER", "Place", "Places", "found_places"]

OTHER = "other"
_MODELS = ("model", "model_state_dict", "state_dict")
_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optim", "optim_state_dict")
_EXTRA = "_extra_state"  # What a module adds to its own state dict, which may be no tensor.

Path = tuple["str | int", ...]


@dataclass(frozen=True)
class Place:
    """Where a value belongs.

    Attributes:
        part: ``model``, ``optimizer``, or the name of a state.
        at: the keys that lead to the part.
        path: from there to the value.
        stem: what its file is called, but for the process's number.
        key: under which it stands in the file.
    """

    part: str
    at: tuple[str, ...]
    path: Path
    stem: str
    key: str

    @property
    def name(self) -> str:
        """Its name within its part."""
        return ".".join(map(str, self.path))


@dataclass(frozen=True)
class Places:
    """Where the model and the optimizer are in a state dict; None where there is none.

    Attributes:
        model: the keys that lead there; none where it is the state dict itself.
        optimizer: the keys that lead there.
    """

    model: tuple[str, ...] | None
    optimizer: tuple[str, ...] | None

    def of(self, path: Path, *, is_tensor: bool) -> Place:
        """Return where a value of a state dict belongs."""
        if self._is_bare(path, is_tensor) or _below(path, self.model):
            rest = path[len(self.model or ()) :]
            return Place(MODEL, self.model or (), rest, MODEL, _joined(rest))
        if _below(path, self.optimizer):
            rest = path[len(self.optimizer or ()) :]
            return Place(OPTIMIZER, self.optimizer or (), rest, OPTIMIZER, _joined(rest))
        depth = self._depth(path)
        at = tuple(map(str, path[:depth]))
        name = at[-1]
        if name in (MODEL, OPTIMIZER) or depth > 1:
            name = _joined(at)
        if name in (MODEL, OPTIMIZER):
            name += "_"
        return Place(name, at, path[depth:], OTHER, _joined(path))

    def _is_bare(self, path: Path, is_tensor: bool) -> bool:
        alone = self.model == () and len(path) == 1
        return alone and (is_tensor or str(path[0]).endswith(_EXTRA))

    def _depth(self, path: Path) -> int:
        """Return how many keys lead to a state: two where the model is inside a part, beside it."""
        inner = self.model is not None and len(self.model) == 2 and path[0] == self.model[0]
        return 2 if inner and len(path) > 1 and isinstance(path[1], str) else 1

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps([self.model, self.optimizer])

    @classmethod
    def from_text(cls, text: str) -> Places:
        """Return what `to_text` said."""
        model, optimizer = json.loads(text)
        return cls(
            None if model is None else tuple(model), None if optimizer is None else tuple(optimizer)
        )


def found_places(paths: Mapping[str, Path], tensors: Iterable[str]) -> Places:
    """Return where the model and the optimizer are.

    Args:
        paths: to every value, by its flat name.
        tensors: the flat names of those that are tensors.
    """
    groups = _groups(paths.values(), ())
    top = [name for name in _MODELS if name in groups]
    if top:
        return Places((top[0],), _optimizer(groups, ()))
    inside = [
        (key, name)
        for key in sorted(groups)
        for name in _MODELS
        if name in _groups(paths.values(), (key,))
    ]
    if len({key for key, _ in inside}) == 1:
        at = inside[0]
        return Places(
            at, _optimizer(_groups(paths.values(), at[:1]), at[:1]) or _optimizer(groups, ())
        )
    bare = any(len(paths[name]) == 1 for name in tensors)
    return Places(() if bare else None, _optimizer(groups, ()))


def _groups(paths: Iterable[Path], at: tuple[str, ...]) -> set[str]:
    """Return the keys below a place that lead to something themselves."""
    depth = len(at)
    found: set[str] = set()
    for path in paths:
        key: Any = path[depth] if len(path) > depth + 1 and path[:depth] == at else None
        if isinstance(key, str):
            found.add(key)
    return found


def _optimizer(groups: set[str], at: tuple[str, ...]) -> tuple[str, ...] | None:
    found = [name for name in _OPTIMIZERS if name in groups]
    return (*at, found[0]) if len(found) == 1 else None


def _below(path: Path, at: tuple[str, ...] | None) -> bool:
    return bool(at) and len(path) > len(at or ()) and path[: len(at or ())] == at


def _joined(path: Path) -> str:
    return ".".join(map(str, path))
