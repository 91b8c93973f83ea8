"""A step of a store, as the folder that the Trainer goes on from.

Rule: a folder is written under a name that nobody looks at, and renamed when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ckptstore import Checkpoint, NotFoundError, Store
from ckptstore_transformers.folder import FOLDER, STATE, trainer_state_of, write_folder

__all__ = ["resume"]

_TEMPORARY = ".ckptstore-"


def resume(
    location: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    step: int | None = None,
    fallback: bool = False,
    rewind: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str | None:
    """Put the newest step, or another, back as ``output_dir/checkpoint-N``.

    ``trainer.train(resume_from_checkpoint=resume(location, output_dir))`` goes on from it, or
    begins where there is nothing yet. The best step comes along where the Trainer knows one, so
    that ``load_best_model_at_end`` finds it.

    Guarantee: every byte is proved (G4), nothing is run (G5), and the folder is whole or absent.

    Args:
        location: that of the `StoreCallback`.
        output_dir: the Trainer's. A folder of the same name in it is replaced.
        step: which; the newest by default.
        fallback: where the newest is damaged, take the newest that is sound.
        rewind: once it is put back, remove the later steps, which the training would otherwise
            refuse to begin below.
        storage_options: what fsspec's filesystem takes.

    Returns:
        The folder; None where nothing was saved yet, and no step was asked for.

    Raises:
        NotFoundError: there is no such step.
        CorruptionError: it is damaged.
        UnsupportedError: it is no checkpoint of the Trainer's.
    """
    with Store(location, storage_options=storage_options) as store, _one_at_a_time() as first:
        steps = store.steps()
        try:
            checkpoint = store.open(step, fallback=fallback)
        except NotFoundError:
            if step is None and not steps:
                return None
            raise
        folder = Path(output_dir) / FOLDER.format(step=checkpoint.step)
        if first:
            _fetch_with_best(store, checkpoint, folder)
        if first and rewind and checkpoint.step is not None:
            store.rewind(checkpoint.step)
    return str(folder)


def _fetch_with_best(store: Store, checkpoint: Checkpoint, folder: Path) -> None:
    """Fetch a step, and the best one where it is another; its state says where that is now."""
    state = trainer_state_of(checkpoint)
    best = state.get("best_global_step")
    texts = {}
    if state.get("best_model_checkpoint") is not None and best in store.steps():
        beside = folder.with_name(FOLDER.format(step=best))
        if best != checkpoint.step:
            # Before the other, so that the Trainer finds that one to be the youngest.
            _fetch(store.open(best), beside, {})
        if state["best_model_checkpoint"] != str(beside):
            state["best_model_checkpoint"] = str(beside)
            texts[STATE] = json.dumps(state, indent=2, sort_keys=True) + "\n"
    _fetch(checkpoint, folder, texts)


def _fetch(checkpoint: Checkpoint, folder: Path, texts: Mapping[str, str]) -> None:
    """Write a folder beside its place, and put it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{_TEMPORARY}{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # Of a process that was killed here.
    beside = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{folder.name}-", dir=folder.parent))
    try:
        fresh, old = beside / "new", beside / "old"
        fresh.mkdir()
        write_folder(checkpoint, fresh, texts)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _one_at_a_time() -> Iterator[bool]:
    """Let the first process of each machine go before the others, and say whether this is it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    from accelerate import PartialState

    processes = PartialState()
    with processes.local_main_process_first():
        yield bool(processes.is_local_main_process)
