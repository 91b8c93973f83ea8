"""``ckptstore inspect``: what a checkpoint holds, without reading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.inspected import document, lines
from ckptstore.cli.progress import Bar

if TYPE_CHECKING:
    from ckptstore.manifest import TensorInfo

__all__ = ["command"]


@click.command("inspect")
@click.argument("location", required=False)
@options.json_output
@options.tensors
@click.option(
    "--stats",
    is_flag=True,
    help="Tell the least, greatest and mean value of each tensor, its standard deviation, and how "
    "many values are NaN, infinite or zero. Reads them.",
)
@options.step
@options.fallback
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str | None,
    as_json: bool,
    pattern: str | None,
    stats: bool,
    step: int | None,
    fallback: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Show what a checkpoint holds, without reading its weights.

    Format, config, tokenizer, training state, modules, tied tensors, the
    optimizer and its settings, files and their sizes, the steps or generations
    that it is one of, which JSON was edited by hand, and whether digests prove
    the files.
    """
    import ckptstore
    from ckptstore import history

    if location is None and pattern not in (None, "*"):
        location, pattern = pattern, "*"  # ``--tensors LOCATION``
    if location is None:
        raise click.UsageError("missing argument 'LOCATION'", context)
    options.no_step_and_fallback(context, step, fallback)
    checkpoint = ckptstore.open(
        location, step=step, fallback=fallback, storage_options=storage_options
    )
    chosen = matching(checkpoint.tensors(), pattern or "*") if pattern or stats else {}
    if pattern and not chosen:
        raise click.UsageError(f"no tensor is called like {pattern!r}", context)
    with Bar() as bar:
        measured = checkpoint.statistics(chosen, progress=bar) if stats else {}
    steps = history.steps_of(checkpoint)
    if as_json:
        screen.print_json(document(checkpoint, chosen if pattern else {}, measured, steps))
    else:
        for line in lines(checkpoint, chosen, measured, steps):
            click.echo(line)


def matching(tensors: Mapping[str, TensorInfo], pattern: str) -> dict[str, TensorInfo]:
    """Return the tensors whose names match a pattern of the shell's kind."""
    return {name: info for name, info in tensors.items() if fnmatchcase(name, pattern)}
