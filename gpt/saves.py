"""When a training saves, and how: the settings, and the options that they come from."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from ckptstore import Keep, Tier

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
        tier: where what is saved is copied to, in the background; None for nowhere.
        overhead: instead of an interval, the share of the training's time that saves may stall
            it, such as 0.02; see `gpt.pace`.
        clock: tells seconds, for that.
        replace: steps of the history that are damaged and were passed over: one that is saved
            again replaces what is there.
    """

    interval: int | None = None
    keep: Keep | None = None
    background: bool = False
    overhead: float | None = None
    clock: Callable[[], float] = time.monotonic
    replace: Collection[int] = ()
    tier: Tier | None = None


class _Share(click.ParamType):
    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            self.fail(f"{value!r} is not a share of the time, such as 2% or 0.02", param, ctx)
        return share


_OPTIONS = (
    click.option(
        "--save_interval",
        type=click.IntRange(min=1),
        metavar="N",
        help="Steps from one save to the next; by default those of the evaluations.",
    ),
    click.option(
        "--save_overhead",
        type=_Share(),
        metavar="SHARE",
        help="Instead: save as often as saves stall the training for no more than this share of "
        "its time, such as 2%.",
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
        "--tier",
        metavar="LOCATION",
        help="Where models are copied to while training goes on, such as s3://bucket/checkpoints; "
        "base_dir is then a folder of this machine.",
    ),
    click.option(
        "--tier_keep_last",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep the last N steps of the history in the tier; by default all that were copied.",
    ),
    click.option(
        "--tier_keep_every",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep the steps of the history in the tier that are a multiple of N.",
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
        save_overhead: float | None,
        keep_last: int | None,
        keep_every: int | None,
        keep_best: str | None,
        async_saves: bool,
        tier: str | None,
        tier_keep_last: int | None,
        tier_keep_every: int | None,
        **others: Any,
    ) -> None:
        if save_overhead is not None:
            _check_chosen(save_interval, keep_every)
        keep = None
        if any((keep_last, keep_every, keep_best)):
            keep = Keep(last=keep_last, every=keep_every, best=keep_best)
        if keep_best and save_interval:
            _say_what_is_measured(save_interval, others["eval_interval"])
        saves = Saves(
            save_interval,
            keep,
            async_saves,
            save_overhead,
            tier=_tier(tier, tier_keep_last, tier_keep_every),
        )
        command(saves=saves, **others)

    for option in reversed(_OPTIONS):
        with_saves = option(with_saves)
    return with_saves


def _check_chosen(save_interval: int | None, keep_every: int | None) -> None:
    """Refuse what names steps beside what chooses them."""
    if save_interval is not None:
        raise click.UsageError("--save_interval and --save_overhead exclude each other")
    if keep_every is not None:
        raise click.UsageError(
            "--keep_every keeps multiples of a number of steps, and --save_overhead chooses the "
            "steps that are saved; keep some with --keep_last"
        )


def _tier(location: str | None, last: int | None, every: int | None) -> Tier | None:
    if location is None:
        if last or every:
            raise click.UsageError("--tier_keep_last and --tier_keep_every need --tier LOCATION")
        return None
    return Tier(location, keep=Keep(last=last, every=every) if last or every else None)


def _say_what_is_measured(save_interval: int, eval_interval: int) -> None:
    if save_interval % eval_interval:
        both = math.lcm(save_interval, eval_interval)
        warnings.warn(
            f"--keep_best knows only steps that are saved and evaluated: every {both} steps, "
            f"with --save_interval {save_interval} and --eval_interval {eval_interval}",
            stacklevel=3,
        )
