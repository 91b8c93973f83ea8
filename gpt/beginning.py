"""How a training begins: what the command is told, made into a model, its data and its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.commands import clean
from gpt.config_options import config_of, fields_of, only

if TYPE_CHECKING:
    import torch

    from ckptstore import Keep, Tier
    from gpt.checkpoint import CheckpointManager
    from gpt.data import GPTDataLoader
    from gpt.model import GPT
    from gpt.ranks import Ranks

__all__ = ["Begun", "begin", "kept", "loader_of", "text_of"]


@dataclass
class Begun:
    """A training that can begin."""

    manager: CheckpointManager
    model: GPT
    optimizer: torch.optim.Optimizer
    loader: GPTDataLoader
    start_step: int
    is_resumed: bool


def begin(
    ranks: Ranks,
    *,
    model_name: str,
    base_dir: str,
    input_file: Path,
    tokenization: str | None,
    tokenizer_options: dict[str, str],
    init_from_model: str | None,
    config_file: Path | None,
    learning_rate: float | None,
    seed: int | None,
    from_step: int | None,
    fresh_optimizer: bool,
    carry_vocabulary: bool,
    fallback: bool,
    keep: Keep | None,
    tier: Tier | None,
    **fields: Any,
) -> Begun:
    """Begin a training on all ranks, or go on with one; arguments are the options of the command.

    Args:
        ranks: of the run.
        keep: what is kept of a history.
        tier: where models are copied to; this one goes below its location.
    """
    from gpt.checkpoint import TAKEN_ON_RESUME, CheckpointManager

    given = {name: value for name, value in fields.items() if value is not None}
    filed = fields_of(config_file)
    asked = {**filed, **given}
    ranks.seed(seed)
    text = text_of(input_file)
    manager = CheckpointManager(
        model_name, base_dir, fallback=fallback, keep=keep, tier=tier, ranks=ranks
    )
    there = ranks.broadcast(manager.exists() if ranks.first else None)
    if there or init_from_model is not None:
        # Only what is used is checked: the rest is the checkpoint's.
        filed = {} if there else only(TAKEN_ON_RESUME, filed)
        given = only(TAKEN_ON_RESUME, given)
    model, optimizer, start_step = manager.initialize_for_training(
        config_of(filed, given),
        tokenization,
        text,
        learning_rate,
        init_from_model,
        fresh_optimizer=fresh_optimizer,
        taken_on_resume=[name for name in TAKEN_ON_RESUME if name in given],
        tokenizer_options=tokenizer_options,
        from_step=from_step,
    )
    if carry_vocabulary:
        model.vocabulary.carry()
    if manager.removed:
        click.echo(f"went back to step {from_step}: removed {_steps(manager.removed)}")
    if ranks.first:
        _say_what_begins(model, asked, config_file, manager.checkpoint_dir, start_step)
    ranks.part()
    return Begun(manager, model, optimizer, loader_of(model, text), start_step, there)


def kept(manager: CheckpointManager) -> Keep | None:
    """Return what is kept of a history; say so where nobody asked for it."""
    from gpt.saver import keep_of

    keep = keep_of(manager.checkpoint_dir, manager.keep, manager.tier)
    if keep is not None and manager.keep is None:
        click.echo("going on with a history: every step stays (--keep_last N keeps fewer)")
    return keep


def _steps(steps: tuple[int, ...]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"


def loader_of(model: GPT, text: str) -> GPTDataLoader:
    """Return a loader of a text, prepared for a model."""
    from gpt.data import GPTDataLoader

    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    return loader


def text_of(input_file: Path) -> str:
    """Return the text of a file.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return input_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{input_file} is not UTF-8 text: {error}") from error


def _say_what_begins(
    model: GPT,
    asked: dict[str, Any],
    config_file: Path | None,
    where: str,
    start_step: int,
) -> None:
    for name in ("block_size", "n_embd", "n_head", "n_layer", "bias"):
        there = getattr(model.config, name)
        if name in asked and asked[name] != there:
            click.echo(f"{name} stays {there}, as in the checkpoint, not {asked[name]}", err=True)
    vocab_size = asked.get("vocab_size", model.config.vocab_size)
    if vocab_size != model.config.vocab_size:
        click.echo(
            f"vocab_size is {model.config.vocab_size} for the {model.token_kind!r} tokenizer, "
            f"not {vocab_size} as in {config_file}",
            err=True,
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    begin = f"going on at step {start_step}" if start_step else "starting"
    kind = clean(model.token_kind)
    click.echo(f"{begin}: {parameters:,} parameters, {kind} tokenizer, {where}")
