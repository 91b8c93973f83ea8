"""Lightning's `ModelCheckpoint`, for what it does on local disks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ckptstore
from ckptstore import CkptstoreError, NotFoundError
from ckptstore.manifest import MANIFEST
from ckptstore_lightning import framework
from ckptstore_lightning.hyper import HPARAMS
from ckptstore_lightning.kept import stand_in
from ckptstore_lightning.places import Place

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
else:
    ModelCheckpoint = framework.pytorch("callbacks").ModelCheckpoint

__all__ = ["StoreModelCheckpoint"]


class StoreModelCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` whose last checkpoint is found in a bucket, too, and that notes metrics.

    It takes the same arguments, names files and keeps and removes them the same way, and resumes a
    run that was begun with a plain `ModelCheckpoint`. What it adds:

    - ``trainer.fit(ckpt_path="last")`` finds ``last.ckpt`` in ``dirpath=`` wherever that is.
      Lightning's own looks for it on the local disk, and warns that there is none.
    - What was logged goes into each checkpoint as ``callback_metrics``, and into the manifest,
      where ``ckptstore ls`` and `ckptstore.open(...).metrics` show it.
    - What a save that was killed left under a name is no checkpoint, so that the save that is made
      again after the resume has the same name, and completes it, instead of one with ``-v1``.
    - Hyper-parameters that no checkpoint can hold are an error when training begins, and not hours
      later, at the first save.
    """

    @property
    def state_key(self) -> str:
        """The name of this callback's state in a checkpoint: that of Lightning's own."""
        return super().state_key.replace(type(self).__qualname__, "ModelCheckpoint", 1)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find what cannot be saved before training begins.

        Raises:
            UnsafeError: a hyper-parameter could only be read back by running code.
        """
        super().setup(trainer, pl_module, stage)
        for one in (pl_module, trainer.datamodule):  # type: ignore[attr-defined]
            if stage == "fit" and one is not None:
                stand_in(one.hparams, (HPARAMS,), [])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note what was logged."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["callback_metrics"] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if value.numel() == 1
        }

    def file_exists(self, filepath: Any, trainer: pl.Trainer) -> bool:
        """Whether a name is taken; what a save that was killed left takes none."""
        known = (*self.best_k_models, self.best_model_path, self.last_model_path)
        if filepath in known:  # In the background it may not be committed yet.
            return super().file_exists(filepath, trainer)
        taken = trainer.is_global_zero and self._fs.exists(filepath) and not _is_left(filepath)
        return bool(trainer.strategy.reduce_boolean_decision(taken, all=False))

    def _find_last_checkpoints(self, trainer: pl.Trainer) -> set[str]:
        found = super()._find_last_checkpoints(trainer)
        if "file" in self._fs.protocol:
            return found
        # Lightning asks when each was modified, which a bucket knows of files alone.
        urls = {self._fs.unstrip_protocol(path) for path in found}
        return {url if self._fs.isfile(url) else f"{url}/{MANIFEST}" for url in urls}


def _is_left(path: str) -> bool:
    """Whether what is at a path is no more than a save of ours left that was never committed."""
    place = Place(path)
    if place.is_file() or place.names() - {".ckptstore"}:
        return False
    try:
        ckptstore.open(path)
    except NotFoundError:
        return True
    except CkptstoreError:
        return False
    return False
