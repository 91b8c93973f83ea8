"""Reads a pickle that torch wrote, and builds stubs of it; nothing that it names is imported.

The machine knows the opcodes that torch's weights-only loader knows and no others, so that both
read the same thing. Rule 1: a global is a stub from `ALLOWED` or an error. Rule 2: only such a
stub is ever called. Rule 3: what is hashed was checked for depth. Rule 4: what a step builds is
paid for first, out of a budget that grows with the pickle, since a few bytes can make an empty
set, or copy a long list again and again.
"""

from __future__ import annotations

import pickletools
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ckptstore.errors import CorruptionError, UnsafeError
from ckptstore.ptfile.allowed import ALLOWED, checked_key
from ckptstore.ptfile.stubs import ITEMSIZES, Function, StorageStub, Token

__all__ = ["unpickle"]

_MOST_STEPS = 10_000_000
# Bytes of memory that a pickle may ask for: some in any case, and more for each of its own bytes.
# The densest that is written in earnest is a dict of short texts, which takes 18 for one.
_FREE_BYTES = 64 * 2**20
_BYTES_FOR_EACH = 20
_MOST_SHOWN = 200
_MOST_REFUSED = 9
_LOOKED_THROUGH = 2**18
_PYTHON_2 = {"__builtin__": "builtins"}
_DICTS = (dict, OrderedDict, Counter)


def unpickle(data: bytes, sizes: dict[str, int], where: str) -> tuple[Any, frozenset[str]]:
    """Return what a pickle holds, with stubs in the place of all that is torch's, and its names.

    The names are those of what it refers to, such as ``collections.OrderedDict``.

    Args:
        data: the pickle.
        sizes: bytes of each record by its name, such as ``data/0``.
        where: what to call the file in errors.

    Raises:
        CorruptionError: the pickle is malformed, or claims what its records do not hold.
        UnsafeError: it names something that is not on the list.
    """
    machine = _Machine(data, sizes, where)
    try:
        return machine.run(), frozenset(machine.named)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        StopIteration,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise CorruptionError(
            f"{where} is damaged: its pickle is malformed at byte {machine.at} "
            f"({type(error).__name__}: {error}); restore it from a good copy"
        ) from error


def _called(module: str, name: str) -> str:
    return f"{_PYTHON_2.get(module, module)}.{name}"


def _refused(rest: bytes) -> list[str]:
    """Return some more names that a pickle refers to and that are not on the list."""
    found: dict[str, None] = {}
    with suppress(Exception):  # What a stranger wrote need not be a pickle at all.
        for opcode, argument, _ in pickletools.genops(rest[:_LOOKED_THROUGH]):
            if opcode.name == "GLOBAL" and len(found) < _MOST_REFUSED:
                name = str(argument).replace(" ", ".", 1)
                if name not in ALLOWED:
                    found[name[:_MOST_SHOWN]] = None
    return list(found)


