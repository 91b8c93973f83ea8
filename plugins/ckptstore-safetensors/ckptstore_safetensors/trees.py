"""Nested states, such as an optimizer's, as flat tensors and a JSON text that puts them together.

JSON has null, true, numbers, text, lists and objects whose keys are text; these stand for
themselves. Everything else is an object with the one key ``$`` and what it is:
``{"$": ["tensor", "state.0.exp_avg"]}``, ``{"$": ["tuple", [0.9, 0.999]]}``,
``{"$": ["dict", [[0, ...], [1, ...]]]}`` for a dict whose keys are not all text. What is read
back is equal, types of keys and of containers included; nothing is executed on the way (G5).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from ckptstore import CorruptionError, UnsupportedError
from ckptstore.later import Later
from ckptstore.texts import parse_json

__all__ = ["flattened", "planted"]

_MARK = "$"
_PLAIN = (type(None), bool, int, str)


def flattened(root: Any, what: str) -> tuple[str, dict[str, Any]]:
    """Return the text for a nested state, and its tensors by name.

    A tensor's name is that of the keys that lead to it, joined by dots, as `ckptstore` calls those
    in a `.pt`: ``state.0.exp_avg``.

    Args:
        root: containers, plain values and tensors.
        what: what to call it in errors, such as ``the optimizer``.

    Raises:
        UnsafeError: it holds more than that.
        UnsupportedError: a value has no place in the format.
    """
    from ckptstore import ptfile, tensors

    tensors.checked(root, what)
    flat = _Flat(what, wrapped=ptfile.unwrapped(root) is not root)
    # What is put into a text of the header is ASCII, whatever it says.
    text = json.dumps({"tree": flat.of(root, ())}, separators=(",", ":"))
    try:
        parse_json(text, what)
    except CorruptionError as error:
        raise UnsupportedError(
            f"{what} is nested too deep to be put together again: {error}; save it flat, or in the "
            "format 'bundle'"
        ) from error
    return text, flat.tensors


def planted(text: str, tensor_of: Callable[[str], Any], where: str) -> Any:
    """Return the nested state of a text.

    Args:
        text: what `flattened` returned.
        tensor_of: returns a tensor by name; raises KeyError for one that is not there.
        where: what to call the text in errors.

    Raises:
        CorruptionError: it is no such text.
    """
    said = parse_json(text, where)
    try:
        return _Planted(tensor_of).of(said["tree"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CorruptionError(
            f"{where} is damaged: {type(error).__name__} {error}; restore it from a good copy"
        ) from error


class _Flat:
    """Collects the tensors of a state.

    Args:
        what: what to call it in errors.
        wrapped: whether the names leave out the key ``state_dict``, in which all of it is.
    """

    def __init__(self, what: str, *, wrapped: bool) -> None:
        self.tensors: dict[str, Any] = {}
        self._what = what
        self._wrapped = wrapped

    def of(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Return a value as JSON has it."""
        import torch

        kind = type(value)
        if kind in _PLAIN or (kind is float and math.isfinite(value)):
            return value
        if isinstance(value, (torch.Tensor, Later)):
            return {_MARK: ["tensor", self._named(value, path)]}
        if kind is list:
            return self._items(value, path)
        if kind in (dict, OrderedDict, Counter):
            return self._mapping(value, path)
        if kind in (tuple, torch.Size):
            return {_MARK: ["size" if kind is torch.Size else "tuple", self._items(value, path)]}
        if kind is set:
            items = sorted(value, key=repr)  # Equal sets are equal bytes.
            return {_MARK: ["set", self._items(items, path)]}
        return {_MARK: self._leaf(value, path)}

    def _items(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        return [self.of(value, (*path, index)) for index, value in enumerate(values)]

    def _mapping(self, value: Mapping[Any, Any], path: tuple[Any, ...]) -> Any:
        kind = type(value).__name__
        if kind == "dict" and _MARK not in value and all(type(key) is str for key in value):
            return {key: self.of(inner, (*path, key)) for key, inner in value.items()}
        pairs = [[self.of(k, (*path, k)), self.of(v, (*path, k))] for k, v in value.items()]
        return {_MARK: [kind, pairs]}

    def _leaf(self, value: Any, path: tuple[Any, ...]) -> list[Any]:
        import torch

        kind = type(value)
        if kind is float:
            return ["float", repr(value)]
        if kind is complex:
            return ["complex", [repr(value.real), repr(value.imag)]]
        if kind in (bytes, bytearray):
            return [kind.__name__, base64.b64encode(value).decode()]
        if kind is torch.dtype:
            return ["dtype", str(value).removeprefix("torch.")]
        if kind is torch.device:
            return ["device", str(value)]
        at = f" at {'.'.join(map(str, path))!r}" if path else ""
        raise UnsupportedError(
            f"{self._what} holds a {kind.__module__}.{kind.__qualname__}{at}, which has no place "
            "in safetensors; leave it out, or save in the format 'bundle'"
        )

    def _named(self, tensor: Any, path: tuple[Any, ...]) -> str:
        inner = self._wrapped and path[0] == "state_dict"
        name = ".".join(map(str, path[1:] if inner else path))
        if name in self.tensors:
            name = "".join(f"[{key!r}]" for key in path)
        if name in self.tensors:
            raise UnsupportedError(
                f"{self._what} has two tensors that are called {name!r}; rename one of their keys"
            )
        self.tensors[name] = tensor
        return name


class _Planted:
    """Puts a state together again."""

    def __init__(self, tensor_of: Callable[[str], Any]) -> None:
        self._kinds: Mapping[str, Callable[[Any], Any]] = {
            "tensor": tensor_of,
            "tuple": lambda items: tuple(self._items(items)),
            "size": self._size,
            "set": lambda items: set(self._items(items)),
            "dict": lambda pairs: dict(self._pairs(pairs)),
            "OrderedDict": lambda pairs: OrderedDict(self._pairs(pairs)),
            "Counter": lambda pairs: Counter(dict(self._pairs(pairs))),
            "float": float,
            "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
            "bytes": _bytes,
            "bytearray": lambda text: bytearray(_bytes(text)),
            "dtype": _dtype,
            "device": _device,
        }

    def of(self, value: Any) -> Any:
        """Return what a JSON value stands for."""
        if isinstance(value, list):
            return self._items(value)
        if not isinstance(value, dict):
            return value
        if _MARK not in value:
            return {key: self.of(inner) for key, inner in value.items()}
        (kind, held) = value[_MARK]
        return self._kinds[kind](held)

    def _items(self, values: list[Any]) -> list[Any]:
        return [self.of(value) for value in values]

    def _pairs(self, pairs: list[Any]) -> list[tuple[Any, Any]]:
        return [(self.of(key), self.of(value)) for key, value in pairs]

    def _size(self, items: list[Any]) -> Any:
        import torch

        return torch.Size(self._items(items))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _dtype(name: str) -> Any:
    import torch

    # By what torch has already: to ask it for a name can make it import something.
    known = {str(found): found for found in vars(torch).values() if isinstance(found, torch.dtype)}
    return known[f"torch.{name}"]


def _device(name: str) -> Any:
    import torch

    return torch.device(name)
