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
