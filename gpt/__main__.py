"""The command ``gpt``. Each command imports what it needs when it runs; help imports no torch."""

from __future__ import annotations

import click

from gpt.commands import LazyGroup

__all__ = ["main"]


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    modules={
        "train": "gpt.train",
        "generate": "gpt.generate",
        "inspect": "gpt.inspect_model",
        "verify-resume": "gpt.verify_resume",
    },
    # What each command's own help says first: the help of them all imports none of them.
    lines={
        "train": "Train a model, or go on with one that is there already.",
        "generate": "Print a prompt and what a model writes after it.",
        "inspect": "Print format, config, tokenizer, training state and tensors of a checkpoint.",
        "verify-resume": "Prove that going on from a checkpoint is exact, bit for bit.",
    },
)
@click.pass_context
def main(context: click.Context) -> None:
    """Train a small GPT, let it write, and look at its checkpoints."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


if __name__ == "__main__":
    main(prog_name="gpt")
