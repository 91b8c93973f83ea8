"""A nested state dict taken apart by the paths to its tensors, and put together again.

Rule 1: what was taken apart here comes back exactly as it was: its frame, with None in the place of
each tensor, is a value of its own. Rule 2: of what torch.distributed.checkpoint took apart there is
no frame, and the paths say all: whole numbers are places in lists, text is a key of a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckptstore.errors import CorruptionError

__all__ = ["framed", "nested", "whole_keys"]

_MOST_GAPS = 10_000
_MOST_DEPTH = 60

Path = tuple["str | int", ...]


def framed(value: Any, is_apart: Callable[[Any, Path], bool]) -> tuple[Any, dict[Path, Any]]:
    """Return a value with None in the place of all that is taken out of it, and that by its path.

    Args:
        value: containers and what is in them.
        is_apart: whether something is taken out, called with it and its path; paths have text and
            whole numbers only, what has another one stays where it is.
    """
    found: dict[Path, Any] = {}

    def walk(one: Any, path: Path) -> Any:
        if is_apart(one, path):
            found[path] = one
            return None
        if len(path) == _MOST_DEPTH:
            return one
        if isinstance(one, dict):
            pairs = {
                key: walk(inner, (*path, key)) if type(key) in (str, int) else inner
                for key, inner in one.items()
            }
            return pairs if type(one) is dict else type(one)(pairs)
        if type(one) in (list, tuple):
            return type(one)(walk(inner, (*path, at)) for at, inner in enumerate(one))
        return one

    return walk(value, ()), found


def nested(values: Mapping[Path, Any], where: str) -> Any:
    """Return values by their paths as the dicts and lists that they were taken out of.

    Args:
        values: by path; one at the empty path is the frame that the others belong into.
        where: what to call their source in errors.

    Raises:
        CorruptionError: the paths contradict each other.
    """
    if () in values:
        frame, others = values[()], {path: one for path, one in values.items() if path}
        return _filled(frame, _tree(others, where), (), where) if others else frame
    return _made(_tree(values, where), where, [_MOST_GAPS])


class _Leaf:
    def __init__(self, value: Any) -> None:
        self.value = value


def _tree(values: Mapping[Path, Any], where: str) -> dict[Any, Any]:
    root: dict[Any, Any] = {}
    for path, value in values.items():
        node: Any = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
            if isinstance(node, _Leaf):
                raise _contradicts(path, where)
        if path[-1] in node:
            raise _contradicts(path, where)
        node[path[-1]] = _Leaf(value)
    return root


def _made(node: Any, where: str, gaps: list[int]) -> Any:
    """Return what a tree of paths stands for; an element of a list that is not there is None."""
    if isinstance(node, _Leaf):
        return node.value
    items = {key: _made(inner, where, gaps) for key, inner in node.items()}
    numbers = [key for key in items if isinstance(key, int)]
    if not numbers:
        return items
    if len(numbers) < len(items):
        raise CorruptionError(f"{where} is damaged: it has a list with names in it")
    gaps[0] -= max(numbers) + 1 - len(numbers)
    if gaps[0] < 0:
        raise CorruptionError(f"{where} is damaged: its lists have more gaps than elements")
    return [items.get(number) for number in range(max(numbers) + 1)]


def _filled(frame: Any, node: Any, path: Path, where: str) -> Any:
    """Return a frame with what belongs into it in the place of None."""
    if isinstance(node, _Leaf):
        if frame is not None:
            raise _contradicts(path, where)
        return node.value
    if isinstance(frame, dict):
        for key, inner in node.items():
            if key not in frame:
                raise _contradicts((*path, key), where)
            frame[key] = _filled(frame[key], inner, (*path, key), where)
        return frame
    if isinstance(frame, (list, tuple)):
        items = list(frame)
        for key, inner in node.items():
            if type(key) is not int or not 0 <= key < len(items):
                raise _contradicts((*path, key), where)
            items[key] = _filled(items[key], inner, (*path, key), where)
        return items if isinstance(frame, list) else tuple(items)
    raise _contradicts(path, where)


def whole_keys(optimizer: Any) -> Any:
    """Give an optimizer's state its whole numbers back, of which DCP makes text.

    Args:
        optimizer: as it was put together. Where its groups name parameters by numbers, as
            `torch.optim.Optimizer.state_dict` does, its state's keys become numbers again; names
            stay names.
    """
    groups = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(groups, list) or not isinstance(state, dict):
        return optimizer
    lists = [group.get("params") for group in groups if isinstance(group, dict)]
    numbers = {
        str(number): number
        for params in lists
        if isinstance(params, list)
        for number in params
        if type(number) is int
    }
    if state and all(key in numbers for key in state):
        optimizer["state"] = {numbers[key]: value for key, value in state.items()}
    return optimizer


def _contradicts(path: Path, where: str) -> CorruptionError:
    shown = ".".join(map(str, path))[:200]
    return CorruptionError(
        f"{where} is damaged: what stands at {shown!r} is one value and several at once; restore "
        "it from a good copy"
    )
