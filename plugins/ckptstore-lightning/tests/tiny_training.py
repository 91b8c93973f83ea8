"""A training that takes a moment and always goes the same way, for tests and their processes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

STEPS = 4
"""Optimizer steps of an epoch."""


class Tiny(pl.LightningModule):
    """Two layers, AdamW, a scheduler; its ``val_loss`` is what ``scores`` says of each epoch."""

    def __init__(
        self,
        width: int = 3,
        lr: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
        scores: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1)
        )

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layers(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        scores = self.hparams["scores"]
        self.log("val_loss", float(scores[self.current_epoch]) if scores else 1.0)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.hparams["lr"], betas=self.hparams["betas"]
        )
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]


def module(**hparams: Any) -> Tiny:
    """Return a module that always begins the same."""
    torch.manual_seed(7)
    return Tiny(**hparams)


def batches(count: int = STEPS) -> DataLoader[Any]:
    """Return the same batches each time."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4 * count, 2, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def trainer(
    plugin: Any, *callbacks: Any, epochs: int = 2, root: str | None = None, **more: Any
) -> pl.Trainer:
    """Return a trainer on the CPU that says nothing."""
    more = {
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **more,
    }
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        plugins=None if plugin is None else [plugin],
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        num_sanity_val_steps=0,
        default_root_dir=root,
        **more,
    )


def fit(runner: pl.Trainer, one: pl.LightningModule, *, ckpt_path: Any = None) -> None:
    """Train, with a validation at the end of each epoch."""
    runner.fit(one, batches(), batches(1), ckpt_path=ckpt_path)


def state_of(runner: pl.Trainer) -> dict[str, Any]:
    """Return everything that has to be equal where two runs are equal."""
    return {
        "model": runner.lightning_module.state_dict(),
        "optimizers": [one.state_dict() for one in runner.optimizers],
        "schedulers": [one.scheduler.state_dict() for one in runner.lr_scheduler_configs],
        "step": runner.global_step,
    }


def alike(one: object, two: object) -> bool:
    """Whether two states are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(alike, one, two))
    return one == two
