"""Fabric, several processes, and the other name of Lightning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ckptstore_lightning import StoreCheckpointIO
from lightning.fabric import Fabric

import ckptstore

HERE = Path(__file__).parent


def fabric(**options: object) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, plugins=[StoreCheckpointIO(**options)])


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 2)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fabric_saves_and_loads_through_the_store(folder, asynchronous):
    runner = fabric(asynchronous=asynchronous)
    torch.manual_seed(3)
    model, optimizer = runner.setup(
        net := torch.nn.Linear(2, 2), torch.optim.AdamW(net.parameters())
    )
    step(model, optimizer)
    runner.save(f"{folder}/a", {"model": model, "optimizer": optimizer, "step": 1, "sizes": (1, 2)})
    step(model, optimizer)

    again = fabric()
    other, its_optimizer = again.setup(
        net := torch.nn.Linear(2, 2), torch.optim.AdamW(net.parameters())
    )
    runner.strategy.checkpoint_io.teardown()
    state = {"model": other, "optimizer": its_optimizer, "step": 0}
    rest = again.load(f"{folder}/a", state)
    step(other, its_optimizer)

    assert (rest, state["step"]) == ({"sizes": (1, 2)}, 1)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    checkpoint = ckptstore.open(f"{folder}/a")
    assert (checkpoint.step, checkpoint.has_optimizer) == (1, True)
    assert set(checkpoint.tensors()) == {"weight", "bias"}


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *arguments],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_of_two_processes_the_first_writes_and_both_go_on(tmp_path, names):
    run("two_processes.py", str(tmp_path))

    assert names(str(tmp_path / "run")) == ["epoch=1.ckpt", "last.ckpt"]
    assert ckptstore.open(tmp_path / "run" / "last.ckpt").step == 4


def test_a_program_that_knows_lightning_as_pytorch_lightning_takes_it(tmp_path):
    pytest.importorskip("pytorch_lightning")

    assert run("other_name.py", str(tmp_path)) == "pytorch_lightning True\n"
    assert ckptstore.open(tmp_path / "epoch=0.ckpt").step == 2
