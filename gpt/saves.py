"""When a training saves, and how: the settings, and the options that they come from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from ckptstore import Keep

__all__ = ["Saves", "save_options"]

_METRICS = ("train_loss", "val_loss")


@dataclass(frozen=True)
class Saves:
    """When a training saves, and how.

    Attributes:
        interval: steps from one save to the next; None is that of the evaluations. The last step
            is saved too.
        keep: makes the location a history, and says which steps stay; None goes on with what is
            there: a history, of which all steps stay, or a single checkpoint.
        background: save while training goes on.
        replace: steps of the history that are damaged and were passed over: one that is saved
            again replaces what is there.
    """

    interval: int | None = None
    keep: Keep | None = None
    background: bool = False
    replace: Collection[int] = ()


_OPTIONS = (
    click.option(
        "--save_interval",
        type=click.IntRange(min=1),
        metavar="N",
        help="Steps from one save to the next; by default those of the evaluations.",
    ),
    click.option(
        "--keep_last",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep a history, a step for each save, and of it the last N.",
    ),
    click.option(
        "--keep_every",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep a history, and of it the steps that are a multiple of N.",
    ),
    click.option(
        "--keep_best",
        type=click.Choice(_METRICS),
        is_flag=False,
        flag_value="val_loss",
        help="Keep a history, and of it the step with the lowest of these; val_loss if not said.",
    ),
    click.option(
        "--async_saves", is_flag=True, help="Save in the background, while training goes on."
    ),
)


def save_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of saving; it gets them as ``saves``."""

    @wraps(command)
    def with_saves(
        *,
        save_interval: int | None,
        keep_last: int | None,
        keep_every: int | None,
        keep_best: str | None,
        async_saves: bool,
        **others: Any,
    ) -> None:
        keep = None
        if any((keep_last, keep_every, keep_best)):
            keep = Keep(last=keep_last, every=keep_every, best=keep_best)
        if keep_best and save_interval:
            _say_what_is_measured(save_interval, others["eval_interval"])
        command(saves=Saves(save_interval, keep, async_saves), **others)

    for option in reversed(_OPTIONS):
        with_saves = option(with_saves)
    return with_saves


def _say_what_is_measured(save_interval: int, eval_interval: int) -> None:
    if save_interval % eval_interval:
        both = math.lcm(save_interval, eval_interval)
        warnings.warn(
            f"--keep_best knows only steps that are saved and evaluated: every {both} steps, "
            f"with --save_interval {save_interval} and --eval_interval {eval_interval}",
            stacklevel=3,
        )
