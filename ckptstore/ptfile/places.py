"""What a refusal says of a pickle: what it refers to, and where in its data that is."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

__all__ = ["MOST_SHOWN", "called", "path_of", "refused"]

MOST_SHOWN = 200
_MOST_REFUSED = 9
_LOOKED_THROUGH = 2**18
_PYTHON_2 = {"__builtin__": "builtins"}


def called(module: str, name: str) -> str:
    """Return the name of a global, with its module as Python 3 calls that."""
    return f"{_PYTHON_2.get(module, module)}.{name}"


def refused(rest: bytes, allowed: Mapping[str, Any]) -> list[str]:
    """Return some more names that a pickle refers to and that are not on the list."""
    found: dict[str, None] = {}
    with suppress(Exception):  # What a stranger wrote need not be a pickle at all.
        for opcode, argument, _ in pickletools.genops(rest[:_LOOKED_THROUGH]):
            if opcode.name == "GLOBAL" and len(found) < _MOST_REFUSED:
                name = str(argument).replace(" ", ".", 1)
                if name not in allowed:
                    found[name[:MOST_SHOWN]] = None
    return list(found)


def path_of(frames: list[list[Any]]) -> str:
    """Return where in the data the machine is, from what waits on its stacks."""
    keys: list[Any] = []
    outer: Any = None
    for position, frame in enumerate(frames):
        # Below the last frame, the top of each is what the frames above are building.
        rest = frame[:-1] if position < len(frames) - 1 else list(frame)
        inner: list[Any] = []
        # A dict of one item is still empty while its value is built, with the key behind it.
        while len(rest) > 1 and isinstance(rest[-2], dict) and not rest[-2] and _is_key(rest[-1]):
            inner.append(rest.pop())
            rest.pop()
        # The items of a longer container wait in the frame above it.
        if isinstance(outer, list):
            inner.append(len(outer) + len(rest))
        elif isinstance(outer, dict) and len(rest) % 2 and _is_key(rest[-1]):
            inner.append(rest[-1])
        keys += reversed(inner)
        outer = frame[-1] if frame else None
    shown = ".".join(str(key)[:MOST_SHOWN] for key in keys[:MOST_SHOWN])[:MOST_SHOWN]
    return f" at {shown!r}" if keys else ""


def _is_key(value: Any) -> bool:
    return isinstance(value, (str, int))