class _Machine:
    def __init__(self, data: bytes, sizes: dict[str, int], where: str) -> None:
        self.at = 0
        self.named: set[str] = set()
        self._data = data
        self._sizes = sizes
        self._where = where
        self._left = _FREE_BYTES + _BYTES_FOR_EACH * len(data)
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._dtypes: dict[str, str] = {}

    def run(self) -> Any:
        data, steps = self._data, _OPCODES
        for _ in range(_MOST_STEPS):
            code = data[self.at]
            self.at += 1
            if code == 0x2E:
                return self._stack.pop()
            step, cost = steps.get(code, _UNKNOWN)
            if step is None:
                raise ValueError(f"opcode 0x{code:02x} is none that torch writes")
            self._left -= cost
            if self._left < 0:
                self._pay(0)
            step(self)
        raise ValueError(f"more than {_MOST_STEPS} steps; keep long lists as tensors")

    def _pay(self, cost: int) -> None:
        """Take memory out of the budget before it is taken from the machine."""
        self._left -= cost
        if self._left < 0:
            raise ValueError(
                f"its {len(self._data)} bytes ask for too much memory; keep long lists as tensors"
            )

    # -- the pickle's bytes --------------------------------------------------------------

    def _take(self, length: int) -> bytes:
        taken = self._data[self.at : self.at + length]
        if len(taken) != length:
            raise ValueError("it ends too early")
        self.at += length
        return taken

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _line(self) -> str:
        end = self._data.index(b"\n", self.at)
        line = self._data[self.at : end].decode("utf-8")
        self.at = end + 1
        return line

    # -- values ----------------------------------------------------------------------------

    def _protocol(self) -> None:
        protocol = self._take(1)[0]
        if protocol != 2:
            raise UnsafeError(
                f"{self._where} is pickled with protocol {protocol}, which cannot be checked "
                "before it is read; nothing was run. Save it again with torch.save's own protocol"
            )

    def _global(self) -> None:
        module, name = self._line(), self._line()
        found = ALLOWED.get(_called(module, name))
        if found is None:
            place = _path([*self._below, self._stack])
            refused = f"{module}.{name}"[:_MOST_SHOWN]
            also = "".join(f", {other}" for other in _refused(self._data[self.at :]))
            raise UnsafeError(
                f"{self._where} holds more than tensors ({refused}{place}{also}), so reading it "
                "would run code; nothing was run. Where you trust its origin, load it there, turn "
                "that value into numbers, text, lists, dicts or tensors, and save it again"
            )
        self.named.add(_called(module, name))
        self._stack.append(found)

    def _persistent(self) -> None:
        kind, storage, key, device, count = self._stack.pop()
        if isinstance(kind, bytes):
            kind = kind.decode()
        if (
            kind != "storage"
            or not isinstance(storage, Token)
            or storage.kind != "storage"
            or not isinstance(key, str)
            or not isinstance(device, str)
            or type(count) is not int
        ):
            raise ValueError("a reference to something that is no storage")
        record = f"data/{key}"
        held = self._sizes.get(record)
        if held is None:
            raise ValueError(f"a tensor whose record {record!r} is absent")
        nbytes = count * ITEMSIZES[storage.name]
        self._pay(len(record))
        # torch sizes the memory by the pickle and fills it by the directory: they must agree.
        if nbytes != held or self._dtypes.setdefault(record, storage.name) != storage.name:
            raise ValueError(f"a storage of {nbytes} bytes whose record {record!r} holds {held}")
        self._stack.append(StorageStub(storage.name, record, device, nbytes))

    def _reduce(self) -> None:
        args = self._stack.pop()
        function = self._stack[-1]
        if not isinstance(function, Function) or not isinstance(args, tuple):
            raise ValueError("a call of something that is no function")
        self._pay(_weight(args))
        self._stack[-1] = function.call(*args)

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if type(target) is not OrderedDict or not isinstance(state, dict):
            raise ValueError(f"attributes for a {type(target).__name__}")
        for name in state:
            if not isinstance(name, str) or name.startswith("__") or hasattr(OrderedDict, name):
                raise ValueError(f"the attribute {str(name)[:_MOST_SHOWN]!r} for a dict")
        versions = state.get("_metadata")
        if isinstance(versions, dict):
            self._pay(_FOR_ITEM * len(versions))
            target._metadata = OrderedDict(  # type: ignore[attr-defined]
                (module, {key: value for key, value in entry.items() if _is_scalar(value)})
                for module, entry in versions.items()
                if isinstance(module, str) and isinstance(entry, dict)
            )

    # -- containers --------------------------------------------------------------------------

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _append(self, items: list[Any]) -> None:
        self._pay(_FOR_PLACE * len(items))
        if type(self._stack[-1]) is not list:
            raise ValueError("items for something that is no list")
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        self._pay(_FOR_ITEM * len(items) // 2)
        if type(target) not in _DICTS or len(items) % 2:
            raise ValueError("items for something that is no dict")
        for index in range(0, len(items), 2):
            target[checked_key(items[index])] = items[index + 1]

    def _set_item(self) -> None:
        items = self._stack[-2:]
        del self._stack[-2:]
        self._set_items(items)

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise ValueError("a tuple of too few items")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _long_tuple(self) -> None:
        items = self._marked()
        self._pay(_FOR_PLACE * len(items))
        self._stack.append(tuple(items))

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _long(self) -> None:
        raw = self._take(self._take(1)[0])
        self._stack.append(int.from_bytes(raw, "little", signed=True))

    def _text(self) -> str:
        raw = self._take(self._number(_U4))
        # One letter beyond the first 65,536 makes all letters of a text take four bytes.
        self._pay(len(raw) if raw.isascii() else 4 * len(raw))
        return raw.decode("utf-8", "surrogatepass")


def _path(frames: list[list[Any]]) -> str:
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
    shown = ".".join(str(key)[:_MOST_SHOWN] for key in keys[:_MOST_SHOWN])[:_MOST_SHOWN]
    return f" at {shown!r}" if keys else ""


def _weight(value: Any, depth: int = 2) -> int:
    """Return about what a copy of some arguments takes, and what is made of them, in bytes."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if not isinstance(value, (tuple, list, dict, set)):
        return _FOR_PLACE
    inner = sum(_weight(item, depth - 1) for item in value) if depth and type(value) is tuple else 0
    return _FOR_ITEM * len(value) + inner


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _is_key(value: Any) -> bool:
    return isinstance(value, (str, int))


_FOR_PLACE, _FOR_ITEM = 8, 100  # in a list; in a dict or a set
_U2, _U4 = struct.Struct("<H"), struct.Struct("<I")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

_Step = Callable[[_Machine], None]
_UNKNOWN: tuple[_Step | None, int] = (None, 0)
# What each does, and the bytes of memory that it takes, those that hang on what follows left out.
_OPCODES: dict[int, tuple[_Step | None, int]] = {
    ord(code): step
    for code, step in {
        "\x80": (_Machine._protocol, 0),
        "c": (_Machine._global, 8),
        "Q": (_Machine._persistent, 500),
        "R": (_Machine._reduce, 500),
        "b": (_Machine._build, 0),
        "(": (_Machine._mark, 72),
        "t": (_Machine._long_tuple, 64),
        "\x85": (lambda m: m._tuple(1), 64),
        "\x86": (lambda m: m._tuple(2), 72),
        "\x87": (lambda m: m._tuple(3), 80),
        "a": (lambda m: m._append([m._stack.pop()]), 0),
        "e": (lambda m: m._append(m._marked()), 0),
        "s": (_Machine._set_item, 0),
        "u": (lambda m: m._set_items(m._marked()), 0),
        "N": (lambda m: m._stack.append(None), 8),
        "\x88": (lambda m: m._stack.append(True), 8),
        "\x89": (lambda m: m._stack.append(False), 8),
        ")": (lambda m: m._stack.append(()), 8),
        "]": (lambda m: m._stack.append([]), 72),
        "}": (lambda m: m._stack.append({}), 72),
        "\x8f": (lambda m: m._stack.append(set()), 232),
        "J": (lambda m: m._stack.append(m._number(_I4)), 40),
        "K": (lambda m: m._stack.append(m._take(1)[0]), 8),
        "M": (lambda m: m._stack.append(m._number(_U2)), 40),
        "G": (lambda m: m._stack.append(m._number(_F8)), 32),
        "\x8a": (_Machine._long, 300),
        "X": (lambda m: m._stack.append(m._text()), 64),
        "U": (lambda m: m._stack.append(m._take(m._take(1)[0]).decode("utf-8")), 320),
        "h": (lambda m: m._stack.append(m._memo[m._take(1)[0]]), 8),
        "j": (lambda m: m._stack.append(m._memo[m._number(_U4)]), 8),
        "q": (lambda m: m._put(m._take(1)[0]), 100),
        "r": (lambda m: m._put(m._number(_U4)), 100),
    }.items()
}
