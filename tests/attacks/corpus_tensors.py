"""Tensors that claim what they do not have, and records that do not fit."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from building import (
    NO_BUNDLE,
    Gadgets,
    Item,
    base,
    committed,
    glob,
    plain,
    saved,
    text,
    value,
    zipped,
)

__all__ = ["tensor_of", "tensors"]

_READ = frozenset({"index", "model"})
_HOOKS = glob("collections:OrderedDict") + b")R"
_MOST = 2**63 - 1


def storage_of(
    *,
    kind: str = "torch:FloatStorage",
    key: Any = "0",
    device: Any = "cpu",
    count: Any = 4,
    what: Any = "storage",
) -> bytes:
    """Return the opcodes of a reference to a storage."""
    return b"(" + value(what) + glob(kind) + value(key) + value(device) + value(count) + b"tQ"


def tensor_of(
    storage: bytes | None = None,
    *,
    function: str = "torch._utils:_rebuild_tensor_v2",
    offset: Any = 0,
    shape: Any = (4,),
    stride: Any = (1,),
    grad: bytes = b"\x89",
    hooks: bytes = _HOOKS,
    more: bytes = b"",
) -> bytes:
    """Return the opcodes of one tensor of four floats, or of what it claims to be."""
    return (
        glob(function)
        + b"("
        + (storage or storage_of())
        + value(offset)
        + value(shape)
        + value(stride)
        + grad
        + hooks
        + more
        + b"tR"
    )


def _claims() -> Mapping[str, bytes]:
    """Return tensors whose claims contradict the sixteen bytes that there are."""
    ints = storage_of(kind="torch:LongStorage", key="1", count=4)
    return {
        "larger than its storage": tensor_of(shape=(5,)),
        "beyond its storage": tensor_of(offset=1),
        "an offset of 2^62": tensor_of(offset=2**62),
        "a negative offset": tensor_of(offset=-1),
        "a stride beyond": tensor_of(stride=(2,)),
        "a negative stride": tensor_of(offset=3, stride=(-1,)),
        "a stride of 2^62": tensor_of(shape=(4,), stride=(2**62,)),
        "a negative size": tensor_of(shape=(-4,)),
        "a size of 2^62": tensor_of(shape=(2**62,)),
        "sizes whose product overflows": tensor_of(shape=(2**40, 2**40), stride=(0, 0)),
        "sizes whose product overflows to nothing": tensor_of(
            shape=(2**62, 2**62, 0), stride=(0, 0, 0)
        ),
        "an empty one of 2^62 rows": tensor_of(shape=(2**62, 4, 0), stride=(4, 1, 1), offset=2**61),
        "an empty one far away": tensor_of(shape=(0,), stride=(_MOST,), offset=_MOST),
        "a size beyond 64 bits": tensor_of(shape=(2**70,)),
        "a size that is True": tensor_of(shape=(True,)),
        "a size that is a float": tensor_of(shape=(4.0,)),
        "a size that is a text": tensor_of(shape="4"),
        "a thousand dimensions": tensor_of(shape=(1,) * 1000, stride=(1,) * 1000),
        "more dimensions than strides": tensor_of(shape=(2, 2)),
        "a storage of 2^62 elements": tensor_of(storage_of(count=2**62)),
        "a storage of -4 elements": tensor_of(storage_of(count=-4)),
        "a storage that is absent": tensor_of(storage_of(key="9")),
        "a storage outside": tensor_of(storage_of(key="../../outside/secret.pt")),
        "a storage of a number": tensor_of(storage_of(key=0)),
        "a storage of another dtype": tensor_of(storage_of(kind="torch:DoubleStorage")),
        "one storage, two dtypes": tensor_of()
        + b"\x85"
        + tensor_of(storage_of(kind="torch:IntStorage"))
        + b"\x86",
        "no storage": tensor_of(b"K\x01"),
        "hooks": tensor_of(hooks=b"}" + text("a") + b"K\x01s"),
        "gradients of integers": tensor_of(ints, grad=b"\x88"),
        "a dtype that is a class": tensor_of(
            function="torch._utils:_rebuild_tensor_v3", more=glob("torch:Tensor")
        ),
        "a dtype that is larger": tensor_of(
            function="torch._utils:_rebuild_tensor_v3", more=glob("torch:float64")
        ),
        "a parameter of nothing": glob("torch._utils:_rebuild_parameter")
        + b"(N\x88"
        + _HOOKS
        + b"tR",
        "a storage alone, rebuilt by its class": glob("torch.storage:UntypedStorage")
        + b"K\x7f\x85R",
        "a tensor by its class": glob("torch:FloatTensor") + b"J\xff\xff\xff\x7f\x85R",
        "quantized, of a million millions": _quantized((10**12,), (0,)),
        "nested, of what is elsewhere": _nested(10**6),
        "sparse, of a plain layout": _sparse("torch.strided", b"(" + ints + b"t"),
    }


def _quantized(shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    quantizer = b"(" + glob("torch:per_tensor_affine") + value(0.5) + value(0) + b"t"
    return (
        glob("torch._utils:_rebuild_qtensor")
        + b"("
        + storage_of(kind="torch:QInt8Storage", key="2", count=4)
        + value(0)
        + value(shape)
        + value(stride)
        + quantizer
        + b"\x89"
        + _HOOKS
        + b"tR"
    )


def _nested(start: int) -> bytes:
    def ints(*numbers: int) -> bytes:
        return tensor_of(storage_of(kind="torch:LongStorage", key="1", count=4), shape=(1, 1))

    offsets = tensor_of(
        storage_of(kind="torch:LongStorage", key="3", count=4), shape=(1,), stride=(1,)
    )
    parts = tensor_of() + ints(4) + ints(1) + offsets
    return glob("torch._utils:_rebuild_nested_tensor") + b"(" + parts + b"tR"


def _sparse(layout: str, data: bytes) -> bytes:
    found = glob("torch.serialization:_get_layout") + text(layout) + b"\x85R"
    return glob("torch._utils:_rebuild_sparse_tensor") + b"(" + found + data + b"tR"


def _large() -> Mapping[str, bytes]:
    """Return what may be read, as long as nobody takes the memory that it speaks of."""
    wide = {"shape": (10**12,), "stride": (0,)}
    moved = (
        glob("torch._utils:_rebuild_device_tensor_from_cpu_tensor")
        + b"("
        + tensor_of(**wide)
        + glob("torch:float64")
        + text("cpu")
        + b"\x89tR"
    )
    meta = (
        glob("torch._utils:_rebuild_meta_tensor_no_storage")
        + b"("
        + glob("torch:float32")
        + value((10**9, 10**6))
        + value((10**6, 1))
        + b"\x89tR"
    )
    return {
        "a row expanded a million million times": tensor_of(**wide),
        "an expanded row as another dtype": moved,
        "an expanded row, a thousand million times": tensor_of(shape=(10**9,), stride=(0,)),
        "a wrapper subclass": glob("torch._utils:_rebuild_wrapper_subclass")
        + b"("
        + glob("torch:FloatTensor")
        + glob("torch:float32")
        + value((10**12,))
        + value((1,))
        + value(0)
        + glob("torch.serialization:_get_layout")
        + text("torch.strided")
        + b"\x85R"
        + glob("torch:device")
        + text("cpu")
        + b"\x85R\x89tR",
        "a meta tensor of 4 PB": meta,
        "quantized, a thousand million times": _quantized((10**9,), (0,)),
    }


def tensors(gadgets: Gadgets) -> Iterator[Item]:
    """Yield the claims as a model.pt; the odd ones as an optimizer of a sound model as well."""
    records = {
        "data/0": bytes(16),
        "data/1": b"\xff" * 32,
        "data/2": bytes(4),
        "data/3": b"\1" * 32,
    }
    for title, stream in _claims().items():
        data = zipped(b"}" + text("w") + stream + b"s", records)
        yield Item(title, plain({"model.pt": data}), frozenset())
        yield Item(f"{title}, committed", committed("optimizer.pt", data), frozenset())
    for title, stream in _large().items():
        data = zipped(b"}" + text("w") + stream + b"s", records)
        yield Item(title, plain({"model.pt": data}), frozenset())
        yield Item(f"{title}, committed", committed("optimizer.pt", data), frozenset())
        legacy = b"}" + text("model_state_dict") + b"}" + text("w") + stream + b"ss"
        legacy += text("optimizer_state_dict") + b"}" + text("a") + stream + b"ss"
        old = zipped(legacy, records)
        yield Item(f"{title}, in an old file", plain({**NO_BUNDLE, "latest.pt": old}), frozenset())
    yield from _gpts()
    yield from _devices()
    yield from _indices()


def _gpts() -> Iterator[Item]:
    """Yield models whose embedding has rows that are all one and the same."""
    state = torch.load(io.BytesIO(base()["model.pt"]), weights_only=True)
    width = state["token_embedding_table.weight"].shape[1]
    for rows in (10**8, 10**12):
        wide = torch.zeros(1, width).expand(rows, width)
        changed = {**state, "position_embedding_table.weight": wide}
        data = saved(changed)
        for where in (plain({"model.pt": data, "config.json": None}), committed("model.pt", data)):
            yield Item(f"a context of {rows} positions", where, frozenset())


def _devices() -> Iterator[Item]:
    """Yield states that name devices that are none."""
    for name in ("cuda:99999999999999999999", "bogus", "\x1b[31m", "cpu:-1", "meta:7", "a" * 10**6):
        stream = glob("torch:device") + text(name) + b"\x85R"
        body = b"}" + text("model_state_dict") + b"}" + text("w") + tensor_of() + b"ss"
        body += text("optimizer_state_dict") + b"}" + text("a") + stream + b"ss"
        body += text("config") + b"}" + text("device") + stream + b"ss"
        data = zipped(body, {"data/0": bytes(16)})
        yield Item(
            f"the device {name[:20]!a}", plain({**NO_BUNDLE, "latest.pt": data}), frozenset()
        )
        there = zipped(
            b"}" + text("w") + tensor_of(storage_of(device=name)) + b"s", {"data/0": bytes(16)}
        )
        yield Item(f"a storage on {name[:20]!a}", plain({"model.pt": there}), frozenset())


def _indices() -> Iterator[Item]:
    """Yield sparse tensors whose indices point anywhere."""
    for layout, title in ((torch.sparse_coo, "sparse"), (torch.sparse_csr, "compressed")):
        dense = torch.eye(4)
        tensor = dense.to_sparse() if layout is torch.sparse_coo else dense.to_sparse_csr()
        sound = saved({"w": tensor})
        indices = (
            tensor.coalesce().indices() if layout is torch.sparse_coo else tensor.col_indices()
        )
        raw = bytes(indices.contiguous().untyped_storage())
        assert raw in sound
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(sound)) as old, zipfile.ZipFile(buffer, "w") as new:
            for member in old.namelist():
                data = old.read(member)
                new.writestr(member, b"\xf0" * len(data) if data == raw else data)
        for where in (
            plain({"model.pt": buffer.getvalue()}),
            committed("optimizer.pt", buffer.getvalue()),
        ):
            yield Item(f"{title} indices that point anywhere", where, frozenset())
