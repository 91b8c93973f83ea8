"""Trains with ``pytorch_lightning``, and without ``lightning``: ``python other_name.py FOLDER``."""

from __future__ import annotations

import sys

import pytorch_lightning as pl
import torch
from ckptstore_lightning import StoreCheckpointIO, load_from_checkpoint
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel

torch.manual_seed(1)
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=1,
    limit_train_batches=2,
    limit_val_batches=0,
    plugins=[StoreCheckpointIO()],
    callbacks=[ModelCheckpoint(sys.argv[1], filename="{epoch}")],
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = BoringModel()
trainer.fit(model)
loaded = load_from_checkpoint(BoringModel, f"{sys.argv[1]}/epoch=0.ckpt")
same = torch.equal(loaded.layer.weight, model.layer.weight)
name = type(trainer).__module__.partition(".")[0]
sys.stdout.write(f"{name} {same and 'lightning' not in sys.modules}\n")
