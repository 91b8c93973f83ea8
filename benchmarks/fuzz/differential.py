"""Holds what torch makes of a `.pt` against what ckptstore says of it without torch."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.fuzz.oracle import Finding
from ckptstore import ptfile
from ckptstore.errors import CkptstoreError
from ckptstore.ptfile.stubs import Function

__all__ = ["read_with_torch"]

_WHERE = "x.pt"
_MOST_USED = 10_000


def read_with_torch(data: bytes) -> None:
    """Read a `.pt` by all three ways, and compare what they give.

    Raises:
        Finding: the index, torch's loader and our builder do not agree.
        CkptstoreError: as `ckptstore.tensors.load`.
    """
    import torch

    from ckptstore import tensors

    content = ptfile.read(io.BytesIO(data), _WHERE)
    try:
        part = tensors.load(io.BytesIO(data), part=lambda root: root, where=_WHERE)
    except CkptstoreError:
        part = None
    whole = tensors.load(io.BytesIO(data), where=_WHERE)
    if content.byteorder == sys.byteorder:
        _Compared().stub(content.root, whole, "root")
        if part is not None:
            _Compared().value(whole, part, "root")
    with contextlib.suppress(CkptstoreError):
        tensors.load(io.BytesIO(data), map_location=None, part=lambda root: root, where=_WHERE)
    _use(whole)
    try:
        plain = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        raise Finding(f"torch.load refuses what ckptstore loads: {error}") from None
    _Compared().value(whole, plain, "root")
    names = [name for name in whole if isinstance(name, str)] if isinstance(whole, dict) else []
    if names:
        chosen = tensors.load(io.BytesIO(data), names=_first(whole), where=_WHERE)
        if list(chosen) != _first(whole):
            raise Finding(f"asked for {_first(whole)}, got {list(chosen)}")


def _use(root: Any) -> None:
    """Read the tensors themselves: what does not raise must not crash the process either."""
    import torch

    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, torch.Tensor) and (value.is_nested or value.numel() < _MOST_USED):
            for use in (torch.clone, torch.sum, torch.Tensor.to_dense, torch.dequantize, repr):
                with contextlib.suppress(RuntimeError, NotImplementedError, ValueError, TypeError):
                    use(value)


def _first(whole: Mapping[Any, Any]) -> list[str]:
    return [name for name in ptfile.repaired(whole) if isinstance(name, str)][:1]


class _Compared:
    """One comparison; what was compared once is not compared again."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def stub(self, stub: Any, value: Any, at: str) -> None:
        """Compare what the index says with what torch loaded."""
        import torch

        if self._again(stub, value):
            return
        if isinstance(stub, ptfile.TensorStub):
            self._tensor(stub, value, at)
        elif isinstance(stub, (ptfile.StorageStub, Function)):
            pass  # A storage or a function by itself: inert, and torch's own as a value.
        elif isinstance(stub, ptfile.Token):
            if stub.kind in ("dtype", "device", "layout", "qscheme") and str(stub) != str(value):
                raise Finding(f"{at} is {stub} in the index, torch says {value}")
        elif isinstance(stub, ptfile.Size):
            if type(value) is not torch.Size or tuple(stub) != tuple(value):
                raise Finding(f"{at} is {stub} in the index, torch says {value!r}")
        else:
            for name, left, right in self._inner(stub, value, at):
                self.stub(left, right, name)

    def value(self, one: Any, other: Any, at: str) -> None:
        """Compare what two ways of loading gave."""
        import torch

        if self._again(one, other):
            return
        if isinstance(one, torch.Tensor):
            if not isinstance(other, torch.Tensor) or _facts(one) != _facts(other):
                raise Finding(f"{at} is {_facts(one)} by one way, {_facts(other)} by the other")
            if not _same_bytes(one, other):
                raise Finding(f"{at} has other bytes by the other way")
            return
        for name, left, right in self._inner(one, other, at):
            self.value(left, right, name)

    def _again(self, one: Any, other: Any) -> bool:
        pair = (id(one), id(other))
        again = pair in self._seen
        self._seen.add(pair)
        return again

    def _inner(self, one: Any, other: Any, at: str) -> list[tuple[str, Any, Any]]:
        if type(one) is not type(other):
            raise Finding(f"{at} is a {type(one).__name__}, and a {type(other).__name__}")
        if isinstance(one, dict):
            # A class as a key is inert, and has no text of its own.
            if len(one) != len(other) or _told(one) != _told(other):
                raise Finding(f"{at} has the keys {list(one)[:9]}, and {list(other)[:9]}")
            pairs = zip(one.values(), other.values(), strict=True)
            return [(f"{at}.{n}"[:200], a, b) for n, (a, b) in zip(one, pairs, strict=True)]
        if isinstance(one, (list, tuple)):
            if len(one) != len(other):
                raise Finding(f"{at} has {len(one)} items, and {len(other)}")
            return [
                (f"{at}.{n}"[:200], a, b) for n, (a, b) in enumerate(zip(one, other, strict=True))
            ]
        if isinstance(one, set):
            if len(one) != len(other):
                raise Finding(f"{at} is {one!r}, and {other!r}")
        elif type(one).__name__ in ("TypedStorage", "UntypedStorage"):
            return []  # A storage by itself compares by identity.
        elif one != other and not (_is_nan(one) and _is_nan(other)):
            raise Finding(f"{at} is {one!r}, and {other!r}")
        return []

    def _tensor(self, stub: ptfile.TensorStub, value: Any, at: str) -> None:
        import torch

        if not isinstance(value, torch.Tensor):
            raise Finding(f"{at} is a tensor in the index, torch says {type(value).__name__}")
        if value.is_nested:
            return
        said = (f"torch.{stub.dtype}", stub.shape, stub.requires_grad)
        if said != (str(value.dtype), tuple(value.shape), value.requires_grad):
            raise Finding(f"{at} is {said} in the index, torch says {_facts(value)}")
        if stub.parameter != isinstance(value, torch.nn.Parameter):
            raise Finding(f"{at} is a parameter by one way only")
        if stub.plain and stub.storage is not None:
            held = value.untyped_storage().nbytes()
            place = (stub.stride, stub.offset, stub.storage.nbytes)
            if place != (value.stride(), value.storage_offset(), held):
                raise Finding(f"{at} lies at {place} in the index, torch says {_facts(value)}")


def _told(keys: Any) -> list[str]:
    return [str(key) for key in keys if isinstance(key, (str, bytes, int, float, complex))]


def _is_nan(value: Any) -> bool:
    if isinstance(value, complex):
        return math.isnan(value.real) or math.isnan(value.imag)
    return isinstance(value, float) and math.isnan(value)


def _facts(value: Any) -> tuple[Any, ...]:
    if value.is_nested:
        return (type(value).__name__, str(value.dtype), "nested")
    facts = (type(value).__name__, str(value.dtype), str(value.layout), str(value.device))
    place = (value.stride(), value.storage_offset()) if _is_strided(value) else ()
    return (*facts, tuple(value.shape), value.requires_grad, *place)


def _is_strided(value: Any) -> bool:
    return str(value.layout) == "torch.strided"


def _same_bytes(one: Any, other: Any) -> bool:
    import torch

    if not _is_strided(one) or one.is_nested or one.device.type != "cpu":
        return True
    flat = [
        torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()) for value in (one, other)
    ]
    return torch.equal(flat[0], flat[1])
