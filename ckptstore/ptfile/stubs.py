"""What stands in the place of torch's objects: what a pickle says of them; nothing here runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

__all__ = [
    "ITEMSIZES",
    "PACKED",
    "Function",
    "Instance",
    "Name",
    "Size",
    "StorageStub",
    "TensorStub",
    "Token",
]

# Bytes of one element, as torch counts them in a storage.
ITEMSIZES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8", "quint4x2", "quint2x4"), 1),
    **dict.fromkeys(("bits8", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), 1),
    "float8_e8m0fnu": 1,
    **dict.fromkeys((f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16", "bits16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32", "qint32", "complex32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
PACKED = {"quint4x2": 2, "quint2x4": 4}  # elements in a byte


@dataclass(frozen=True)
class Token:
    """A dtype, device, layout, quantization scheme, or class of torch, by its name.

    Attributes:
        kind: ``dtype``, ``device``, ``layout``, ``qscheme``, ``storage`` or ``class``.
        name: such as ``float32``, ``cuda:0``, ``sparse_coo``; of a storage, its dtype.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return self.name if self.kind == "device" else f"torch.{self.name}"


class Size(tuple[int, ...]):
    """What stands in the place of a `torch.Size`."""

    __slots__ = ()


@dataclass(frozen=True)
class StorageStub:
    """One record of bytes that tensors look into.

    Attributes:
        dtype: of its elements; ``uint8`` where the file leaves it open.
        record: the name of its record, such as ``data/0``; None on the meta device.
        device: where it was when it was saved.
        nbytes: bytes.
    """

    dtype: str
    record: str | None
    device: str
    nbytes: int


@dataclass(frozen=True)
class TensorStub:
    """A tensor, as far as it is known without its bytes.

    Attributes:
        dtype: torch's name without the prefix.
        shape: the size of each dimension.
        stride: in elements; empty for a layout that has none.
        offset: where in the storage it begins, in elements.
        storage: what it looks into; None for one that is made of other tensors.
        requires_grad: whether it asks for gradients.
        parameter: whether it was a `torch.nn.Parameter`.
        parts: the tensors that a sparse or nested one is made of.
        plain: whether dtype, shape, stride, offset and storage describe it wholly.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: StorageStub | None
    requires_grad: bool = False
    parameter: bool = False
    parts: tuple[TensorStub, ...] = ()
    plain: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        if self.storage is None:
            return sum(part.nbytes for part in self.parts)
        return -(-prod(self.shape) * ITEMSIZES[self.dtype] // PACKED.get(self.dtype, 1))

    @property
    def record(self) -> str | None:
        """The name of the record that holds its bytes; tied tensors share one."""
        return None if self.storage is None else self.storage.record


@dataclass(frozen=True)
class Function:
    """One of the few callables that a pickle may name; called with stubs, it gives a stub."""

    name: str
    call: Callable[..., Any]


@dataclass(frozen=True)
class Name:
    """What a bare pickle refers to by its name: a class, a function, or a value of a module.

    Attributes:
        name: with the module, such as ``torch.float32``.
    """

    name: str


@dataclass(eq=False)
class Instance:
    """What stands in the place of an object that a bare pickle describes; its class is not run.

    Two of them are equal only where they are one and the same: nothing is known of their class.

    Attributes:
        name: of the class, or of the function that would make it, with the module.
        args: what it would be called with.
        state: what would be set on it afterwards, mostly a dict of its attributes; None where
            there is nothing.
    """

    __slots__ = ("args", "name", "state")

    name: str
    args: tuple[Any, ...]
    state: Any
