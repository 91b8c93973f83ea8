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
import sys
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
import torch

from gpt import bundle
from gpt.others import rows_until

if TYPE_CHECKING:
    from gpt.data import GPTDataLoader
    from gpt.model import GPT

__all__ = ["Pending", "estimate_loss", "fit"]

_EVALUATION_SEED = 20_240_229
_RNG = "rng"


@dataclass(frozen=True)
class Pending:
    """Random and data states of a checkpoint, until the loop goes on from them.

    Attributes:
        step: the step that they belong to.
        rng: what `_rng_state` returned then.
    """

    step: int
    rng: dict[str, Any]

    @classmethod
    def taken_from(cls, states: dict[str, Any], step: int | None) -> Pending | None:
        """Take those of ours out of a checkpoint's states; None where there are none.

        Args:
            states: by name; a state ``rng`` of another writer stays there.
            step: of the checkpoint.
        """
        rng = states.get(_RNG)
        if not isinstance(rng, dict) or not rng.keys() >= {"torch", "cuda", "data"}:
            return None
        del states[_RNG]
        return None if step is None else cls(step, rng)

    def states_at(self, step: int | None) -> dict[str, Any]:
        """Return these as a state to be saved, where they belong to this step."""
        return {_RNG: self.rng} if self.step == step else {}


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
) -> dict[str, float]:
    """Train until ``max_iters`` optimizer steps are finished, and save on the way.

    Guarantee (G8): N steps equal k steps, a kill, and N-k steps, bit for bit, on the same machine
    with the same number of threads.

    Args:
        model: trained in place.
        data_loader: with its data prepared.
        optimizer: over the model's parameters.
        max_iters: steps in all; where they are finished already, nothing happens.
        eval_interval: steps between evaluations and saves; the last step has one too.
        eval_iters: batches of each split to evaluate.
        checkpoint_dir: where to save; None saves nothing.
        start_step: steps that are finished.

    Returns:
        The last evaluation: mean losses of ``train`` and ``val``; empty where nothing happened.

    Raises:
        ValueError, CkptstoreError: a number is out of range; a save failed.
    """
    _check_counts(eval_interval=eval_interval, eval_iters=eval_iters)
    losses: dict[str, float] = {}
    diverged = False
    if start_step >= max_iters:
        return losses
    model.train()
    _take_up(model, data_loader, start_step)
    with _Progress(start_step, max_iters) as progress:
        for step in range(start_step + 1, max_iters + 1):
            progress.advance(_train_step(model, data_loader, optimizer))
            if step % eval_interval and step != max_iters:
                continue
            losses = estimate_loss(model, data_loader, eval_iters)
            model.metrics_log.append(_row(step, losses, optimizer))
            if checkpoint_dir is not None:
                _save(model, checkpoint_dir, step, optimizer, data_loader, losses)
            progress.report(step, losses, saved=checkpoint_dir is not None)
            diverged = diverged or _has_diverged(losses)
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


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
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


def _save(
    model: GPT,
    checkpoint_dir: str | os.PathLike[str],
    step: int,
    optimizer: torch.optim.Optimizer,
    data_loader: GPTDataLoader,
    losses: dict[str, float],
) -> None:
    bundle.save_bundle(
        model,
        checkpoint_dir,
        step=step,
        optimizer=optimizer,
        states={_RNG: _rng_state(data_loader)},
        # The line of the evaluation shows a loss that is no number; JSON cannot.
        metrics={f"{name}_loss": loss for name, loss in losses.items() if math.isfinite(loss)},
    )


def _rng_state(data_loader: GPTDataLoader) -> dict[str, Any]:
    """Return all that is random in training, in types that a weights-only load takes."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "data": data_loader.state_dict(),
    }


def _take_up(model: GPT, data_loader: GPTDataLoader, start_step: int) -> None:
    """Go on from a step: with the rows up to it, and the states of it if the model has any."""
    model.metrics_log = rows_until(model.metrics_log, start_step)
    pending, model.pending = model.pending, None
    if pending is None or pending.step != start_step:
        return
    torch.set_rng_state(pending.rng["torch"])
    cuda = pending.rng["cuda"]
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    elif model.device.type == "cuda":
        warnings.warn(
            f"the checkpoint has random states of {len(cuda)} CUDA devices, there are "
            f"{torch.cuda.device_count()}; dropout will not go on where it was",
            stacklevel=3,
        )
    data_loader.load_state_dict(pending.rng["data"])


class _Progress:
    """A bar on a terminal, and a line for each evaluation everywhere."""

    def __init__(self, start: int, total: int) -> None:
        self._width = len(str(total))
        self._total = total
        self._bar = None
        if sys.stdout.isatty():
            self._bar = click.progressbar(
                length=total, label="training", show_pos=True, item_show_func=self._show_loss
            )
            self._bar.update(start)

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, traceback)

    def advance(self, loss: torch.Tensor) -> None:
        """Count a finished step."""
        if self._bar is not None:
            self._bar.update(1, loss)

    def report(self, step: int, losses: dict[str, float], *, saved: bool) -> None:
        """Print the line of an evaluation."""
        line = f"step {step:{self._width}}/{self._total}: " + ", ".join(
            f"{split} loss {loss:.4f}" for split, loss in losses.items()
        )
        line += ", saved" if saved else ""
        if self._bar is None:
            click.echo(line)
        else:  # in place of the bar, which is drawn again below
            click.echo(f"\r\x1b[2K{line}")
            self._bar.render_progress()

    @staticmethod
    def _show_loss(loss: torch.Tensor | None) -> str | None:
        return None if loss is None else f"loss {loss.item():.4f}"
