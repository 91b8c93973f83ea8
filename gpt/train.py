"""``gpt train``: begin a model, or go on with one."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.commands import (
    SEED,
    Command,
    base_dir,
    clean,
    fallback,
    kinds,
    model_name,
    models,
    tokenizer_options,
)
from gpt.saves import save_options

if TYPE_CHECKING:
    from ckptstore import Keep
    from gpt.checkpoint import CheckpointManager
    from gpt.config import GPTConfig
    from gpt.data import GPTDataLoader
    from gpt.model import GPT
    from gpt.saves import Saves

__all__ = ["SAMPLE_TEXT", "main"]

# Passages with no character that their beginning lacks: the old models of this family were trained
# on that beginning, and go on with this text as it is.
SAMPLE_TEXT = Path(__file__).parent / "inferno.txt"

# The options that are fields of the config.
_CONFIG_OPTIONS = (
    click.option("--batch_size", type=int, metavar="N", help="Sequences in a batch."),
    click.option("--block_size", type=int, metavar="N", help="Longest sequence, in tokens."),
    click.option("--n_embd", type=int, metavar="N", help="Width; a multiple of n_head."),
    click.option("--n_head", type=int, metavar="N", help="Attention heads in each block."),
    click.option("--n_layer", type=int, metavar="N", help="Blocks."),
    click.option("--dropout", type=float, metavar="P", help="Probability, in training."),
    click.option(
        "--bias/--no-bias", default=None, help="Whether key, query and value have a bias."
    ),
    click.option("--device", metavar="NAME", help="Where to compute: cpu, cuda, ..."),
)


def _config_options(command: Any) -> Any:
    for option in reversed(_CONFIG_OPTIONS):
        command = option(command)
    return command


def _pairs(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.UsageError(
                f"--tokenizer_option {pair!r} is not KEY=VALUE, such as vocab_size=512", context
            )
        if key in options:
            raise click.UsageError(f"--tokenizer_option {key} is given twice", context)
        options[key] = value
    return options


@click.command("train", cls=Command)
@model_name
@base_dir
@click.option(
    "--input_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=SAMPLE_TEXT,
    show_default="passages of Dante's Inferno",
    metavar="FILE",
    help="The text, in UTF-8; the ids of a long one are kept in ~/.cache/gpt.",
)
@click.option(
    "--tokenization",
    metavar="KIND",
    shell_complete=kinds,
    help="char, gpt2 or a plugin's; a new model's default is char, an old one keeps its own.",
)
@click.option(
    "--tokenizer_option",
    "tokenizer_options",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_pairs,
    shell_complete=tokenizer_options,
    help="What to tell KIND when it makes a new model's vocabulary, once for each: "
    "vocab_size=512. 'ckptstore plugins' lists the options of each kind.",
)
@click.option(
    "--init_from_model",
    metavar="NAME",
    shell_complete=models,
    help="Begin with the weights of this model in base_dir.",
)
@click.option(
    "--config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A config.json for a new model; options given beside it win.",
)
@click.option(
    "--max_iters",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Optimizer steps in all, those of earlier runs included.",
)
@click.option(
    "--eval_interval",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Steps from one evaluation to the next.",
)
@save_options
@click.option(
    "--eval_iters",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Batches in an evaluation.",
)
@click.option(
    "--learning_rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="A new model's default is 3e-4; an old one goes on with its own.",
)
@click.option("--seed", type=SEED, metavar="N", help="The same seed trains the same new model.")
@click.option(
    "--from_step",
    type=click.IntRange(min=0),
    metavar="N",
    help="Go back to this step of a history, and remove the later ones.",
)
@click.option(
    "--fresh_optimizer", is_flag=True, help="On resume, leave the optimizer's state aside."
)
@click.option(
    "--carry_vocabulary",
    is_flag=True,
    help="Save what the tokenizer needs, such as gpt2's ranks, with the model: it then works on "
    "a machine without network.",
)
@fallback
@_config_options
def main(
    model_name: str,
    base_dir: str,
    input_file: Path,
    tokenization: str | None,
    tokenizer_options: dict[str, str],
    init_from_model: str | None,
    config_file: Path | None,
    max_iters: int,
    eval_interval: int,
    saves: Saves,
    eval_iters: int,
    learning_rate: float | None,
    seed: int | None,
    from_step: int | None,
    fresh_optimizer: bool,
    carry_vocabulary: bool,
    fallback: bool,
    **fields: Any,
) -> None:
    """Train a model, or go on with one that is there already.

    On resume the architecture is the checkpoint's, and whatever is not given.
    """
    import torch

    from gpt.checkpoint import TAKEN_ON_RESUME, CheckpointManager

    given = {name: value for name, value in fields.items() if value is not None}
    filed = _values(config_file)
    asked = {**filed, **given}
    if seed is not None:
        torch.manual_seed(seed)
    text = _text(input_file)
    manager = CheckpointManager(model_name, base_dir, fallback=fallback, keep=saves.keep)
    there = manager.exists()
    if there or init_from_model is not None:
        # Only what is used is checked: the rest is the checkpoint's.
        filed = {} if there else _only(TAKEN_ON_RESUME, filed)
        given = _only(TAKEN_ON_RESUME, given)
    model, optimizer, start_step = manager.initialize_for_training(
        _config(filed, given),
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
    _say_what_begins(model, asked, config_file, manager.checkpoint_dir, start_step)
    saves = replace(saves, keep=_kept(manager), replace=manager.damaged)
    model.fit(
        _loader(model, text),
        optimizer,
        max_iters,
        eval_interval=eval_interval,
        eval_iters=eval_iters,
        checkpoint_dir=manager.checkpoint_dir,
        start_step=start_step,
        saves=saves,
    )
    done = max(start_step, max_iters)
    if done or there:
        click.echo(f"step {done} is finished; the checkpoint is in {manager.checkpoint_dir}")
    else:
        click.echo("nothing to do with --max_iters 0: nothing was trained, and nothing saved")


def _kept(manager: CheckpointManager) -> Keep | None:
    """Return what is kept of a history; say so where nobody asked for it."""
    from gpt.saver import keep_of

    keep = keep_of(manager.checkpoint_dir, manager.keep)
    if keep is not None and manager.keep is None:
        click.echo("going on with a history: every step stays (--keep_last N keeps fewer)")
    return keep


def _steps(steps: tuple[int, ...]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"


def _loader(model: GPT, text: str) -> GPTDataLoader:
    from gpt.data import GPTDataLoader

    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    return loader


def _config(filed: dict[str, Any], given: dict[str, Any]) -> GPTConfig:
    """Return the config of a file's fields in their order, and of options, which win."""
    from gpt.config import GPTConfig

    config = GPTConfig.from_dict({name: given.get(name, value) for name, value in filed.items()})
    return config.with_values(**given)


def _only(names: Collection[str], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _values(config_file: Path | None) -> dict[str, Any]:
    """Return the fields of a file, not yet checked."""
    if config_file is None:
        return {}
    try:
        values = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config_file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{config_file} holds no JSON object but {type(values).__name__}")
    return values


def _text(input_file: Path) -> str:
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


if __name__ == "__main__":
    main(prog_name="python -m gpt.train")
