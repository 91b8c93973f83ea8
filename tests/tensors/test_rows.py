"""A tensor that lies in boxes is put together row by row, whatever its cuts."""

from __future__ import annotations

import random
from itertools import pairwise, product

import pytest
import torch

from ckptstore import tensors
from ckptstore.tensors import rows


class Reads:
    """A box of a tensor that knows how it was read."""

    def __init__(self, tensor, box):
        self.data = tensors.bytes_of(tensor[box].contiguous())
        self.at = 0

    def __call__(self, start, memory):
        assert start == self.at, "a box is read from its beginning to its end"
        memory[:] = self.data[start : start + len(memory)]
        self.at += len(memory)


def boxes(tensor, cuts):
    found = []
    for sides in product(*map(pairwise, cuts)):
        box = tuple(slice(*side) for side in sides)
        sizes = tuple(stop - start for start, stop in sides)
        found.append(tensors.Boxed(tuple(s for s, _ in sides), sizes, Reads(tensor, box)))
    return found


def cuts_of(shape, rng):
    return [
        sorted({0, size, *(rng.randrange(size + 1) for _ in range(rng.randrange(3)))})
        for size in shape
    ]


@pytest.mark.parametrize("most", [1, 7, 64, 1000, 2**20])
@pytest.mark.parametrize("shape", [(), (1,), (40,), (9, 8), (5, 1, 7), (3, 4, 2, 5), (1, 30)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.complex64])
def test_boxes_of_any_cuts_give_the_rows(shape, dtype, most, monkeypatch):
    monkeypatch.setattr(rows, "_PIECE", most)
    rng = random.Random(f"{shape}{dtype}{most}")
    count = torch.tensor(shape).prod().item() if shape else 1
    data = torch.randint(0, 255, (count * dtype.itemsize,), dtype=torch.uint8)
    tensor = data.view(dtype).reshape(shape)
    found = boxes(tensor, cuts_of(shape, rng))
    rng.shuffle(found)

    pieces = list(map(bytes, tensors.rows_of_boxes(str(dtype)[6:], shape, found)))

    assert b"".join(pieces) == bytes(data.tolist())
    assert max(map(len, pieces)) <= max(most, dtype.itemsize)
    assert all(box.read.at == len(box.read.data) for box in found)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_a_tensor_without_elements_has_no_rows(shape):
    assert list(tensors.rows_of_boxes("float32", shape, [])) == []
