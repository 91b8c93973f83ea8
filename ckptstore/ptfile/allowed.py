"""The globals that a pickle may name, and what calling one gives: a stub.

By name they are those that torch's own weights-only loader allows, without the few that could
only fail there. Each checks its arguments more strictly than torch does, because torch believes
them: a view that is larger than its storage would read, or give out, memory that was never
written, and a length would be allocated at once.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from typing import Any

from ckptstore.ptfile.stubs import (
    ITEMSIZES,
    PACKED,
    Function,
    Instance,
    Name,
    Size,
    StorageStub,
    TensorStub,
    Token,
)

__all__ = ["ALLOWED", "checked_key"]

_STORAGES = {
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "Int": "int32",
    "Long": "int64",
    "QInt32": "qint32",
    "QInt8": "qint8",
    "QUInt2x4": "quint2x4",
    "QUInt4x2": "quint4x2",
    "QUInt8": "quint8",
    "Short": "int16",
}
_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
_QSCHEMES = (
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)
_MOST_DIMENSIONS = 64
_MOST = 2**63 - 1
_MOST_KEY_DEPTH = 4
_MOST_KEY_PARTS = 1000
_KEYS = (str, bytes, int, float, complex, type(None), Token, Name, Instance)
_DEVICE = re.compile(r"[a-z][a-z0-9_]{0,62}(?::([0-9]{1,3}))?")
_MOST_DEVICE = 127


def checked_key(key: Any, depth: int = _MOST_KEY_DEPTH) -> Any:
    """Return a dictionary key that is safe to hash, and to show.

    Deep tuples would exhaust the C stack, and wide ones make names without an end.
    """
    if isinstance(key, tuple) and depth:
        sizes = [len(part) if isinstance(part, (str, bytes)) else 1 for part in key]
        if sum(sizes) > _MOST_KEY_PARTS:
            raise ValueError(f"a tuple of more than {_MOST_KEY_PARTS} parts and letters as a key")
        for inner in key:
            checked_key(inner, depth - 1)
    elif not isinstance(key, _KEYS):
        raise ValueError(f"a {type(key).__name__} as a key")
    return key


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError("a size that is negative, absurd or no number")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MOST_DIMENSIONS:
        raise ValueError("a shape that is none")
    return tuple(map(_count, values))


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None = None
) -> TensorStub:
    if not isinstance(storage, StorageStub):
        raise ValueError("a tensor without a storage")
    shape, strides, start = _counts(size), _counts(stride), _count(offset)
    dtype = dtype or storage.dtype
    if len(shape) != len(strides):
        raise ValueError("a tensor with more dimensions than strides, or fewer")
    last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    held = storage.nbytes // ITEMSIZES[dtype] * PACKED.get(dtype, 1)
    if prod(shape) > _MOST or (all(shape) and last >= held):
        raise ValueError(
            f"a tensor of shape {list(shape)} that reaches beyond its storage of {held} elements"
        )
    return TensorStub(dtype, shape, strides, start, storage)


def _rebuild_v1(storage: Any, offset: Any, size: Any, stride: Any) -> TensorStub:
    return _tensor(storage, offset, size, stride)


def _rebuild_v2(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> TensorStub:
    stub = _tensor(storage, offset, size, stride)
    return _finished(stub, requires_grad, hooks, plain=not metadata)


def _rebuild_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> TensorStub:
    stub = _tensor(storage, offset, size, stride, _named(dtype, "dtype"))
    return _finished(stub, requires_grad, hooks, plain=not metadata)


def _rebuild_qtensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    quantizer: Any,
    requires_grad: Any,
    hooks: Any,
) -> TensorStub:
    stub = _all_there(_tensor(storage, offset, size, stride))
    _named(quantizer[0], "qscheme")
    parts = tuple(_part(part) for part in quantizer if isinstance(part, TensorStub))
    return replace(_finished(stub, requires_grad, hooks, plain=False), parts=parts)


def _rebuild_sparse(layout: Any, data: Any) -> TensorStub:
    parts = tuple(_part(part) for part in data if isinstance(part, TensorStub))
    shape = next(part for part in data[2:] if isinstance(part, (Size, tuple, list)))
    if _named(layout, "layout") == "strided" or len(parts) not in (2, 3):
        raise ValueError("a sparse tensor that is none")
    # One that is made of parts that ask for gradients does so too.
    asks = any(part.requires_grad for part in parts)
    return TensorStub(parts[-1].dtype, _counts(shape), (), 0, None, asks, parts=parts, plain=False)


def _rebuild_nested(buffer: Any, *layout: Any) -> TensorStub:
    parts = tuple(map(_part, (buffer, *layout)))
    if len(parts) != 4:
        raise ValueError("a nested tensor that is none")
    return TensorStub(buffer.dtype, buffer.shape, (), 0, None, parts=parts, plain=False)


def _rebuild_meta(dtype: Any, size: Any, stride: Any, requires_grad: Any) -> TensorStub:
    name = _named(dtype, "dtype")
    shape, strides = _counts(size), _counts(stride)
    if len(shape) != len(strides) or prod(shape) > _MOST // 16:
        raise ValueError("a tensor that is none")
    storage = StorageStub(name, None, "meta", prod(shape) * ITEMSIZES[name])
    return TensorStub(name, shape, strides, 0, storage, bool(requires_grad), plain=False)


def _rebuild_wrapper(
    kind: Any,
    dtype: Any,
    size: Any,
    stride: Any,
    offset: Any,
    layout: Any,
    device: Any,
    requires_grad: Any,
) -> TensorStub:
    _named(kind, "class")
    _named(layout, "layout")
    return replace(_rebuild_meta(dtype, size, stride, requires_grad), offset=_count(offset))


def _rebuild_on_device(data: Any, dtype: Any, device: Any, requires_grad: Any) -> TensorStub:
    stub = replace(_all_there(data), requires_grad=bool(requires_grad), plain=False)
    return replace(stub, dtype=_named(dtype, "dtype"))


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> TensorStub:
    stub = _checked_tensor(data)
    stub = _finished(stub, requires_grad, hooks, plain=stub.plain and not state)
    return replace(stub, parameter=True)


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> TensorStub:
    if not isinstance(function, Function) or not function.name.startswith("torch._utils._rebuild"):
        raise ValueError("a tensor that is rebuilt by something else")
    _named(kind, "class")
    stub = _checked_tensor(function.call(*args))
    return replace(stub, plain=stub.plain and kind == Token("class", "Tensor") and not state)


def _finished(stub: TensorStub, requires_grad: Any, hooks: Any, *, plain: bool) -> TensorStub:
    if hooks:
        raise ValueError("a tensor with hooks")
    differentiable = stub.dtype.startswith(("float", "bfloat", "complex"))
    if type(requires_grad) is not bool or (requires_grad and not differentiable):
        raise ValueError(f"a tensor of {stub.dtype} that requires gradients")
    return replace(stub, requires_grad=requires_grad, plain=plain)


def _checked_tensor(value: Any) -> TensorStub:
    if not isinstance(value, TensorStub):
        raise ValueError(f"a {type(value).__name__} where a tensor belongs")
    return value


def _all_there(value: Any) -> TensorStub:
    """Return a tensor of which torch makes a copy; one expanded row would take any memory."""
    stub = _checked_tensor(value)
    if stub.storage is not None and stub.nbytes > stub.storage.nbytes:
        raise ValueError(
            f"a tensor of {stub.nbytes} bytes of which {stub.storage.nbytes} are there"
        )
    return stub


def _part(value: Any) -> TensorStub:
    """Return a tensor that another one is made of; it has bytes of its own."""
    stub = _checked_tensor(value)
    if stub.record is None or stub.parts:
        raise ValueError("a tensor that is made of others, as a part")
    return stub


def _named(token: Any, kind: str) -> str:
    if not isinstance(token, Token) or token.kind != kind:
        raise ValueError(f"something else where a {kind} belongs")
    return token.name


def _size(values: Any = ()) -> Size:
    return Size(_counts(values))


def _device(kind: Any, index: Any = None) -> Token:
    name = kind if index is None else f"{kind}:{_count(index)}"
    # torch keeps the number in seven bits, and takes a larger one for another.
    found = _DEVICE.fullmatch(name) if isinstance(kind, str) else None
    if found is None or int(found[1] or 0) > _MOST_DEVICE:
        raise ValueError("a device that is none")
    return Token("device", name)


def _layout(name: Any) -> Token:
    if not isinstance(name, str) or name.removeprefix("torch.") not in (*_LAYOUTS, "_mkldnn"):
        raise ValueError("a layout that is none")
    return Token("layout", name.removeprefix("torch."))


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked_key(key), value) for key, value in _sequence(pairs))


def _counter(counts: Any = None) -> Counter[Any]:
    if counts is not None and not isinstance(counts, dict):
        raise ValueError("a counter that is none")
    return Counter(counts)


def _set(values: Any = ()) -> set[Any]:
    return {checked_key(value) for value in _sequence(values)}


def _sequence(values: Any) -> Iterable[Any]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"a {type(values).__name__} where a list belongs")
    return values


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an encoding that pickle never writes")
    return text.encode("latin-1")


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    # A number would be a length, and its memory would be taken at once.
    if encoding is not None:
        data = _encode(data, encoding)
    if not isinstance(data, bytes):
        raise ValueError("a bytearray that is none")
    return bytearray(data)


def _complex(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise ValueError("a complex number that is none")
    return complex(real, imaginary)


def _allowed() -> dict[str, Token | Function]:
    tokens = {f"torch.{name}": Token("dtype", name) for name in ITEMSIZES}
    tokens |= {f"torch.{name}": Token("qscheme", name) for name in _QSCHEMES}
    tokens["torch.storage.UntypedStorage"] = Token("storage", "uint8")
    for name, dtype in _STORAGES.items():
        plain = not name.startswith(("Complex", "Q"))
        for place in ("torch", "torch.cuda") if not name.startswith("Q") else ("torch",):
            tokens[f"{place}.{name}Storage"] = Token("storage", dtype)
            if plain:
                tokens[f"{place}.{name}Tensor"] = Token("class", f"{name}Tensor")
            if plain and name != "Bool":
                tokens[f"{place}.sparse.{name}Tensor"] = Token("class", f"{name}Tensor")
    tokens["torch.Tensor"] = Token("class", "Tensor")
    tokens["torch.nn.parameter.Parameter"] = Token("class", "nn.Parameter")
    functions: dict[str, Callable[..., Any]] = {
        "_codecs.encode": _encode,
        "builtins.bytearray": _bytearray,
        "builtins.complex": _complex,
        "builtins.set": _set,
        "collections.Counter": _counter,
        "collections.OrderedDict": _ordered,
        "torch.Size": _size,
        "torch.device": _device,
        "torch.serialization._get_layout": _layout,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _rebuild_on_device,
        "torch._utils._rebuild_meta_tensor_no_storage": _rebuild_meta,
        "torch._utils._rebuild_nested_tensor": _rebuild_nested,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
        "torch._utils._rebuild_qtensor": _rebuild_qtensor,
        "torch._utils._rebuild_sparse_tensor": _rebuild_sparse,
        "torch._utils._rebuild_tensor": _rebuild_v1,
        "torch._utils._rebuild_tensor_v2": _rebuild_v2,
        "torch._utils._rebuild_tensor_v3": _rebuild_v3,
        "torch._utils._rebuild_wrapper_subclass": _rebuild_wrapper,
    }
    return {**tokens, **{name: Function(name, call) for name, call in functions.items()}}


ALLOWED = _allowed()
