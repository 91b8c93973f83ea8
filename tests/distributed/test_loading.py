"""Loads of sharded states: one state for all ranks, little read, and all of it proved."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

import ckptstore
from ckptstore.distributed import StoreReader, StoreWriter, load_sharded, save_sharded
from ckptstore.errors import (
    CorruptionError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.testing import Nothing, inject


@pytest.fixture(autouse=True)
def _alone():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


class Wanting:
    """A planner that wants one box of the model's only matrix."""

    def __init__(self, offsets, sizes, dtype=torch.float32):
        self.target = torch.zeros(sizes, dtype=dtype)
        self.offsets, self.sizes = offsets, sizes
        self.committed = 0

    def plan(self, rows):
        """Return what torch plans for a matrix that was cut by rows."""
        items = []
        for first in range(0, 64, rows):
            low = max(first, self.offsets[0])
            high = min(first + rows, self.offsets[0] + self.sizes[0])
            if low < high:
                items.append(
                    ReadItem(
                        LoadItemType.TENSOR,
                        MetadataIndex("model.w", torch.Size([low, 0])),
                        torch.Size([low - self.offsets[0], 0]),
                        MetadataIndex("model.w", torch.Size([first, 0])),
                        torch.Size([low - first, self.offsets[1]]),
                        torch.Size([high - low, self.sizes[1]]),
                    )
                )
        return LoadPlan(items)

    def resolve_tensor(self, item):
        start, count = item.dest_offsets[0], item.lengths[0]
        return self.target[start : start + count]

    def commit_tensor(self, item, tensor):
        self.committed += 1


@pytest.fixture
def large(tmp_path, ranks):
    """A matrix of 64 rows of 1 MiB, saved by four ranks."""
    weight = torch.arange(64 * 2**18, dtype=torch.float32).reshape(64, 2**18)
    ranks.Ranks({"model.w": weight}, 4).save(tmp_path / "large")
    return tmp_path / "large", weight


def read(place, offsets, sizes, dtype=torch.float32, cut=16):
    planner = Wanting(offsets, sizes, dtype)
    with inject(Nothing()) as seen:
        reader = StoreReader(place)
        reader.read_data(planner.plan(cut), planner).wait()
    return planner, [operation.path for operation in seen.operations if operation.name == "open"]


