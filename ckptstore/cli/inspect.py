"""``ckptstore inspect``: what a checkpoint holds, without reading its weights."""

from __future__ import annotations

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.inspected import document, lines
from ckptstore.cli.near import matching, none_like
from ckptstore.cli.progress import Bar
from ckptstore.cli.waits import tell_what_waits

__all__ = ["command"]


@click.command("inspect")
@options.location(required=False)
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
    storage_options: StorageOptions,
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
        location, step=step, fallback=fallback, storage_options=storage_options.of(location)
    )
    tensors = checkpoint.tensors() if pattern or stats else {}
    chosen = matching(tensors, pattern or "*")
    if pattern and not chosen:
        raise click.UsageError(none_like(pattern, tensors), context)
    with Bar() as bar:
        measured = checkpoint.statistics(chosen, progress=bar) if stats else {}
    steps = history.steps_of(checkpoint)
    if as_json:
        screen.print_json(document(checkpoint, chosen if pattern else {}, measured, steps))
    else:
        for line in lines(checkpoint, chosen, measured, steps):
            click.echo(line)
        tell_what_waits(location, storage_options.of(location))
