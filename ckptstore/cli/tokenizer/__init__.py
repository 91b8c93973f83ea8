"""``ckptstore tokenizer``: what a tokenizer needs beside its state, as files."""

from __future__ import annotations

import click

from ckptstore.cli.group import LazyGroup
from ckptstore.cli.talking import talk

__all__ = ["command"]

_COMMANDS = {
    "export": "Write a tokenizer's files into FOLDER.",
    "fetch": "Download the files of a tokenizer to this machine.",
}


@click.group(
    "tokenizer",
    cls=LazyGroup,
    commands_in=__name__,
    commands=_COMMANDS,
    invoke_without_command=True,
)
@talk
@click.pass_context
def command(context: click.Context) -> None:
    """Get the files of a tokenizer, or take them out.

    The tokenizer kind gpt2 needs the ranks that OpenAI published. A checkpoint
    that is made to be shared carries them (see ckptstore sync --vocabulary); for
    all others they have to be on the machine.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)
