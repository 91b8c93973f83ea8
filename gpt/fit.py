"""The training loop.

Rules, so that a run that was killed ends as one that was not (G8):

1. Everything that the next step depends on is in the checkpoint: weights, optimizer, torch's
   random states (dropout), and where the order of the data stands.
2. It is put back last, directly before the loop, so that nothing in between can use it up.
3. Evaluation draws from a generator of its own, which starts anew each time: it disturbs nothing,
   and every evaluation looks at the same windows.
4. A step counts when the optimizer has finished it.
5. What was measured is committed with the state that it was measured of, so that a run goes on
   with the rows up to its step and no others.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch

from gpt.pending import take_up
from gpt.progress import Progress
from gpt.saver import Saver
from gpt.saves import Saves

if TYPE_CHECKING:
    from gpt.data import GPTDataLoader
    from gpt.model import GPT

__all__ = ["estimate_loss", "fit"]

_EVALUATION_SEED = 20_240_229


def fit(
    model: GPT,
    data_loader: GPTDataLoader,
    optimizer: torch.optim.Optimizer,
    *,
    max_iters: int,
    eval_interval: int = 50,
    eval_iters: int = 200,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    start_step: int = 0,
    saves: Saves | None = None,
) -> dict[str, float]:
    """Train until ``max_iters`` optimizer steps are finished, and save on the way.

    Guarantee (G8): N steps equal k steps, a kill, and N-k steps, bit for bit, on the same machine
    with the same number of threads.

    Args:
        model: trained in place.
        data_loader: with its data prepared.
        optimizer: over the model's parameters.
        max_iters: steps in all; where they are finished already, nothing happens.
        eval_interval: steps between evaluations; the last step has one too.
        eval_iters: batches of each split to evaluate.
        checkpoint_dir: where to save; None saves nothing.
        start_step: steps that are finished.
        saves: when to save, and how; by default at each evaluation.

    Returns:
        The last evaluation: mean losses of ``train`` and ``val``; empty where nothing happened.

    Raises:
        ValueError, CkptstoreError: a number is out of range; a save failed.
    """
    saves = saves or Saves()
    if saves.interval is None:
        saves = replace(saves, interval=eval_interval)
    _check_counts(eval_interval=eval_interval, eval_iters=eval_iters, save_interval=saves.interval)
    losses: dict[str, float] = {}
    if start_step >= max_iters:
        return losses
    model.train()
    take_up(model, data_loader, start_step)
    with (
        Progress(start_step, max_iters) as progress,
        Saver(model, optimizer, data_loader, checkpoint_dir, saves, progress.say) as saver,
    ):
        diverged = False
        for step in range(start_step + 1, max_iters + 1):
            progress.advance(_train_step(model, data_loader, optimizer))
            saver.step_finished()
            measured: dict[str, float] = {}
            if step % eval_interval == 0 or step == max_iters:
                measured = losses = estimate_loss(model, data_loader, eval_iters)
                model.metrics_log.append(_row(step, losses, optimizer))
            saved = ""
            if saver.is_due(step) or step == max_iters:
                saved = saver.save(step, measured)
            if measured or saved:
                progress.report(step, measured, saved)
            diverged = diverged or _has_diverged(measured)
    return losses


@torch.no_grad()
def estimate_loss(model: GPT, data_loader: GPTDataLoader, eval_iters: int) -> dict[str, float]:
    """Return the mean loss on both splits, in eval mode; no random state changes.

    Args:
        model: left in the mode in which it was.
        data_loader: with its data prepared.
        eval_iters: batches of each split.
    """
    was_training = model.training
    model.eval()
    means = {}
    for split in ("train", "val"):
        generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        total = 0.0
        for _ in range(eval_iters):
            ids, targets = data_loader.get_batch(split, generator=generator)
            total += model(ids.to(model.device), targets.to(model.device))[1].item()
        means[split] = total / eval_iters
    model.train(was_training)
    return means


def _row(step: int, losses: dict[str, float], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what is noted of an evaluation; a loss that is no finite number is None."""
    found = {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}
    return {
        "step": step,
        **{f"{name}_loss": loss for name, loss in found.items()},
        "learning_rate": float(optimizer.param_groups[0]["lr"]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is None or value < 1:
            raise ValueError(f"{name} is {value}, not a whole number from 1 on")


def _has_diverged(losses: dict[str, float]) -> bool:
    """Return whether a loss is no finite number, and say so."""
    if all(map(math.isfinite, losses.values())):
        return False
    warnings.warn(
        "the loss is no finite number: the training has diverged; "
        "begin again with a smaller learning rate",
        stacklevel=3,
    )
    return True


def _train_step(
    model: GPT, data_loader: GPTDataLoader, optimizer: torch.optim.Optimizer
) -> torch.Tensor:
    ids, targets = data_loader.get_batch("train")
    _, loss = model(ids.to(model.device), targets.to(model.device))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()
