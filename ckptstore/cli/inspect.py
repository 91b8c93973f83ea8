"""``ckptstore inspect``: what a checkpoint holds, without reading its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.inspected import TensorSummary, lines

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint

__all__ = ["command"]


@click.command("inspect")
@click.argument("location")
@options.json_output
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
@options.step
@options.fallback
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    as_json: bool,
    with_tensors: bool,
    step: int | None,
    fallback: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Show what a checkpoint holds, without reading its weights.

    Format, config, tokenizer, training state, tensors, files and their sizes,
    which JSON was edited by hand, and whether digests prove the files.
    """
    import ckptstore

    options.no_step_and_fallback(context, step, fallback)
    checkpoint = ckptstore.open(
        location, step=step, fallback=fallback, storage_options=storage_options
    )
    if as_json:
        screen.print_json(_document(checkpoint, with_tensors))
    else:
        for line in lines(checkpoint, with_tensors):
            click.echo(line)


def _document(checkpoint: Checkpoint, with_tensors: bool) -> dict[str, Any]:
    tensors = checkpoint.tensors()
    summary = TensorSummary.of(tensors)
    document = {
        "location": checkpoint.location,
        "format": checkpoint.format,
        "generation": checkpoint.generation,
        "step": checkpoint.step,
        "created": checkpoint.created,
        "writer": checkpoint.writer,
        "proved": checkpoint.proved,
        "edited": checkpoint.edited,
        "passed_over": [
            {"called": state.called, "step": state.step, "reason": state.reason}
            for state in checkpoint.passed_over
        ],
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer_state,
        "fingerprint": checkpoint.fingerprint,
        "training_state": checkpoint.training_state,
        "metrics": checkpoint.metrics,
        "has_optimizer": checkpoint.has_optimizer,
        "states": checkpoint.states(),
        "tensors": {
            "count": summary.count,
            "parameters": summary.parameters,
            "nbytes": summary.nbytes,
            "dtypes": summary.dtypes,
        },
        "files": {
            name: {"size": info.size, "sha256": info.sha256, "present": info.present}
            for name, info in checkpoint.files().items()
        },
    }
    if with_tensors:
        document["tensor_index"] = {
            name: {"dtype": info.dtype, "shape": info.shape, "nbytes": info.nbytes}
            for name, info in tensors.items()
        }
    return document
