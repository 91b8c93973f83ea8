"""Names of tensors: how nested ones are joined, and how later writers' wrappings come off.

Nothing here needs torch, and everything works on tensors and on their stubs alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from ckptstore.errors import CorruptionError, NotFoundError
from ckptstore.ptfile.stubs import TensorStub

__all__ = ["chosen", "flattened", "repaired", "repaired_names", "unwrapped"]

_COMPILED = "_orig_mod."
_PREFIXES = (_COMPILED, "module.")
_MOST_DEPTH = 100
_MOST_AGAIN = 100_000
_MOST_LETTERS = 2**26

Value = TypeVar("Value")


def unwrapped(root: Any) -> Any:
    """Return the state dict out of ``{"state_dict": ..., "model_dtype": ...}``, or ``root``."""
    if isinstance(root, Mapping) and isinstance(root.get("state_dict"), Mapping):
        return root["state_dict"]
    return root


def repaired_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name as its model has it: without what torch.compile and DDP put before it.

    ``_orig_mod.`` comes off wherever it stands between dots; ``module.`` only where every name
    begins with it, for it may be a part of the model. Where two names would become one, all stay
    as they are.
    """
    given = list(names)
    clean = [_uncompiled(name) for name in given]
    while clean and all(name.startswith("module.") for name in clean):
        clean = [name.removeprefix("module.") for name in clean]
    if len(set(clean)) != len(given):
        return dict(zip(given, given, strict=True))
    return dict(zip(given, clean, strict=True))


def repaired(state: Mapping[str, Value]) -> OrderedDict[str, Value]:
    """Return a state dict without wrapper and prefixes, in its order.

    Args:
        state: as it was loaded, or its stubs; keys that are not text stay as they are.
    """
    state = unwrapped(state)
    names = repaired_names(name for name in state if isinstance(name, str))
    result = OrderedDict((names.get(name, name), value) for name, value in state.items())
    metadata = getattr(state, "_metadata", None)
    if isinstance(metadata, Mapping):
        # Module versions, by module name: "" is the model itself.
        first = next((name for name, clean in names.items() if name != clean), "")
        prefix = _uncompiled(first).removesuffix(names.get(first, first))
        result._metadata = OrderedDict(  # type: ignore[attr-defined]
            (_module_name(name, prefix) if first else name, value)
            for name, value in metadata.items()
            if isinstance(name, str)
        )
    return result


def chosen(state: Mapping[str, Value], names: Iterable[str] | None, where: str) -> dict[str, Value]:
    """Return the entries of these names, in the order asked for; all, where None is asked for.

    Raises:
        NotFoundError: there is no entry of a name.
    """
    if names is None:
        return dict(state)
    result: dict[str, Value] = {}
    for name in names:
        if name not in state:
            near = get_close_matches(name, [key for key in state if isinstance(key, str)], n=3)
            hint = f"there are {', '.join(map(repr, near))}" if near else f"it holds {len(state)}"
            raise NotFoundError(f"no tensor {name!r} in {where}; {hint}")
        result[name] = state[name]
    return result


def flattened(root: Any, where: str) -> dict[str, TensorStub]:
    """Return the tensors anywhere in an object, by the keys that lead to them, joined by dots.

    The key of a wrapper, ``state_dict``, is left out.

    Raises:
        CorruptionError: it is nested deeper than 100, holds itself, or the same a hundred thousand
            times, or its names are longer than any memory.
    """
    found: dict[str, TensorStub] = {}
    wrapped = unwrapped(root) is not root
    left = _MOST_LETTERS
    for whole, stub in _walk(root, where):
        left -= sum(len(key) if isinstance(key, (str, bytes)) else 1 for key in whole)
        if left < 0:
            raise CorruptionError(
                f"{where} is damaged: the names of its tensors have more than {_MOST_LETTERS} "
                "letters together; restore it from a good copy"
            )
        path = whole[1:] if wrapped and whole[0] == "state_dict" else whole
        name = ".".join(map(str, path))
        if name in found:
            name = "".join(f"[{key!r}]" for key in whole)
        found[name] = stub
    return found


def _walk(root: Any, where: str) -> Iterator[tuple[tuple[Any, ...], TensorStub]]:
    # One iterator for each level, and the keys that lead there: wide data takes no more memory.
    levels: list[Iterator[tuple[Any, Any]]] = [iter([(None, root)])]
    path: list[Any] = []
    seen: set[int] = set()
    again = 0
    while levels:
        item = next(levels[-1], None)
        if item is None:
            levels.pop()
            continue
        key, value = item
        path[len(levels) - 1 :] = [key]
        if not isinstance(value, (TensorStub, Mapping, list, tuple)):
            continue
        if id(value) in seen:
            # Containers that hold one another many times would make the walk endless.
            again += 1 if isinstance(value, TensorStub) else len(value)
        seen.add(id(value))
        too_deep = len(levels) > _MOST_DEPTH and not isinstance(value, TensorStub)
        if too_deep or again > _MOST_AGAIN:
            raise CorruptionError(
                f"{where} is damaged: its data is nested deeper than {_MOST_DEPTH}, or holds "
                "itself; restore it from a good copy"
            )
        if isinstance(value, TensorStub):
            yield tuple(path[1:]), value
        else:
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            levels.append(iter(pairs))


def _uncompiled(name: str) -> str:
    parts = name.split(".")
    return ".".join([part for part in parts[:-1] if part != "_orig_mod"] + parts[-1:])


def _module_name(name: str, prefix: str) -> str:
    """Return a module's name without the prefix that came off the tensors below it."""
    return _uncompiled(f"{name}.").removeprefix(prefix).removesuffix(".") if name else ""
