"""The Trainer's checkpoints go into a store as it writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ckptstore import ConflictError, Keep, NotFoundError, Store
from ckptstore_transformers.folder import BEST, FOLDER, contents_of

__all__ = ["StoreCallback"]


class StoreCallback(TrainerCallback):
    """Puts each ``checkpoint-N`` of a Trainer into the history at a location, as step N.

    Guarantee: whole or absent, whatever dies in the middle (G2); proved when it is read (G4); no
    pickle is stored (G5). ``training_args.bin`` is left out: the Trainer makes it anew.

    Args:
        location: path or URL, for this run alone.
        keep: which steps stay. By default as many of the newest as ``save_total_limit`` says, all
            where it says nothing. The newest stays in any case, and the best (the Trainer's
            ``best_global_step``), unless ``keep`` has a ``best`` of its own.
        asynchronous: whether a save returns once the folder was read, and the training goes on
            while it is sent. What fails then is logged as an error, stops nothing, and is raised
            when the training ends; that waits for the last save. Otherwise it is raised at once.
        keep_local: whether the local folders stay, for the Trainer to remove them as it will.
            Without, each goes when its step is committed, the best only at the end where
            ``load_best_model_at_end`` needs it.
        storage_options: what fsspec's filesystem takes.

    Raises:
        ConflictError: when the training begins: there are later steps at the location than it
            begins at; or a step is there with other content.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        keep: Keep | None = None,
        asynchronous: bool = False,
        keep_local: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.location = location
        self.keep = keep
        self.asynchronous = asynchronous
        self.keep_local = keep_local
        self._storage_options = storage_options
        self._store: Store | None = None
        self._began = 0
        self._saved: list[tuple[Path, Future[Any] | None]] = []

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Open the store, and see whether this run may go on there."""
        if not state.is_world_process_zero:
            return
        store = Store(self.location, keep=self._keep(args), storage_options=self._storage_options)
        steps = store.steps()
        if steps and steps[-1] > state.global_step:
            raise ConflictError(
                f"{store.location} holds steps up to {steps[-1]}, and this training begins at "
                f"{state.global_step}; go on from them with resume(), go back with "
                "Store.rewind(step), or give it a location of its own",
                committed=False,
            )
        self._began, self._store, self._saved = state.global_step, store, []

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Put the folder that was just written into the store."""
        _wait_for_all()
        if self._store is None:
            return
        step = state.global_step
        folder = Path(args.output_dir or "") / FOLDER.format(step=step)
        if not folder.is_dir():
            raise NotFoundError(
                f"no {folder}, though the Trainer says that it saved it; a hyperparameter search "
                "writes elsewhere, which this does not follow"
            )
        # A run that went on may write the step that it began at once more, at another hour.
        overwrite = step == self._began
        future = None
        if self.asynchronous:
            future = self._store.save_async(**contents_of(folder), overwrite=overwrite)
        else:
            self._store.save(**contents_of(folder), overwrite=overwrite)
        self._saved.append((folder, future))
        self._tidy(state, best=args.load_best_model_at_end)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Wait for the last save, and raise what failed."""
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.close()
        finally:
            self._tidy(state, best=False)
        for _, future in self._saved:
            if future is not None:
                future.result()

    def _keep(self, args: TrainingArguments) -> Keep:
        limit = args.save_total_limit
        keep = self.keep or Keep(last=limit if limit and limit > 0 else None)
        if keep.everything or keep.best is not None or args.metric_for_best_model is None:
            return keep  # What nobody measures can keep nothing.
        return replace(keep, best=BEST, mode="max")

    def _tidy(self, state: TrainerState, *, best: bool) -> None:
        """Forget what is committed, and remove its local folder unless that is to stay."""
        needed = FOLDER.format(step=state.best_global_step) if best else None
        waiting = []
        for folder, future in self._saved:
            committed = future is None or (future.done() and future.exception() is None)
            if not committed or (folder.name == needed and not self.keep_local):
                waiting.append((folder, future))
            elif not self.keep_local:
                shutil.rmtree(folder, ignore_errors=True)
        self._saved = waiting


def _wait_for_all() -> None:
    """Wait until every process has written its part of the folder."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
