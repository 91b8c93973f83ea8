"""Trains with two processes on the CPU, stops, and goes on: ``python two_processes.py FOLDER``."""

from __future__ import annotations

import sys

import tiny_training as tiny
from ckptstore_lightning import StoreCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint


def main(folder: str) -> None:
    """Train one epoch, and another from the first one's checkpoint."""
    for epochs, path in ((1, None), (2, f"{folder}/run/last.ckpt")):
        keep = ModelCheckpoint(f"{folder}/run", filename="{epoch}", save_last=True)
        runner = tiny.trainer(
            StoreCheckpointIO(), keep, epochs=epochs, strategy="ddp_fork", devices=2, root=folder
        )
        runner.fit(tiny.module(), tiny.batches(), ckpt_path=path)


if __name__ == "__main__":
    main(sys.argv[1])
