"""Reads a pickle that stands alone, as `pickle.dump` writes it; nothing that it names is imported.

It is read by the same machine as that of a `.pt`, which here knows the opcodes of newer protocols
too. Rule 1: what comes out is plain data, and stand-ins for the objects of those classes that the
caller lists. Rule 2: nothing of a stand-in is ever called; whoever asked for it looks at the
arguments and the state, and makes of them what they like.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.ptfile.allowed import ALLOWED, checked_key
from ckptstore.ptfile.pickles import OPCODES, Machine, run
from ckptstore.ptfile.stubs import Function, Instance, Name

__all__ = ["MOST_PICKLE", "read_pickle"]

MOST_PICKLE = 64 * 2**20
# What pickle names for plain data that has no opcode of its own.
_PLAIN = (
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
)
_EMPTY = Function("builtins.bytes", lambda: b"")  # As protocol 2 has it.
_FOR_ITEM = 100
_MOST_DIGITS = 1024
_U1, _U4, _U8 = struct.Struct("<B"), struct.Struct("<I"), struct.Struct("<Q")


def read_pickle(data: bytes, where: str, *, names: Iterable[str] = ()) -> Any:
    """Return what a bare pickle holds, without running any of it (G5).

    Guarantee: plain data alone is built: None, numbers, text, bytes, lists, tuples, dicts and sets.
    What a name of the list is the class of, or would return, is an `Instance`; what such a name
    stands for by itself is a `Name`. Time and memory are bounded by the size of the pickle.

    Args:
        data: the pickle, of protocol 2 to 5 and of at most 64 MiB.
        where: what to call it in errors, such as ``meta.pkl in s3://bucket/dante``.
        names: of classes and functions that it may refer to, with their modules, such as
            ``torch.Size``.

    Raises:
        CorruptionError: it is no pickle, is cut off or malformed.
        UnsafeError: it refers to something that is not on the list, or is of an older protocol.
        UnsupportedError: it is larger than 64 MiB.
    """
    if len(data) > MOST_PICKLE:
        raise UnsupportedError(
            f"{where} is a pickle of more than {MOST_PICKLE // 2**20} MiB; not read"
        )
    if not data:
        raise CorruptionError(f"{where} is empty; restore it from a good copy")
    plain = {name: ALLOWED[name] for name in _PLAIN} | {_EMPTY.name: _EMPTY}
    allowed = plain | {name: Name(name) for name in names}
    return run(_Bare(data, where, {}, allowed))


class _Bare(Machine):
    protocols: ClassVar[tuple[int, ...]] = (2, 3, 4, 5)
    most_steps: ClassVar[int] = 40_000_000
    # One byte may put an object of some 60 bytes, with a dict of its own, behind another.
    bytes_for_each: ClassVar[int] = 40

    def run(self) -> Any:
        """Return the object; the protocol has to come first, for the oldest have none."""
        if self._data[0] != 0x80:
            raise CorruptionError(
                f"{self.where} is no pickle that can be read here: it begins with "
                f"{self._data[:4]!r}, and those of protocol 2 to 5 with b'\\x80'; restore it from "
                "a good copy"
            )
        return super().run()

    def _refusal(self, what: str) -> UnsafeError:
        return UnsafeError(
            f"{self.where} holds more than plain data ({what}), so reading it would run code; "
            "nothing was run. Where you trust its origin, load it there, and save again what is "
            "needed of it as numbers, text, lists and dicts"
        )

    def _frame(self) -> None:
        # Frames only say how much to read at once, and all is here.
        self._take(8)

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._refer(module, name)

    def _memoize(self) -> None:
        self._put(len(self._memo))

    def _call(self) -> None:
        args = self._stack.pop()
        made = self._stack[-1]
        if not isinstance(made, Name):
            self._stack.append(args)
            self._reduce()
            return
        if not isinstance(args, tuple):
            raise ValueError("a call with something that is no tuple")
        self._stack[-1] = Instance(made.name, args, None)

    def _new(self) -> None:
        if not isinstance(self._stack[-2], Name):
            raise ValueError("an object of something that is no class")
        self._call()

    def _set_state(self) -> None:
        target = self._stack[-2]
        if not isinstance(target, Instance):
            self._build()
        elif target.state is not None:
            raise ValueError("an object whose state is set twice")
        else:
            target.state = self._stack.pop()

    def _add_to_set(self) -> None:
        items = self._marked()
        self._pay(_FOR_ITEM * len(items))
        if type(self._stack[-1]) is not set:
            raise ValueError("items for something that is no set")
        self._stack[-1].update(map(checked_key, items))

    def _frozen_set(self) -> None:
        items = self._marked()
        self._pay(_FOR_ITEM * len(items))
        self._stack.append(frozenset(map(checked_key, items)))

    def _counted(self, form: struct.Struct) -> bytes:
        data = self._take(self._number(form))
        self._pay(len(data))
        return data

    def _letters(self, form: struct.Struct) -> str:
        raw = self._counted(form)
        if not raw.isascii():
            self._pay(3 * len(raw))  # One rare letter makes all of a text take four bytes.
        return raw.decode("utf-8", "surrogatepass")

    def _long_number(self) -> int:
        length = self._number(_U4)
        if length > _MOST_DIGITS:
            raise ValueError(f"a number of {length} bytes")
        return int.from_bytes(self._take(length), "little", signed=True)


def _pushed(value: Callable[[_Bare], Any]) -> Callable[[_Bare], None]:
    return lambda machine: machine._stack.append(value(machine))


_MORE: Mapping[str, tuple[Callable[[_Bare], None], int]] = {
    "\x95": (_Bare._frame, 0),
    "\x94": (_Bare._memoize, 100),
    "\x93": (_Bare._stack_global, 8),
    "\x81": (_Bare._new, 80),
    "R": (_Bare._call, 80),
    "b": (_Bare._set_state, 0),
    "\x90": (_Bare._add_to_set, 0),
    "\x91": (_Bare._frozen_set, 232),
    "\x8c": (_pushed(lambda m: m._letters(_U1)), 64),
    "\x8d": (_pushed(lambda m: m._letters(_U8)), 64),
    "C": (_pushed(lambda m: m._counted(_U1)), 64),
    "B": (_pushed(lambda m: m._counted(_U4)), 64),
    "\x8e": (_pushed(lambda m: m._counted(_U8)), 64),
    "\x96": (_pushed(lambda m: bytearray(m._counted(_U8))), 120),
    "\x8b": (_pushed(_Bare._long_number), 64),
}
_NOT_HERE = "QU"  # A record beside the pickle, and a text of Python 2, which has no encoding.
_OPCODES: dict[int, Any] = {
    **{code: step for code, step in OPCODES.items() if chr(code) not in _NOT_HERE},
    **{ord(code): step for code, step in _MORE.items()},
}
_Bare.opcodes = _OPCODES
