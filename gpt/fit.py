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
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch

from ckptstore import Preemption
from gpt.leaving import Outcome, heard_by_all
from gpt.pending import take_up
from gpt.progress import Progress
from gpt.ranks import Ranks
from gpt.saver import Saver
from gpt.saves import Saves
from gpt.trail import Trail

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
    preemption: Preemption | None = None,
    outcome: Outcome | None = None,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Train until ``max_iters`` optimizer steps are finished, and save on the way.

    Guarantee (G8): N steps equal k steps, a kill, and N-k steps, bit for bit, on the same machine
    with the same number of threads and of ranks.

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
        preemption: asked between two steps and in an evaluation whether to end; the last finished
            step is saved then, and what is still to be evaluated is when the training goes on.
        outcome: filled as the training goes on, for who wants to know how far it came.
        ranks: of the run, connected. Each calls this with the same numbers, and with batches of
            its own gives its share to every step; what is asked of one ends them all after the
            same step. One process by default.

    Returns:
        The last evaluation: mean losses of ``train`` and ``val``; empty where nothing happened.

    Raises:
        ValueError, CkptstoreError: a number is out of range; a save failed.
    """
    saves = saves or Saves()
    if saves.interval is None:
        saves = replace(saves, interval=eval_interval)
    _check_counts(eval_interval=eval_interval, eval_iters=eval_iters, save_interval=saves.interval)
    outcome = Outcome(saved=start_step or None) if outcome is None else outcome
    outcome.step = start_step
    unfinished = model.pending is not None and model.pending.is_unevaluated_at(start_step)
    if start_step >= max_iters and not unfinished:
        return outcome.losses
    model.train()
    ranks = ranks or Ranks()
    wrapped = ranks.wrapped(model)
    recorded = take_up(model, data_loader, start_step, ranks)
    trail = Trail(recorded, eval_interval=eval_interval, eval_iters=eval_iters)
    with (
        Progress(start_step, max_iters) as progress,
        Saver(
            model,
            optimizer,
            data_loader,
            trail,
            checkpoint_dir,
            saves,
            progress.say,
            outcome,
            ranks,
        ) as saver,
    ):
        run = _Run(
            model,
            wrapped,
            data_loader,
            optimizer,
            trail,
            eval_iters,
            progress,
            saver,
            preemption,
            outcome,
            ranks,
        )
        if unfinished and (start_step % eval_interval == 0 or start_step == max_iters):
            run.make_up(is_last=start_step >= max_iters)
        run.go_on(max_iters, eval_interval)
    return outcome.losses


@dataclass
class _Run:
    """The loop itself, and what it works with."""

    model: GPT
    wrapped: torch.nn.Module
    data_loader: GPTDataLoader
    optimizer: torch.optim.Optimizer
    trail: Trail
    eval_iters: int
    progress: Progress
    saver: Saver
    preemption: Preemption | None
    outcome: Outcome
    ranks: Ranks
    diverged: bool = False
    is_agreed: bool = False

    def go_on(self, max_iters: int, eval_interval: int) -> None:
        """Train until all steps are finished, or the training is to end."""
        losses: dict[str, float] = {}
        begun_with = step = self.outcome.step
        while step < max_iters and not self._is_to_end():
            loss = self._train()
            self.trail.add(loss)
            self.progress.advance(loss)
            step = self.outcome.step = step + 1
            self.saver.step_finished()
            is_last = step == max_iters
            is_evaluated = is_last or step % eval_interval == 0
            losses = self._evaluate() if is_evaluated else {}
            if self._is_to_end():
                if losses:
                    self.progress.report(step, losses, "")
                break
            saved = ""
            if is_last or self.saver.is_due(step, is_evaluated=is_evaluated):
                saved = self.saver.save(step, losses)
            if losses or saved:
                self.progress.report(step, losses, saved)
            self._look_at(losses)
        if self.preemption is not None and self._is_to_end() and step > begun_with:
            is_evaluated = step == max_iters or step % eval_interval == 0
            self.saver.leave(step, losses, self.preemption, unevaluated=is_evaluated and not losses)

    def make_up(self, *, is_last: bool) -> None:
        """Evaluate a step that was saved when there was no time for that.

        Args:
            is_last: whether no save follows that would have what was measured.
        """
        losses = self._evaluate()
        if losses:
            saved = self.saver.save_again(self.outcome.step, losses) if is_last else ""
            self.progress.report(self.outcome.step, losses, saved)
        self._look_at(losses)

    def _train(self) -> torch.Tensor:
        # Asked now and answered after the step, so that nobody waits for it.
        answer = None if self.preemption is None else self.ranks.ask(self.preemption.requested)
        with self.ranks.reaching():
            loss = _train_step(self.wrapped, self.model.device, self.data_loader, self.optimizer)
        if answer is not None:
            self._hear(answer())
        return loss

    def _evaluate(self) -> dict[str, float]:
        losses = estimate_loss(
            self.model,
            self.data_loader,
            self.eval_iters,
            is_to_end=self._asks_to_end,
            ranks=self.ranks,
        )
        if losses:
            self.outcome.losses = losses
            self.model.metrics_log.append(_row(self.outcome.step, losses, self.optimizer))
        return losses

    def _look_at(self, losses: dict[str, float]) -> None:
        if self.ranks.first:
            self.diverged = self.diverged or _has_diverged(losses)

    def _is_to_end(self) -> bool:
        """Whether to end; of several ranks, whether all of them know that."""
        if self.ranks.many:
            return self.is_agreed
        return self.preemption is not None and self.preemption.requested

    def _asks_to_end(self) -> bool:
        """Ask all ranks, each of which is between the same two batches of an evaluation."""
        if self.preemption is not None:
            self._hear(self.ranks.ask(self.preemption.requested)())
        return self._is_to_end()

    def _hear(self, asked: bool) -> None:
        if asked and not self.is_agreed and self.preemption is not None:
            self.is_agreed = True
            heard_by_all(self.preemption, self.ranks)


@torch.no_grad()
def estimate_loss(
    model: GPT,
    data_loader: GPTDataLoader,
    eval_iters: int,
    *,
    is_to_end: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Return the mean loss on both splits, in eval mode; no random state changes.

    Args:
        model: left in the mode in which it was.
        data_loader: with its data prepared.
        eval_iters: batches of each split.
        is_to_end: asked before each batch, by several ranks before one of each; once it says so,
            nothing is returned.
        ranks: of the run, each of which takes a share of the batches: the means are the same
            whatever their number, on machines that compute alike.
    """
    ranks = ranks or Ranks()
    was_training = model.training
    model.eval()
    means = {}
    for split in ("train", "val"):
        generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        own = []
        for number in range(eval_iters):
            if number % ranks.size == 0 and is_to_end():
                model.train(was_training)
                return {}
            ids, targets = data_loader.get_batch(split, generator=generator)
            if number % ranks.size == ranks.rank:
                own.append(model(ids.to(model.device), targets.to(model.device))[1].item())
        shares = ranks.gathered(own)
        # Added up in the order of the batches, so that the sum is rounded as one process would.
        total = 0.0
        for number in range(eval_iters):
            total += shares[number % ranks.size][number // ranks.size]
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
    model: torch.nn.Module,
    device: torch.device,
    data_loader: GPTDataLoader,
    optimizer: torch.optim.Optimizer,
) -> torch.Tensor:
    ids, targets = data_loader.get_batch("train")
    _, loss = model(ids.to(device), targets.to(device))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()
