"""Trainings of gpt: killed before any operation and at any moment, told to end, and gone on with.

After each death the newest state is proved, and is no older than what was said to be saved. After
some of them the training goes on to its end, which has to equal, bit for bit, that of a training
that nobody disturbed: weights, optimizer, random states, and what was measured (G8).
"""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runs._trainer import Ended, Trainer
from benchmarks.runs.counting import Counts

__all__ = ["DEATHS", "run"]

DEATHS = 300

_LAST = 14
_SIZES = ["--batch_size", "2", "--block_size", "8", "--n_embd", "8", "--n_head", "2",
          "--n_layer", "1", "--dropout", "0.2", "--eval_iters", "2", "--seed", "1", "--device",
          "cpu", "--max_iters", str(_LAST), "--eval_interval", "4"]  # fmt: skip
_HISTORY = ["--save_interval", "3", "--keep_last", "2", "--keep_best"]
_WAYS = {
    "single": [],
    "single async": ["--save_interval", "1", "--async_saves"],
    "history": _HISTORY,
    "history async": [*_HISTORY, "--keep_every", "6", "--async_saves"],
    "history overhead": ["--keep_last", "3", "--save_overhead", "40%"],
}
_MOST_IN_A_RUN = 3


def run(deaths: int, chance: random.Random, counts: Counts, show: Callable[[str], None]) -> None:
    """Kill trainings, or tell them to end, and prove what is there.

    Args:
        deaths: how many.
        chance: chooses.
        counts: what happened.
        show: is told what just happened.
    """
    with tempfile.TemporaryDirectory() as name, Trainer(Path(name)) as trainer:
        whole: dict[str, tuple[Any, int]] = {}
        trial = 0
        while counts.rows["deaths"] + counts.rows["told to end"] < deaths:
            trial += 1
            way = chance.choice(sorted(_WAYS))
            if way not in whole:
                ended = trainer.train(f"whole {way}", [*_SIZES, *_WAYS[way]])
                assert ended.code == 0, ended.errors
                whole[way] = _state(trainer, f"whole {way}"), ended.operations
            state, operations = whole[way]
            _disturb(trainer, f"trial {trial}", way, operations, chance, counts, show)
            ended = trainer.train(f"trial {trial}", [*_SIZES, *_WAYS[way]])
            counts.add("ends compared")
            if ended.code or not _equal(state, _state(trainer, f"trial {trial}")):
                counts.wrong("not exact", f"{way}, trial {trial}: {ended}")


def _disturb(
    trainer: Trainer,
    name: str,
    way: str,
    operations: int,
    chance: random.Random,
    counts: Counts,
    show: Callable[[str], None],
) -> None:
    saved = 0
    for _ in range(chance.randint(1, _MOST_IN_A_RUN)):
        how: dict[str, Any]
        if chance.random() < 0.5:
            how = {"operation": chance.randint(1, operations)}
        else:
            number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            how = {"signal": int(number), "after": chance.uniform(0.0, 1.0)}
        ended = trainer.train(name, [*_SIZES, *_WAYS[way]], **how)
        _count(ended, counts, f"{way}, {name}, {how}: {ended}")
        saved = max(saved, *ended.saved, 0)
        _prove(trainer, name, saved, counts, f"{way}, {name}, {how}: {ended}")
        show(way)


def _count(ended: Ended, counts: Counts, what: str) -> None:
    if ended.code == -signal.SIGKILL:
        counts.add("deaths")
    elif "stopped " in ended.said and ended.code == 0:
        counts.add("told to end")
    elif not ended.said and "error" not in ended.errors:
        counts.add("ended before they listened")
    elif ended.code == 0:
        counts.add("finished before")
    else:
        counts.wrong("losses", f"it failed: {what}")


def _prove(trainer: Trainer, name: str, saved: int, counts: Counts, what: str) -> None:
    import ckptstore
    from ckptstore import CkptstoreError, NotFoundError

    try:
        checkpoint = ckptstore.open(trainer.folder / "checkpoints" / name)
        sound = checkpoint.verify().sound
    except NotFoundError as error:
        if saved:
            counts.wrong("losses", f"{error}: {what}")
        return
    except CkptstoreError as error:
        counts.wrong("not opened", f"{error}: {what}")
        return
    if not sound:
        counts.wrong("mixtures", what)
    if (checkpoint.step or 0) < saved:
        counts.wrong("losses", f"step {checkpoint.step} is there, {saved} was saved: {what}")


def _state(trainer: Trainer, name: str) -> list[Any]:
    import ckptstore

    checkpoint = ckptstore.open(trainer.folder / "checkpoints" / name)
    rows = [{**row, "time": None} for row in checkpoint.load_metrics_log()]
    parts = [checkpoint.step, checkpoint.load_model(), checkpoint.load_optimizer()]
    return [*parts, checkpoint.load_state("rng"), rows]


def _equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
