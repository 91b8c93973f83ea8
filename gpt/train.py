"""``gpt train``: begin a model, or go on with one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.commands import (
    SEED,
    base_dir,
    clean,
    fallback,
    kinds,
    model_name,
    models,
    tokenizer_options,
)
from gpt.config_options import config_of, config_options, fields_of, only
from gpt.ranked import RankedCommand
from gpt.ranks import TIMEOUT
from gpt.saves import save_options

if TYPE_CHECKING:
    import torch

    from ckptstore import Keep
    from gpt.checkpoint import CheckpointManager
    from gpt.data import GPTDataLoader
    from gpt.leaving import Outcome
    from gpt.model import GPT
    from gpt.ranks import Ranks
    from gpt.saves import Saves

__all__ = ["SAMPLE_TEXT", "main"]

# Passages with no character that their beginning lacks: the old models of this family were trained
# on that beginning, and go on with this text as it is.
SAMPLE_TEXT = Path(__file__).parent / "inferno.txt"


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


@click.command("train", cls=RankedCommand)
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
@click.option(
    "--grace",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a save may take after SIGTERM, SIGINT or a notice; then it gives up.",
)
@click.option(
    "--preemption_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A notice: when this file appears, save and end, as at SIGTERM.",
)
@click.option(
    "--rank_timeout",
    type=click.FloatRange(min=1),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long a rank waits for one that is there and does not answer, such as rank 0 while "
    "it saves.",
)
@fallback
@config_options
@click.pass_obj
def main(
    ranks: Ranks,
    max_iters: int,
    eval_interval: int,
    eval_iters: int,
    saves: Saves,
    grace: float,
    preemption_file: Path | None,
    rank_timeout: float,
    **beginning: Any,
) -> None:
    """Train a model, or go on with one that is there already.

    On resume the architecture is the checkpoint's, and whatever is not given.

    SIGTERM and SIGINT end it with the step that it is at, saved; a second one ends it at once.

    Several processes, the ranks, train one model together when torchrun starts them: 'torchrun
    --nproc-per-node 2 -m gpt.train ...'. Each has batches of its own, rank 0 saves.
    """
    from gpt.agreed import check_same_plan
    from gpt.leaving import Outcome, Stopped, leave_at_once, preemption_of, stopped_by_signals

    preemption = None
    has_ended = False
    with stopped_by_signals():
        try:
            begun = _begin(ranks, keep=saves.keep, **beginning)
            outcome = Outcome(begun.start_step, begun.start_step if begun.is_resumed else None)
            where = begun.manager.checkpoint_dir
            if ranks.first:
                saves = replace(saves, keep=_kept(begun.manager), replace=begun.manager.damaged)
            check_same_plan(ranks, begun.loader, saves, max_iters, eval_interval, eval_iters)
            with preemption_of(
                grace, preemption_file, lambda: _given_up(ranks, outcome, where, grace)
            ) as preemption:
                begun.model.fit(
                    begun.loader,
                    begun.optimizer,
                    max_iters,
                    eval_interval=eval_interval,
                    eval_iters=eval_iters,
                    checkpoint_dir=where,
                    start_step=begun.start_step,
                    saves=saves,
                    preemption=preemption,
                    outcome=outcome,
                    ranks=ranks,
                )
                click.echo(_end_of(begun, outcome, max_iters, preemption.reason))
                has_ended = True
        except Stopped as stopped:
            if preemption is not None and preemption.requested and not has_ended:
                leave_at_once(stopped)
            if not has_ended:
                click.echo(_stopped(stopped.signal.name, begun_with=None))
                ranks.stop()


@dataclass
class _Begun:
    """A training that can begin."""

    manager: CheckpointManager
    model: GPT
    optimizer: torch.optim.Optimizer
    loader: GPTDataLoader
    start_step: int
    is_resumed: bool


def _begin(
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
    **fields: Any,
) -> _Begun:
    from gpt.checkpoint import TAKEN_ON_RESUME, CheckpointManager

    given = {name: value for name, value in fields.items() if value is not None}
    filed = fields_of(config_file)
    asked = {**filed, **given}
    ranks.seed(seed)
    text = _text(input_file)
    manager = CheckpointManager(model_name, base_dir, fallback=fallback, keep=keep, ranks=ranks)
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
    return _Begun(manager, model, optimizer, _loader(model, text), start_step, there)


def _end_of(begun: _Begun, outcome: Outcome, max_iters: int, reason: str | None) -> str:
    """Return the line with which a training ends."""
    where = begun.manager.checkpoint_dir
    if reason is not None and outcome.step == begun.start_step < max_iters:
        return _stopped(reason, begun.start_step if begun.is_resumed else None)
    if outcome.step < max_iters:
        return f"{reason}: stopped after step {outcome.step}, which is saved in {where}"
    if outcome.step or begun.is_resumed:
        return f"step {outcome.step} is finished; the checkpoint is in {where}"
    return "nothing to do with --max_iters 0: nothing was trained, and nothing saved"


def _stopped(reason: str, begun_with: int | None) -> str:
    there = "" if begun_with is None else f"; step {begun_with} is the newest"
    return f"{reason}: stopped before the first step, there is nothing to save{there}"


def _given_up(ranks: Ranks, outcome: Outcome, where: str, grace: float) -> str:
    ranks.failed()
    newest = "nothing is saved there"
    if outcome.saved is not None:
        newest = f"the newest saved step is {outcome.saved}"
    is_missing = outcome.saved != outcome.step
    missing = f"step {outcome.step} is not saved" if is_missing else "the training has not ended"
    return f"the {grace:g} s of --grace are over, and {missing} in {where}; {newest}"


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
