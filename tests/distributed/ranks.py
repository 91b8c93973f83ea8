"""Several ranks in one process: what torch.distributed.checkpoint asks of each, in its order.

So that deaths can be tried at every operation without starting processes; `test_processes.py` does
it with real ones.
"""

from __future__ import annotations

import dataclasses
import io
from contextlib import suppress
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

from ckptstore.distributed import StoreWriter


def state(seed: int, rows: int = 8) -> dict[str, Any]:
    """Return a flat state: a model, an optimizer and a state beside them."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 6, generator=generator)
    return {
        "model.w": weight,
        "model.b": torch.randn(3, generator=generator),
        "model.scalar": torch.tensor(float(seed)),
        "model.none": torch.empty(0, 4),
        "optimizer.state.w.exp_avg": weight / 3,
        "optimizer.state.w.step": torch.tensor(float(seed)),
        "optimizer.param_groups.0.lr": seed / 7,
        "optimizer.param_groups.0.params": ["w", "b"],
        "scheduler.last_epoch": seed,
        "epoch": seed,
    }


def paths(flat: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the paths that the names stand for."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in flat:
        keys = name.split(".")
        if keys[:2] == ["optimizer", "state"]:
            keys = [*keys[:3], *keys[3:]]
        found[name] = tuple(int(key) if key.isdecimal() else key for key in keys)
    return found


class Ranks:
    """Ranks that save one state.

    Args:
        flat: the state, by flat names.
        count: of ranks.
        along: the dimension in which tensors of two dimensions are cut.
    """

    def __init__(self, flat: dict[str, Any], count: int, along: int = 0) -> None:
        self.flat = flat
        self.count = count
        self.plans = [
            SavePlan(self._items(rank, along), planner_data=paths(flat)) for rank in range(count)
        ]

    def save(self, location: Any, late: int | None = None, **arguments: Any) -> Any:
        """Save, and return the coordinator's checkpoint; what one rank raises is raised by all.

        Args:
            late: a rank that dies after its write, before anybody hears of it.
        """
        writers = [StoreWriter(location, **arguments) for _ in range(self.count)]
        try:
            handed = self.begin(writers)
            results = []
            for rank, (writer, plan) in enumerate(zip(writers, handed, strict=True)):
                results.append(writer.write_data(plan, self).value())
                if rank == late:
                    raise ConnectionResetError("connection closed by peer")
            writers[0].finish(self.metadata(), results)
        except Exception as error:
            told = error
            if not isinstance(error, ConnectionResetError):
                told = CheckpointException("write", {0: (error, None)})
            for writer in writers:
                writer.failed(told)
            raise
        return writers[0].checkpoint

    def begin(self, writers: list[StoreWriter]) -> list[SavePlan]:
        """Do all up to the moment when ranks begin to write."""
        for rank, writer in enumerate(writers):
            writer.set_up_storage_writer(rank == 0, rank=rank, use_collectives=True)
        plans = [w.prepare_local_plan(plan) for w, plan in zip(writers, self.plans, strict=True)]
        return writers[0].prepare_global_plan(plans)

    def metadata(self) -> Any:
        """Return what the coordinator's planner makes of all plans."""
        metadata = create_default_global_save_plan(self.plans)[1]
        return dataclasses.replace(metadata, planner_data=paths(self.flat))

    def resolve_data(self, item: WriteItem) -> Any:
        """Return what is to be written of an item, as a planner does."""
        value = self.flat[item.index.fqn]
        if item.type is WriteItemType.BYTE_IO:
            buffer = io.BytesIO()
            torch.save(value, buffer)
            return buffer
        chunk = item.tensor_data.chunk
        for dimension, (start, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
            value = value.narrow(dimension, start, size)
        return value.contiguous()

    def _items(self, rank: int, along: int) -> list[WriteItem]:
        items = []
        for number, (name, value) in enumerate(self.flat.items()):
            if not isinstance(value, torch.Tensor):
                if number % self.count == rank:
                    items.append(WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO))
                continue
            cut = value.dim() == 2
            if not cut and number % self.count != rank:
                continue
            offsets, sizes = [0] * value.dim(), list(value.shape)
            if cut:
                size = -(-value.shape[along] // self.count)
                offsets[along] = min(rank * size, value.shape[along])
                sizes[along] = min(size, value.shape[along] - offsets[along])
            items.append(_shard(name, value, torch.Size(offsets), torch.Size(sizes)))
        return items


def _shard(name: str, value: torch.Tensor, offsets: torch.Size, sizes: torch.Size) -> WriteItem:
    return WriteItem(
        MetadataIndex(name, offsets),
        WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            ChunkStorageMetadata(offsets, sizes), TensorProperties(value.dtype), value.shape
        ),
    )


def holds(checkpoint: Any, flat: dict[str, Any]) -> bool:
    """Whether a checkpoint is exactly this state, all of it."""
    model = checkpoint.load_model()
    optimizer = checkpoint.load_optimizer()
    tensors = {f"model.{name}": value for name, value in model.items()}
    tensors |= {
        f"optimizer.state.w.{name}": value for name, value in optimizer["state"]["w"].items()
    }
    with suppress(KeyError):
        return (
            all(torch.equal(value, flat[name]) for name, value in tensors.items())
            and {*tensors} == {name for name, one in flat.items() if isinstance(one, torch.Tensor)}
            and optimizer["param_groups"]
            == [
                {
                    "lr": flat["optimizer.param_groups.0.lr"],
                    "params": flat["optimizer.param_groups.0.params"],
                }
            ]
            and checkpoint.load_state("scheduler") == {"last_epoch": flat["scheduler.last_epoch"]}
            and checkpoint.load_state("epoch") == flat["epoch"]
        )
    return False
