"""What each rank of `test_processes.py` does, under torchrun, on CPUs over gloo."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import ckptstore
from ckptstore import Keep
from ckptstore.distributed import StoreReader, StoreWriter, load_sharded, save_sharded
from ckptstore.errors import NotFoundError, StorageError


class Application:
    """A model and its optimizer as one object, as torch's own tutorial has it."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": get_model_state_dict(self.model),
            "optim": get_optimizer_state_dict(self.model, self.optimizer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state


def made(seed: int, *, sharded: bool = True, steps: int = 1) -> tuple[Any, Any]:
    """Return a model in shards and its optimizer, some steps trained; the same on every rank."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False))
    if sharded:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (model[0], model[2], model):
            fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01 + seed / 1000)
    for number in range(steps):
        torch.manual_seed(number)
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def whole(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return all tensors of a model and its optimizer, put together."""
    found = dict(get_model_state_dict(model))
    for name, slots in get_optimizer_state_dict(model, optimizer)["state"].items():
        found |= {f"{name}.{slot}": value for slot, value in slots.items()}
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in found.items()
    }


def save(folder: Path, servers: dict[str, Any]) -> None:
    """Save one state everywhere, and what only goes with several processes."""
    rank = dist.get_rank()
    model, optimizer = made(1)
    expected = whole(model, optimizer)
    if rank == 0:
        torch.save(expected, folder / "expected.pt")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7)
    places = {"disk": (str(folder / "disk"), None), **{k: tuple(v) for k, v in servers.items()}}
    for url, options in places.values():
        saved = save_sharded(
            url,
            model=model,
            optimizer=optimizer,
            step=3,
            config={"n": 6},
            state={"scheduler": scheduler},
            storage_options=options,
        )
        assert (saved is not None) == (rank == 0)

    with StoreWriter(folder / "dcp", step=1, keep=Keep(last=2)) as writer:
        dcp.save({"app": Application(model, optimizer), "epoch": 2}, storage_writer=writer)
    later = dcp.async_save(
        {"app": Application(model, optimizer), "epoch": 3},
        storage_writer=StoreWriter(folder / "dcp", step=2, keep=Keep(last=2)),
    )
    later.result()

    grid = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    square = torch.arange(42.0).reshape(7, 6)
    cut = distribute_tensor(square, grid, [Shard(0), Shard(1)])
    with StoreWriter(folder / "grid") as writer:
        dcp.save({"model": {"square": cut}}, storage_writer=writer)
    if rank == 0:
        loaded = ckptstore.open(folder / "grid").load_model()["square"]
        assert torch.equal(loaded, square)

    # An error of one rank: it is told on all, nothing is committed, and nobody leaves a file.
    told = ""
    try:
        with StoreWriter(folder / "wrong") as writer:
            dcp.save({"model": {"w": cut}, "other": Path("x")}, storage_writer=writer)
    except dcp.CheckpointException as error:
        told = str(error)
    assert "the value 'other' holds more than tensors" in told
    dist.barrier()
    assert not [*folder.glob("wrong/**/*.pt")]


def load(folder: Path, servers: dict[str, Any]) -> None:
    """Load in another number of processes what `save` has saved."""
    expected = torch.load(folder / "expected.pt", weights_only=True)
    places = {"disk": (str(folder / "disk"), None), **{k: tuple(v) for k, v in servers.items()}}
    for url, options in places.values():
        model, optimizer = made(2)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        checkpoint = load_sharded(
            url,
            model=model,
            optimizer=optimizer,
            state={"scheduler": scheduler},
            storage_options=options,
        )
        found = whole(model, optimizer)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert optimizer.param_groups[0]["lr"] == 0.011
        assert scheduler.step_size == 7
        assert (checkpoint.step, checkpoint.config) == (3, {"n": 6})

    model, optimizer = made(2)
    app = Application(model, optimizer)
    state = {"app": app, "epoch": 0}
    dcp.load(state, storage_reader=StoreReader(folder / "dcp", step=1))
    assert state["epoch"] == 2
    square = torch.zeros(7, 6)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    cut = distribute_tensor(square, mesh, [Shard(1)])
    dcp.load({"model": {"square": cut}}, storage_reader=StoreReader(folder / "grid"))
    assert torch.equal(cut.full_tensor(), torch.arange(42.0).reshape(7, 6))

    # What one rank cannot open, nobody waits for.
    told = None
    try:
        load_sharded(folder / ("nothing" if dist.get_rank() else "disk"), model=model)
    except NotFoundError as error:
        told = error
    assert told is not None

    # The optimizer goes on as it would have.
    on, on_optimizer = made(2, steps=0)
    load_sharded(folder / "disk", model=on, optimizer=on_optimizer)
    torch.manual_seed(1)
    on(torch.randn(4, 6)).square().sum().backward()
    on_optimizer.step()
    if dist.get_rank() == 0:
        assert int(on_optimizer.state[next(iter(on.parameters()))]["step"]) == 2


def die(folder: Path, servers: dict[str, Any]) -> None:
    """Save once, and save again with a rank that is killed where `when` says."""
    rank, (who, when) = dist.get_rank(), os.environ["WHO_DIES"].split()
    url, options = servers.get("moto", [str(folder / f"{who}-{when}"), None])
    if "moto" in servers:
        url = f"{url}/{who}-{when}"
    model, optimizer = made(1)
    save_sharded(url, model=model, optimizer=optimizer, step=1, storage_options=options)
    model, optimizer = made(2)
    if rank == int(who):
        _die_at(when)
    try:
        save_sharded(url, model=model, optimizer=optimizer, step=2, storage_options=options)
    except StorageError as error:
        raise SystemExit(f"rank {rank} was told: {error.committed}") from error


def _die_at(when: str) -> None:
    from ckptstore.commit.attempt import Attempt
    from ckptstore.commit.joint import Share

    of, name, before = {
        "before-write": (Share, "create", True),
        "after-write": (Share, "entries", False),
        "before-manifest": (Attempt, "commit", True),
        "after-manifest": (Attempt, "commit", False),
    }[when]
    real = getattr(of, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if not before:
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(of, name, dying)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    what, folder, servers = sys.argv[1:]
    {"save": save, "load": load, "die": die}[what](Path(folder), json.loads(servers))
    dist.destroy_process_group()