@pytest.mark.parametrize(
    ("offsets", "sizes"),
    [
        pytest.param((0, 0), (16, 2**18), id="a chunk"),
        pytest.param((10, 0), (20, 2**18), id="rows of two chunks"),
        pytest.param((3, 70_000), (40, 50_000), id="columns"),
        pytest.param((63, 2**18 - 1), (1, 1), id="the last number"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rank_gets_the_box_that_it_needs(large, offsets, sizes, dtype):
    place, weight = large

    planner, _ = read(place, offsets, sizes, dtype)

    (row, column), (rows, columns) = offsets, sizes
    expected = weight[row : row + rows, column : column + columns]
    assert torch.equal(planner.target, expected.to(dtype))
    assert planner.committed == len(planner.plan(16).items)


def test_a_rank_opens_only_the_files_that_its_boxes_are_in(large):
    place, _ = large

    _, opened = read(place, (20, 0), (20, 2**18))

    assert sorted(path.split("/")[-1][:20] for path in opened) == [
        "model-00001-of-00004",
        "model-00002-of-00004",
    ]


def test_damage_is_found_by_the_rank_that_reads_it_and_by_no_other(tmp_path, ranks):
    weight = torch.arange(64 * 2**18, dtype=torch.float32).reshape(64, 2**18)
    ranks.Ranks({"model.w": weight}, 2).save(tmp_path / "large")
    (file,) = tmp_path.rglob("model-00001-of-00002.*.pt")
    data = bytearray(file.read_bytes())
    data[12 * 2**20] ^= 1  # Row 44 lies there, in the second chunk of 8 MiB.
    file.write_bytes(data)

    planner, _ = read(tmp_path / "large", (32, 0), (4, 2**18), cut=32)
    assert torch.equal(planner.target, weight[32:36])
    with pytest.raises(CorruptionError, match="chunk 1 is xxh3"):
        read(tmp_path / "large", (42, 0), (4, 2**18), cut=32)


def test_parts_of_tensors_are_read_in_bounded_memory(tmp_path, ranks):
    weight = torch.arange(2**18, dtype=torch.float32).reshape(8, 4, 2**13)
    flat = {"model.w": weight.reshape(8, -1)}
    ranks.Ranks(flat, 3, 1).save(tmp_path / "one")

    later = ckptstore.open(tmp_path / "one").reader.model_later()["w"]

    for _ in range(2):
        pieces = [bytes(piece) for piece in later.pieces()]
        assert b"".join(pieces) == weight.numpy().tobytes()


def test_pieces_are_small_however_long_a_row_is(tmp_path, ranks, monkeypatch):
    from ckptstore.formats import shardreading
    from ckptstore.tensors import boxes

    monkeypatch.setattr(shardreading, "_MOST_PIECE", 1000)
    monkeypatch.setattr(boxes, "_MOST_BUFFER", 1000)
    flat = {"model.w": torch.arange(5_000.0).reshape(5, 1000)}
    ranks.Ranks(flat, 3, 1).save(tmp_path / "one")
    reader = ckptstore.open(tmp_path / "one").reader

    pieces = [bytes(piece) for piece in reader.model_later()["w"].pieces()]

    assert max(map(len, pieces)) <= 1000
    assert b"".join(pieces) == flat["model.w"].numpy().tobytes()
    assert torch.equal(reader.load_model()["w"], flat["model.w"])


def test_ranks_that_opened_different_states_load_nothing(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "one")
    early = StoreReader(tmp_path / "one")
    ranks.Ranks(ranks.state(2), 2).save(tmp_path / "one")
    late = StoreReader(tmp_path / "one")

    plans = [reader.prepare_local_plan(LoadPlan([])) for reader in (early, late)]

    with pytest.raises(SupersededError, match="they would load different states"):
        early.prepare_global_plan(plans)


def test_another_format_is_refused_with_what_to_do(tmp_path):
    ckptstore.save(tmp_path / "one", model={"w": torch.zeros(2)})

    with pytest.raises(UnsupportedError, match="--to sharded"):
        StoreReader(tmp_path / "one")


def test_a_step_that_is_not_there_is_named(tmp_path, ranks):
    ranks.Ranks(ranks.state(1), 2).save(tmp_path / "run", step=1, keep=ckptstore.Keep(last=2))

    with pytest.raises(NotFoundError, match="committed steps: 1"):
        StoreReader(tmp_path / "run", step=2)


def trained(seed=0, width=4):
    torch.manual_seed(seed)
    model = nn.Linear(3, width)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_names_and_shapes_that_differ_are_told(tmp_path):
    model, optimizer = trained()
    save_sharded(tmp_path / "one", model=model)

    with pytest.raises(UnsupportedError, match="Missing key in checkpoint"):
        load_sharded(tmp_path / "one", model=nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(UnsupportedError, match="Size mismatch"):
        load_sharded(tmp_path / "one", model=nn.Linear(3, 5))
    with pytest.raises(NotFoundError, match="has no optimizer; load without optimizer="):
        load_sharded(tmp_path / "one", model=model, optimizer=optimizer)


def test_a_state_beside_them_may_not_take_their_names(tmp_path):
    with pytest.raises(UnsupportedError, match="a state cannot be called 'model'"):
        save_sharded(tmp_path / "one", model=trained()[0], state={"model": {"a": 1}})


def test_an_object_that_holds_both_is_loaded_as_it_was_saved(tmp_path):
    model, optimizer = trained()
    state = {"app": {"model": model.state_dict(), "optim": optimizer.state_dict()}, "epoch": 4}
    dcp.save(state, storage_writer=StoreWriter(tmp_path / "one", step=2))

    checkpoint = ckptstore.open(tmp_path / "one")
    again, fresh = trained(1)
    load_sharded(tmp_path / "one", model=again)

    assert torch.equal(again.weight, model.weight)
    assert {*checkpoint.load_model()} == {"weight", "bias"}
    fresh.load_state_dict(checkpoint.load_optimizer())  # By numbers, as it was saved.
    assert torch.equal(
        fresh.state[again.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"]
    )
    assert checkpoint.load_state("epoch") == 4


def test_tensors_at_the_top_are_the_model(tmp_path):
    model, _ = trained()
    dcp.save({**model.state_dict(), "epoch": 4}, storage_writer=StoreWriter(tmp_path / "one"))

    again, _ = trained(1)
    checkpoint = load_sharded(tmp_path / "one", model=again)

    assert torch.equal(again.weight, model.weight)
    assert (checkpoint.states(), checkpoint.load_state("epoch")) == (("epoch",), 4)


def test_two_models_are_two_states(tmp_path):
    one, two = trained()[0].state_dict(), trained(1)[0].state_dict()
    state = {"generator": {"model": one}, "critic": {"model": two}}
    dcp.save(state, storage_writer=StoreWriter(tmp_path / "one"))

    checkpoint = ckptstore.open(tmp_path / "one")

    assert checkpoint.tensors() == {}
    assert {*checkpoint.states()} == {"generator", "critic"}
    found = checkpoint.load_state("critic")["model"]
    assert torch.equal(found["weight"], two["weight"])


def test_an_optimizer_by_numbers_comes_back_by_numbers(tmp_path):
    _, optimizer = trained()
    state = {"model": {"w": torch.zeros(2)}, "optimizer": optimizer.state_dict()}
    dcp.save(state, storage_writer=StoreWriter(tmp_path / "one"))

    assert {*ckptstore.open(tmp_path / "one").load_optimizer()["state"]} == {0, 1}


def test_what_a_rank_finds_damaged_is_raised_as_it_is(tmp_path):
    model, _ = trained()
    save_sharded(tmp_path / "one", model=model)
    (file,) = tmp_path.rglob("model-*.pt")
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(CorruptionError, match="is damaged"):
        load_sharded(tmp_path / "one", model=model)
    with pytest.raises(CheckpointException, match="is damaged"):
        dcp.load({"model": model.state_dict()}, storage_reader=StoreReader(tmp_path / "one"))
