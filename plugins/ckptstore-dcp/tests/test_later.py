"""Folders larger than memory: chunks of any cut go into a bundle little by little (G6)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise, product

import pytest
import torch

import ckptstore
from ckptstore import plugins, tensors
from ckptstore.later import Later
from ckptstore.storage.base import Sink

WIDE = torch.arange(7.0 * 12 * 5).reshape(7, 12, 5)


class Kept(Sink):
    def __init__(self):
        self.data = bytearray()

    def write(self, data, /):
        self.data += memoryview(data).cast("B")


def saved(state):
    sink = Kept()
    tensors.checked(state).save(sink)
    return bytes(sink.data)


def cut(tensor, *cuts):
    sides = [pairwise((0, *cut, size)) for cut, size in zip(cuts, tensor.shape, strict=True)]
    for box in product(*sides):
        part = tensor[tuple(slice(*side) for side in box)].clone()
        yield tuple(start for start, _ in box), part


def reader_of(folder):
    return ckptstore.open(folder).reader


@pytest.mark.parametrize(
    "cuts",
    [((), (), ()), ((3,), (), ()), ((), (5, 6), ()), ((2, 5), (4,), (1, 3)), ((1, 2), (), (2,))],
    ids=["whole", "rows", "columns", "boxes", "rows and depth"],
)
def test_chunks_of_any_cut_are_written_as_what_they_load(tmp_path, crafted, cuts):
    chunks = list(cut(WIDE, *cuts))
    half = WIDE.bfloat16()
    parts = {"model.w": (WIDE.shape, chunks), "model.h": (WIDE.shape, list(cut(half, *cuts)))}
    reader = reader_of(crafted(tmp_path / "folder", parts))

    found = reader.model_later()

    assert all(isinstance(tensor, Later) for tensor in found.values())
    assert saved(found) == saved(reader.load_model())
    assert tensors.alike(found, {"w": WIDE, "h": half})


def test_a_training_is_read_later_as_it_loads(folder):
    reader = reader_of(folder)

    assert saved(reader.optimizer_later()) == saved(reader.load_optimizer())
    for name in reader.states():
        assert saved(reader.state_later(name)) == saved(reader.load_state(name))


def test_a_chunk_that_lies_in_another_order_is_loaded(tmp_path, crafted):
    turned = WIDE[0].t().contiguous().t()
    folder = crafted(tmp_path / "folder", {"model.w": (turned.shape, [((0, 0), turned)])})

    found = reader_of(folder).model_later()

    assert isinstance(found["w"], torch.Tensor)
    assert torch.equal(found["w"], WIDE[0])


def test_damage_in_the_middle_commits_nothing(tmp_path, crafted):
    large = torch.rand(64, 100)
    parts = {"model.w": ((64, 100), list(cut(large, (20, 40), ())))}
    folder = crafted(tmp_path / "folder", parts)
    file = folder / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[data.index(large[30].numpy().tobytes()) + 9] ^= 1
    file.write_bytes(data)

    with pytest.raises(ckptstore.CorruptionError, match="'model.w' in __0_0.distcp is damaged"):
        ckptstore.convert(folder, tmp_path / "new")

    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(tmp_path / "new")


@pytest.mark.parametrize(("kind", "files"), [("tensors", 1), ("fsdp", 2)])
def test_what_two_processes_saved_gives_the_bundle_that_loading_gives(
    two_ranks, tmp_path, monkeypatch, kind, files
):
    ckptstore.convert(two_ranks / kind, tmp_path / "later")
    monkeypatch.setattr(type(plugins.format_named("bundle")), "takes_later", False)
    ckptstore.convert(two_ranks / kind, tmp_path / "loaded")

    for name in ("model.pt", "optimizer.pt")[:files]:
        one, other = (tmp_path / which / name for which in ("later", "loaded"))
        assert one.read_bytes() == other.read_bytes()


GROWN = """
import re, sys, torch, ckptstore
from pathlib import Path

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

torch.set_num_threads(1)
small, large, to = sys.argv[1:]
ckptstore.convert(small, to + "-small")
Path("/proc/self/clear_refs").write_text("5")
before = peak()
ckptstore.convert(large, to + "-large")
print(peak() - before)
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc to measure memory"
)
def test_a_model_larger_than_the_budget_is_converted_within_it(tmp_path, crafted):
    large = torch.rand(48 * 2**10, 1024)  # 192 MiB, of which each process had some columns.
    parts = {"model.w": (large.shape, list(cut(large, (), (300, 600))))}
    crafted(tmp_path / "large", parts)
    crafted(tmp_path / "small", {"model.w": ((7, 12, 5), [((0, 0, 0), WIDE)])})

    done = subprocess.run(
        [
            *(sys.executable, "-c", GROWN),
            *(str(tmp_path / name) for name in ("small", "large", "to")),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\n", done.stdout)
    assert int(done.stdout) <= 128
    assert torch.equal(ckptstore.open(tmp_path / "to-large").load_model()["w"], large)
