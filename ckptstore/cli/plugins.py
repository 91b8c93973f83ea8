"""``ckptstore plugins``: what is installed, what it adds, and what failed to load."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from ckptstore.cli import options, screen
from ckptstore.errors import CkptstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptstore.plugins import PluginInfo, TokenizerOption

__all__ = ["command"]


@click.command("plugins")
@options.json_output
@options.talk
def command(as_json: bool) -> None:
    """List the plugins, what they add, and what failed.

    Formats that are read, those that are written too, and tokenizer kinds; the
    built-in ones first. A plugin that fails stops nobody: the exit code is 0.
    Below them, what a tokenizer kind can be told with gpt train --tokenizer_option.

    CKPTSTORE_PLUGINS=none or =a,b chooses plugins, CKPTSTORE_DISABLE_PLUGINS=a,b
    leaves some out.
    """
    from ckptstore.plugins import loaded

    # What a plugin prints while it is imported is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        infos = loaded()
    if as_json:
        screen.print_json([_document(info) for info in infos])
        return
    cells = [("plugin", "from", "reads", "writes", "tokenizers", "status"), *map(_cells, infos)]
    for line in screen.table(cells):
        click.echo(line)
    for info in infos:
        told = info.error or (f"switched off by {info.off_by}" if info.off_by else None)
        if told:
            click.echo(click.style(f"{screen.clean(info.name)}: ", bold=True), nl=False)
            click.echo(click.style(screen.clean(told), fg="yellow" if info.error else None))
    for kind, known in sorted(_options(infos).items()):
        told = ", ".join(f"{option.name}={_text(option.default)}" for option in known.values())
        click.echo(click.style(f"options of {screen.clean(kind)}: ", bold=True), nl=False)
        click.echo(screen.clean(told))


def _options(infos: Sequence[PluginInfo]) -> dict[str, dict[str, TokenizerOption]]:
    """Return the training options of the kinds that are there and have some."""
    from ckptstore.plugins import tokenizer_options

    found = {}
    for kind in (kind for info in infos if info.status == "active" for kind in info.tokenizers):
        with contextlib.suppress(CkptstoreError):  # what is disputed is told of already
            found[kind] = tokenizer_options(kind)
    return {kind: known for kind, known in found.items() if known}


def _text(value: object) -> str:
    """Return a default as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(info: PluginInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "module": info.module,
        "formats": info.formats,
        "writable": info.writable,
        "tokenizers": info.tokenizers,
        "tokenizer_options": {
            kind: {
                option.name: {"type": option.type.__name__, "default": option.default}
                for option in known.values()
            }
            for kind, known in _options([info]).items()
        },
        "status": info.status,
        "error": info.error,
        "off_by": info.off_by,
    }


def _cells(info: PluginInfo) -> tuple[str, ...]:
    origin = " ".join(part for part in (info.distribution, info.version) if part)
    return tuple(
        screen.clean(cell)
        for cell in (
            info.name,
            origin or info.module,
            ", ".join(info.formats) or "-",
            ", ".join(info.writable) or "-",
            ", ".join(info.tokenizers) or "-",
            info.status,
        )
    )
