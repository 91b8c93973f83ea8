"""Tensors that are read when they are written give the bytes that the loaded ones give (G6)."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import pytest
import torch

from ckptstore import CorruptionError, UnsafeError, tensors
from ckptstore.later import Later, Opened
from ckptstore.storage.base import Sink
from ckptstore.testing import MemoryFiles

TABLE = torch.arange(60.0).reshape(12, 5)
BYTES = torch.arange(64, dtype=torch.uint8)
DTYPES = ["bfloat16", "float8_e4m3fn", "complex64", "complex128", "uint16", "float16", "int8"]
READ_LATER = {
    "plain": {"a": TABLE, "b": torch.tensor(3), "mask": torch.tensor([True, False])},
    "one tensor twice": {"a": TABLE, "b": TABLE},
    "tied": {"a": TABLE, "b": TABLE.detach()},
    "turned": {"a": TABLE.t(), "b": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    "parts of one": {"a": TABLE[:6], "b": TABLE[6:]},
    "rows": {"a": TABLE[2:4], "b": TABLE[7]},
    "overlapping": {"a": TABLE.view(-1)[:30], "b": TABLE.view(-1)[20:45]},
    "one row": {"a": torch.rand(1, 3).as_strided((1, 3), (7, 1))},
    "parameters": {"a": torch.nn.Parameter(TABLE), "b": TABLE.clone().requires_grad_()},
    "nested": {"state": {0: {"m": TABLE}}, "groups": [{"betas": (0.9, 0.99)}], "of": torch.int8},
    **{
        name: {"a": torch.arange(64, dtype=torch.uint8).view(getattr(torch, name))}
        for name in DTYPES
    },
}
LOADED = {
    "empty": {"a": torch.empty(0, 3), "b": torch.empty(0)},
    "columns": {"a": TABLE[:, 1]},
    "expanded": {"a": torch.ones(1).expand(50)},
    "nothing of something": {"a": TABLE[:0], "b": TABLE},
}


class Kept(Sink):
    def __init__(self):
        self.data = bytearray()

    def write(self, data, /):
        self.data += memoryview(data).cast("B")


def saved(state):
    sink = Kept()
    tensors.checked(state).save(sink)
    return bytes(sink.data)


def by_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def later(data, **options):
    files = MemoryFiles({"one.pt": data})
    return tensors.later(partial(files.open, "one.pt"), where="one.pt", **options)


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [value] if isinstance(value, (torch.Tensor, Later)) else []


@pytest.mark.parametrize("proved", [True, False])
@pytest.mark.parametrize("write", [saved, by_torch])
@pytest.mark.parametrize("state", (READ_LATER | LOADED).values(), ids=READ_LATER | LOADED)
def test_what_is_read_later_is_written_as_what_is_loaded(state, write, proved):
    data = write(state)
    loaded = tensors.load(io.BytesIO(data), proved=proved, where="one.pt")

    found = later(data, proved=proved)

    assert saved(found) == saved(loaded)
    assert saved(tensors.loaded(found)) == saved(loaded)
    assert tensors.alike(found, loaded)
    assert tensors.alike(tensors.imprint(found), tensors.imprint(loaded))


@pytest.mark.parametrize("state", READ_LATER.values(), ids=READ_LATER)
def test_dense_tensors_are_not_read_at_once(state):
    assert all(isinstance(leaf, Later) for leaf in leaves(later(saved(state))))


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_what_torch_has_to_read_is_left_to_load(tensor):
    assert later(by_torch({"a": tensor, "b": TABLE})) is None


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_tensors_are_left_to_load():
    tensor = torch.quantize_per_tensor(TABLE, 0.1, 0, torch.qint8)

    assert later(by_torch({"a": tensor, "b": TABLE})) is None


def test_beside_what_torch_has_to_write_all_is_loaded():
    sparse = torch.eye(3).to_sparse()
    found = later(saved({"a": TABLE}))

    assert saved({**found, "b": sparse}) == saved({"a": TABLE.clone(), "b": sparse})


def test_one_bit_makes_a_difference():
    turned = TABLE.clone()
    turned[11, 4] += 1
    one, two = later(saved({"a": TABLE}))["a"], later(saved({"a": turned}))["a"]

    assert not tensors.alike(one, two)
    assert not tensors.alike(one, turned)
    assert not tensors.alike(later(saved({"a": TABLE.to(torch.int32).float()}))["a"], TABLE.int())
    assert tensors.alike(two, turned)


def test_damage_is_told_at_the_end_of_a_record():
    data = bytearray(saved({"a": TABLE}))
    data[data.index(TABLE.numpy().tobytes()) + 100] ^= 1

    found = later(bytes(data))

    with pytest.raises(CorruptionError, match="one.pt is damaged: its record 'data/0' has the CRC"):
        saved(found)


def test_a_part_is_read_only_of_a_record_that_was_proved():
    data = bytearray(by_torch({"a": TABLE[2]}))
    data[data.index(TABLE.numpy().tobytes())] ^= 1  # In the part that nobody asks for.

    with pytest.raises(CorruptionError, match="one.pt is damaged: its record 'data/0' has the CRC"):
        next(later(bytes(data))["a"].pieces())


def test_what_would_run_code_is_refused():
    data = by_torch({"a": TABLE, "b": io.BytesIO})

    with pytest.raises(UnsafeError, match="one.pt holds more than tensors"):
        later(data)


def test_a_shape_that_there_cannot_be_is_damage():
    def stretched(root):
        return {"a": replace(root["a"], shape=(2**62, 2**62, 0), stride=(1, 1, 1))}

    with pytest.raises(CorruptionError, match="it holds a tensor of shape .*, which there cannot"):
        later(by_torch({"a": torch.empty(0, 3)}), part=stretched)


def test_a_file_that_became_shorter_is_told():
    files = MemoryFiles({"one.pt": saved({"a": torch.rand(10_000)})})
    found = tensors.later(partial(files.open, "one.pt"), where="one.pt")
    files.data["one.pt"] = files.data["one.pt"][:20_000]

    with pytest.raises(CorruptionError, match="one.pt is truncated: it ends at byte"):
        saved(found)


def test_one_file_of_several_is_open_at_a_time():
    files = MemoryFiles({name: saved({"a": TABLE + n}) for n, name in enumerate(("x.pt", "y.pt"))})
    handles = []

    def opener(name):
        def open_it():
            handles.append(files.open(name))
            return handles[-1]

        return open_it

    opened = Opened()
    x, y = (tensors.later(opener(n), opened=opened, where=n)["a"] for n in ("x.pt", "y.pt"))
    handles.clear()

    for one, add in ((x, 0), (x, 0), (y, 1), (x, 0)):
        assert tensors.alike(one, TABLE + add)

    assert [handle.closed for handle in handles] == [True, True, False]
    opened.close()
    assert handles[-1].closed
