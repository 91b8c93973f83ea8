"""``gpt train``: begin a model, or go on with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.beginning import begin, kept
from gpt.commands import (
    SEED,
    base_dir,
    fallback,
    kinds,
    model_name,
    models,
    tokenizer_options,
)
from gpt.config_options import config_options
from gpt.ranked import RankedCommand
from gpt.ranks import TIMEOUT
from gpt.saves import save_options

if TYPE_CHECKING:
    from gpt.beginning import Begun
    from gpt.leaving import Outcome
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
            begun = begin(ranks, keep=saves.keep, tier=saves.tier, **beginning)
            outcome = Outcome(begun.start_step, begun.start_step if begun.is_resumed else None)
            where = begun.manager.checkpoint_dir
            if ranks.first:
                saves = replace(
                    saves,
                    keep=kept(begun.manager),
                    replace=begun.manager.damaged,
                    tier=begun.manager.tier,
                )
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


def _end_of(begun: Begun, outcome: Outcome, max_iters: int, reason: str | None) -> str:
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


if __name__ == "__main__":
    main(prog_name="python -m gpt.train")
