"""``gpt inspect``: what a checkpoint is, without reading its weights and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ckptstore.errors import CorruptionError
from gpt.commands import Command, base_dir, clean, legacy_checkpoint, model_name

if TYPE_CHECKING:
    from ckptstore import Checkpoint

__all__ = ["main"]

_SHOWN = 5


@click.command("inspect", cls=Command)
@model_name
@base_dir
@legacy_checkpoint
def main(model_name: str, base_dir: str, legacy_checkpoint: str | None) -> None:
    """Print format, config, tokenizer, training state and tensors of a checkpoint.

    Ends with exit code 4 where config and weights contradict each other.
    """
    from gpt import bundle
    from gpt.checkpoint import CheckpointManager

    checkpoint = CheckpointManager(model_name, base_dir).open(legacy_checkpoint)
    wrong = bundle.contradiction(checkpoint)
    sections = {
        "FORMAT": _format(checkpoint),
        "CONFIG": _config(checkpoint, wrong),
        "TOKENIZER": _tokenizer(checkpoint),
        "TRAINING STATE": _training_state(checkpoint),
        "WEIGHTS": _weights(checkpoint),
    }
    parts = ("\n".join((f"=== {title} ===", *map(clean, body))) for title, body in sections.items())
    click.echo("\n\n".join(parts))
    if wrong is not None:
        click.get_current_context().exit(CorruptionError.exit_code)


def _format(checkpoint: Checkpoint) -> Iterator[str]:
    yield {
        "bundle": "New JSON-based format",
        "legacy": "Legacy single-file format",
    }.get(checkpoint.format, f"Format {checkpoint.format!r}")
    yield f"Location: {checkpoint.location}"
    if not checkpoint.proved:
        yield "Not verified: it has no manifest"
    if checkpoint.edited:
        yield f"Edited by hand: {', '.join(checkpoint.edited)}"


def _config(checkpoint: Checkpoint, wrong: str | None) -> Iterator[str]:
    if checkpoint.config is None:
        yield "No config recorded"
    else:
        yield ", ".join(f"{name}:{value}" for name, value in checkpoint.config.items())
    if wrong is not None:
        yield f"Contradiction: {wrong}"


def _tokenizer(checkpoint: Checkpoint) -> Iterator[str]:
    from ckptstore import plugins

    state = checkpoint.tokenizer_state
    if state is None:
        yield "No tokenizer recorded"
    else:
        yield f"kind      : {state.get('token_kind')}"
        yield f"vocab     : {plugins.describe(state)}"


def _training_state(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.step is None:
        yield "No training step recorded"
    else:
        yield f"Last recorded training step: {checkpoint.step}"
    yield f"optimizer : {'present' if checkpoint.has_optimizer else 'none'}"
    for name, value in (checkpoint.training_state or {}).items():
        if name not in ("step", "optimizer_file"):
            yield f"{name}: {value}"


def _weights(checkpoint: Checkpoint) -> Iterator[str]:
    tensors = checkpoint.tensors()
    names = list(tensors)
    yield f"Number of tensors: {len(names)}"
    yield f"Parameters: {sum(math.prod(info.shape) for info in tensors.values()):,}"
    more = ", ..." if len(names) > _SHOWN else ""
    yield f"Parameter names: {', '.join(names[:_SHOWN])}{more}"


if __name__ == "__main__":
    main(prog_name="python -m gpt.inspect_model")
