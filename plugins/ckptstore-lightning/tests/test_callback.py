"""What StoreModelCheckpoint adds to Lightning's ModelCheckpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from ckptstore_lightning import StoreCheckpointIO, StoreModelCheckpoint
from lightning.pytorch.callbacks import ModelCheckpoint

import ckptstore


def test_last_and_best_are_found_wherever_they_are(folder, whole):
    keep = {"filename": "{epoch}", "monitor": "val_loss", "save_last": True}
    hparams = {"scores": (0.5, 0.1, 0.3, 0.2)}
    first = StoreModelCheckpoint(folder, **keep)
    runner = tiny.trainer(StoreCheckpointIO(), first, epochs=2)
    tiny.fit(runner, tiny.module(**hparams))
    runner.validate(datamodule=None, dataloaders=tiny.batches(1), ckpt_path="best", verbose=False)

    second = StoreModelCheckpoint(folder, **keep)
    runner = tiny.trainer(StoreCheckpointIO(), second, epochs=4)
    tiny.fit(runner, tiny.module(**hparams), ckpt_path="last")

    assert runner.ckpt_path is not None
    assert second.best_model_path == f"{folder}/epoch=1.ckpt"
    assert tiny.alike(tiny.state_of(runner), whole)


def test_without_a_last_checkpoint_training_begins_as_lightning_has_it(folder):
    keep = StoreModelCheckpoint(folder, save_last=True)
    runner = tiny.trainer(StoreCheckpointIO(), keep, epochs=1)

    with pytest.warns(UserWarning, match="there is no last checkpoint available"):
        tiny.fit(runner, tiny.module(), ckpt_path="last")

    assert runner.global_step == tiny.STEPS


def test_what_was_logged_is_in_the_manifest(folder):
    keep = StoreModelCheckpoint(folder, filename="a")
    tiny.fit(tiny.trainer(StoreCheckpointIO(), keep, epochs=1), tiny.module(scores=(0.25,)))

    metrics = ckptstore.open(f"{folder}/a.ckpt").metrics

    assert metrics["val_loss"] == 0.25
    assert set(metrics) == {"val_loss", "train_loss"}


def test_hyper_parameters_that_cannot_be_saved_are_named_before_training(tmp_path):
    module = tiny.module()
    module.hparams["net"] = torch.nn.Linear(1, 1)
    runner = tiny.trainer(StoreCheckpointIO(), StoreModelCheckpoint(tmp_path), epochs=1)

    with pytest.raises(ckptstore.UnsafeError, match=r"\['hyper_parameters'\]\['net'\] is a torch"):
        tiny.fit(runner, module)

    assert runner.global_step == 0


def test_a_run_of_the_plain_callback_goes_on_with_ours(tmp_path):
    plain = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=2)
    hparams = {"scores": (0.5, 0.1, 0.3)}
    tiny.fit(tiny.trainer(StoreCheckpointIO(), plain, epochs=2), tiny.module(**hparams))

    ours = StoreModelCheckpoint(tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=2)
    runner = tiny.trainer(StoreCheckpointIO(), ours, epochs=3)
    tiny.fit(runner, tiny.module(**hparams), ckpt_path=str(tmp_path / "epoch=1.ckpt"))

    assert {Path(path).name for path in ours.best_k_models} == {"epoch=1.ckpt", "epoch=2.ckpt"}
