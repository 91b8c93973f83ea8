"""``ckptstore completion``: the script with which a shell completes our commands."""

from __future__ import annotations

import click

from ckptstore.cli.talking import talk

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@talk
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    It completes commands and options, paths, the formats of --to, and the steps
    of a history on a local disk.

    \b
    bash: add  eval "$(ckptstore completion bash)"  to ~/.bashrc
    zsh:  add  eval "$(ckptstore completion zsh)"  to ~/.zshrc, after compinit
    fish: ckptstore completion fish > ~/.config/fish/completions/ckptstore.fish
    """  # noqa: D301  (click wants the letter, not the two signs)
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}", context)
    click.echo(kind(context.find_root().command, {}, "ckptstore", "_CKPTSTORE_COMPLETE").source())
