"""``ckptstore plugins``: what is installed, what it adds, and what failed to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptstore.cli import options, screen

if TYPE_CHECKING:
    from ckptstore.plugins import PluginInfo

__all__ = ["command"]


@click.command("plugins")
@options.json_output
@options.talk
def command(as_json: bool) -> None:
    """List the plugins, what they add, and what failed.

    CKPTSTORE_PLUGINS=none or =a,b chooses plugins, CKPTSTORE_DISABLE_PLUGINS=a,b
    leaves some out.
    """
    from ckptstore.plugins import loaded

    infos = loaded()
    if as_json:
        screen.print_json([_document(info) for info in infos])
        return
    cells = [("plugin", "from", "formats", "tokenizers", "status"), *map(_cells, infos)]
    for line in screen.table(cells):
        click.echo(line)
    for info in infos:
        if info.error:
            click.echo(click.style(f"{screen.clean(info.name)}: ", bold=True), nl=False)
            click.echo(click.style(screen.clean(info.error), fg="yellow"))


def _document(info: PluginInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "module": info.module,
        "formats": info.formats,
        "tokenizers": info.tokenizers,
        "status": info.status,
        "error": info.error,
    }


def _cells(info: PluginInfo) -> tuple[str, ...]:
    origin = " ".join(part for part in (info.distribution, info.version) if part)
    return tuple(
        screen.clean(cell)
        for cell in (
            info.name,
            origin or info.module,
            ", ".join(info.formats) or "-",
            ", ".join(info.tokenizers) or "-",
            info.status,
        )
    )
