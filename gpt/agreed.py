"""That all ranks see the same checkpoint.

Every rank reads what it goes on from by itself, at the same time as the others: so each has proved
what it loads (G4), and no second way has to carry weights, optimizer, states and vocabulary. What
rank 0 opened is told to the others, which have to find just that; a location that only some of
the ranks see, or that another run saves into meanwhile, is an error on all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import ckptstore
from ckptstore import Checkpoint, NotFoundError
from gpt.ranks import Ranks

if TYPE_CHECKING:
    from gpt.data import GPTDataLoader
    from gpt.saves import Saves

__all__ = ["check_same_plan", "check_seen", "digest_of", "open_same"]

Location = str | os.PathLike[str]
Opened = TypeVar("Opened", bound=Checkpoint | None)

_ADVICE = (
    "all ranks have to see the same files, in a folder that all machines share or in a bucket, "
    "and nobody else may save there meanwhile"
)


def open_same(ranks: Ranks, location: Location, open_it: Callable[[], Opened]) -> Opened:
    """Open a checkpoint on rank 0, and the very same on the others.

    Args:
        ranks: of the run; each of them calls this.
        location: of the checkpoint, for messages.
        open_it: opens it; returns None, or raises `NotFoundError`, where there is none.

    Raises:
        RankError: another one is there for another rank, or none; on every rank.
        CkptstoreError: it cannot be opened.
    """
    if not ranks.many:
        return open_it()
    opened: Any = open_it() if ranks.first else None
    wanted = ranks.broadcast(_identity(opened))
    if not ranks.first:
        try:
            opened = open_it()
        except NotFoundError:
            if wanted is None:
                raise
    found: dict[str, str | None] = {f"the checkpoint in {location}": _identity(opened)}
    if wanted is None and "://" not in os.fspath(location):
        found = {"the folder to save in": os.path.abspath(location)}
    ranks.check_same(found, _ADVICE)
    return opened


def check_seen(ranks: Ranks, location: Location) -> bool:
    """Make sure that all ranks see what rank 0 saved, before it is needed to go on from.

    Args:
        ranks: of the run; each of them calls this.
        location: that rank 0 saves to.

    Returns:
        Whether anything is there already.

    Raises:
        RankError: another rank sees nothing there; on every rank.
    """
    seen = ranks.broadcast(_is_there(location) if ranks.first else None)
    if not seen:
        return False
    found = "one" if ranks.first or _is_there(location) else None
    ranks.check_same({f"a checkpoint in {location}": found}, _ADVICE)
    return True


def check_same_plan(
    ranks: Ranks,
    loader: GPTDataLoader,
    saves: Saves,
    max_iters: int,
    eval_interval: int,
    eval_iters: int,
) -> None:
    """Make sure that all ranks will do the same at the same steps, or one would wait for ever.

    Args:
        ranks: of the run; each of them calls this.
        loader: with its data prepared.
        saves: when this rank saves.
        max_iters: steps in all.
        eval_interval: steps between evaluations.
        eval_iters: batches of each split to evaluate.

    Raises:
        RankError: they were told other things; on every rank.
    """
    ranks.check_same(
        {
            "the text": loader.state_dict()["sha256"],
            "--max_iters": max_iters,
            "--eval_interval": eval_interval,
            "--eval_iters": eval_iters,
            "--save_interval": saves.interval,
            "--save_overhead": saves.overhead,
            "--async_saves": saves.background,
        },
        "start all ranks with the same command, and the same files",
    )


def _is_there(location: Location) -> bool:
    try:
        ckptstore.open(location)
    except NotFoundError:
        return False
    return True


def digest_of(value: Any) -> str:
    """Return a short digest of a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _identity(checkpoint: Checkpoint | None) -> str | None:
    """Return what names a state and no other, for people too; None where there is none."""
    if checkpoint is None:
        return None
    texts = [checkpoint.config, checkpoint.tokenizer_state, checkpoint.training_state]
    files = {name: (file.size, file.sha256) for name, file in checkpoint.files().items()}
    number = "" if checkpoint.generation is None else f", generation {checkpoint.generation}"
    write = "" if checkpoint.write_id is None else f", write {checkpoint.write_id}"
    return f"step {checkpoint.step}{number}{write}, contents {digest_of([texts, files])}"
