"""Reads a pickle that torch wrote, and builds stubs of it; nothing that it names is imported.

The machine knows the opcodes that torch's weights-only loader knows and no others, so that both
read the same thing. Rule 1: a global is a stub from `ALLOWED` or an error. Rule 2: only such a
stub is ever called. Rule 3: what is hashed was checked for depth. Rule 4: what a step builds is
paid for first, out of a budget that grows with the pickle, since a few bytes can make an empty
set, or copy a long list again and again.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ckptstore.errors import CorruptionError, UnsafeError
from ckptstore.ptfile.allowed import ALLOWED, checked_key
from ckptstore.ptfile.places import MOST_SHOWN, called, path_of, refused
from ckptstore.ptfile.stubs import ITEMSIZES, Function, Name, StorageStub, Token

__all__ = ["OPCODES", "Machine", "Step", "run", "unpickle"]

# Bytes of memory that a pickle may ask for: some in any case, and more for each of its own bytes.
# The densest that is written in earnest is a dict of short texts, which takes 18 for one.
_FREE_BYTES = 64 * 2**20
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
    machine = Machine(data, where, sizes)
    return run(machine), frozenset(machine.named)


def run(machine: Machine) -> Any:
    """Return what a machine makes of its pickle.

    Raises:
        CorruptionError: the pickle is malformed.
        UnsafeError: as `unpickle`.
    """
    try:
        return machine.run()
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
            f"{machine.where} is damaged: its pickle is malformed at byte {machine.at} "
            f"({type(error).__name__}: {error}); restore it from a good copy"
        ) from error


class Machine:
    """Builds what one pickle says.

    Args:
        data: the pickle.
        where: what to call the file in errors.
        sizes: bytes of each record by its name; none of a pickle that stands alone.

    Attributes:
        at: how far it has come, in bytes.
        named: what the pickle refers to.
        opcodes: what each byte does, and the memory that this takes.
        protocols: those that are read.
        most_steps: after which it gives up.
        bytes_for_each: of its own bytes, bytes of memory that a pickle may ask for.
    """

    opcodes: ClassVar[Mapping[int, tuple[Step | None, int]]]
    protocols: ClassVar[tuple[int, ...]] = (2,)
    most_steps: ClassVar[int] = 10_000_000
    bytes_for_each: ClassVar[int] = 20

    def __init__(
        self,
        data: bytes,
        where: str,
        sizes: Mapping[str, int],
        allowed: Mapping[str, Token | Function | Name] = ALLOWED,
    ) -> None:
        self.at = 0
        self.named: set[str] = set()
        self.where = where
        self._data = data
        self._sizes = sizes
        self._allowed = allowed
        self._left = _FREE_BYTES + self.bytes_for_each * len(data)
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._dtypes: dict[str, str] = {}

    def run(self) -> Any:
        """Return the object."""
        data, steps = self._data, self.opcodes
        for _ in range(self.most_steps):
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
        raise ValueError(f"more than {self.most_steps} steps; keep long lists as tensors")

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
        if protocol not in self.protocols:
            raise UnsafeError(
                f"{self.where} is pickled with protocol {protocol}, which cannot be checked "
                "before it is read; nothing was run. Save it again with torch.save's own protocol"
            )

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._refer(module, name)

    def _refer(self, module: str, name: str) -> None:
        """Put what stands for a global on the stack, if that is on the list."""
        found = self._allowed.get(called(module, name))
        if found is None:
            first = f"{module}.{name}"[:MOST_SHOWN] + path_of([*self._below, self._stack])
            more = refused(self._data[self.at :], self._allowed)
            raise self._refusal(", ".join([first, *more]))
        self.named.add(called(module, name))
        self._stack.append(found)

    def _refusal(self, what: str) -> UnsafeError:
        return UnsafeError(
            f"{self.where} holds more than tensors ({what}), so reading it "
            "would run code; nothing was run. Where you trust its origin, load it there, turn "
            "that value into numbers, text, lists, dicts or tensors, and save it again"
        )

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
                raise ValueError(f"the attribute {str(name)[:MOST_SHOWN]!r} for a dict")
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


_FOR_PLACE, _FOR_ITEM = 8, 100  # in a list; in a dict or a set
_U2, _U4 = struct.Struct("<H"), struct.Struct("<I")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

Step = Callable[[Machine], None]
_UNKNOWN: tuple[Step | None, int] = (None, 0)
# What each does, and the bytes of memory that it takes, those that hang on what follows left out.
OPCODES: dict[int, tuple[Step | None, int]] = {
    ord(code): step
    for code, step in {
        "\x80": (Machine._protocol, 0),
        "c": (Machine._global, 8),
        "Q": (Machine._persistent, 500),
        "R": (Machine._reduce, 500),
        "b": (Machine._build, 0),
        "(": (Machine._mark, 72),
        "t": (Machine._long_tuple, 64),
        "\x85": (lambda m: m._tuple(1), 64),
        "\x86": (lambda m: m._tuple(2), 72),
        "\x87": (lambda m: m._tuple(3), 80),
        "a": (lambda m: m._append([m._stack.pop()]), 0),
        "e": (lambda m: m._append(m._marked()), 0),
        "s": (Machine._set_item, 0),
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
        "\x8a": (Machine._long, 300),
        "X": (lambda m: m._stack.append(m._text()), 64),
        "U": (lambda m: m._stack.append(m._take(m._take(1)[0]).decode("utf-8")), 320),
        "h": (lambda m: m._stack.append(m._memo[m._take(1)[0]]), 8),
        "j": (lambda m: m._stack.append(m._memo[m._number(_U4)]), 8),
        "q": (lambda m: m._put(m._take(1)[0]), 100),
        "r": (lambda m: m._put(m._number(_U4)), 100),
    }.items()
}
Machine.opcodes = OPCODES
