"""What the tests of the command line share: ways to run it, and checkpoints to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

CONFIG = {"block_size": 16, "n_embd": 8, "n_head": 2, "n_layer": 1, "dropout": 0.2, "bias": False}

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[str]"]
Save = Callable[..., None]


@pytest.fixture
def run() -> Run:
    """Give a function that runs the command line in this process."""
    from ckptstore.cli import main

    def run(*arguments: object, **options: Any) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], **options)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Give a function that runs ``python -m ckptstore`` as a process of its own."""

    def shell(
        *arguments: object, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ckptstore", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            **options,
        )

    return shell


def weights(seed: int = 0) -> dict[str, Any]:
    """Return the state dict of a model of 6 parameters."""
    import torch

    values = torch.arange(6, dtype=torch.float32) + seed
    return {"embedding.weight": values[:4].reshape(2, 2).clone(), "head.bias": values[4:].clone()}


def optimizer_state(seed: int = 0) -> dict[str, Any]:
    """Return the state dict of an optimizer that has taken a step over `weights`."""
    import torch

    parameters = [torch.nn.Parameter(tensor) for tensor in weights(seed).values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return dict(optimizer.state_dict())


@pytest.fixture
def save() -> Save:
    """Give a function that saves a small checkpoint: ``save(location, step=3, config={...})``."""

    def save(location: object, *, step: int | None = 100, **changes: Any) -> None:
        import ckptstore

        contents: dict[str, Any] = {
            "model": weights(step or 0),
            "config": CONFIG,
            "tokenizer": {"token_kind": "char", "chars": ["\n", "a", "b"]},
            "optimizer": optimizer_state(step or 0),
            "metrics": {"val_loss": 1.25},
        }
        ckptstore.save(str(location), step=step, **{**contents, **changes})

    return save


@pytest.fixture
def save_history() -> Save:
    """Give a function that saves steps into a history: ``save_history(location, 500, 1000)``."""

    def save_history(location: object, *steps: int) -> None:
        import ckptstore

        with ckptstore.Store(str(location), keep=ckptstore.Keep(last=10)) as store:
            for step in steps:
                store.save(model=weights(step), config=CONFIG, step=step)

    return save_history


@pytest.fixture
def save_legacy() -> Save:
    """Give a function that writes a legacy file, as the code before the bundle wrote it."""

    def save_legacy(path: Path, *, step: int = 7) -> None:
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        contents = {
            "model_state_dict": weights(step),
            "config": CONFIG,
            "tokenizer": {"token_kind": "gpt2", "chars": None},
            "step": step,
            "optimizer_state_dict": optimizer_state(step),
        }
        torch.save(contents, path)

    return save_legacy


@pytest.fixture
def dante(tmp_path: Path, save: Save) -> Path:
    """Give a single checkpoint: a bundle with all that it may hold."""
    location = tmp_path / "checkpoints" / "dante"
    save(location)
    return location


@pytest.fixture
def legacy(tmp_path: Path, save_legacy: Save) -> Path:
    """Give a folder with one legacy file."""
    location = tmp_path / "old" / "virgil"
    save_legacy(location / "latest.pt")
    return location
