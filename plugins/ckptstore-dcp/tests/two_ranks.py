"""Run by torchrun as two processes: saves sharded tensors, and beside them what they are whole."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def tensors(mesh):
    """Return tensors cut in every way that two processes can cut them."""
    torch.manual_seed(3)
    whole = {
        "rows": torch.randn(6, 4),
        "uneven": torch.randn(7, 3),
        "one row": torch.randn(1, 3),
        "columns": torch.randn(4, 6),
        "both": torch.randn(4, 6).to(torch.bfloat16),
        "copies": torch.arange(5),
        "large": torch.randn(1024, 1024),
        "large columns": torch.randn(512, 1024).to(torch.float16),
    }
    cuts = {name: [Shard(0)] for name in whole}
    cuts |= {"columns": [Shard(1)], "copies": [Replicate()], "large columns": [Shard(1)]}
    cut = {name: distribute_tensor(one, mesh, cuts[name]) for name, one in whole.items()}
    return whole, cut


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    whole, cut = tensors(mesh)
    dcp.save({"model": cut, "step": 7}, checkpoint_id=folder / "tensors")

    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"app": {"model": weights, "optim": moments}}, checkpoint_id=folder / "fsdp")

    full = {name: one.full_tensor() for name, one in weights.items()}
    slots = {
        name: {
            slot: one.full_tensor() if hasattr(one, "full_tensor") else one
            for slot, one in state.items()
        }
        for name, state in moments["state"].items()
    }
    if dist.get_rank() == 0:
        torch.save({"tensors": whole, "model": full, "slots": slots}, folder / "whole.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
