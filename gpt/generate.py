"""``gpt generate``: let a model write."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ckptstore.errors import CorruptionError
from gpt.commands import (
    SEED,
    Command,
    base_dir,
    clean,
    fallback,
    kinds,
    legacy_checkpoint,
    model_name,
)

if TYPE_CHECKING:
    from gpt.model import GPT

__all__ = ["main"]


@click.command("generate", cls=Command)
@model_name
@base_dir
@legacy_checkpoint
@fallback
@click.option(
    "--prompt",
    metavar="TEXT",
    show_default="a line break, or the first of the vocabulary",
    help="What to go on from.",
)
@click.option("--max_new_tokens", type=int, default=200, show_default=True, metavar="N")
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="Below 1 is more certain; 0 takes the likeliest token.",
)
@click.option("--top_k", type=int, metavar="K", help="Draw from the K likeliest tokens only.")
@click.option(
    "--top_p", type=float, metavar="P", help="Draw from the likeliest that together reach P."
)
@click.option("--seed", type=SEED, metavar="N", help="The same seed writes the same text.")
@click.option("--device", metavar="NAME", help="Where to compute; the checkpoint's by default.")
@click.option(
    "--tokenization",
    metavar="KIND",
    shell_complete=kinds,
    help="The tokenizer of a checkpoint that records none.",
)
def main(
    model_name: str,
    base_dir: str,
    legacy_checkpoint: str | None,
    fallback: bool,
    prompt: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    device: str | None,
    tokenization: str | None,
) -> None:
    """Print a prompt and what a model writes after it."""
    from gpt.checkpoint import CheckpointManager
    from gpt.config import usable_device

    model = CheckpointManager.load_for_inference(
        model_name,
        base_dir,
        legacy_checkpoint,
        map_location=None if device is None else usable_device(device),
        fallback=fallback,
    )
    if tokenization is not None and model.token_kind is None:
        manager = CheckpointManager(model_name, base_dir)
        where = manager.get_path(legacy_checkpoint) if legacy_checkpoint else manager.checkpoint_dir
        _use_kind(model, tokenization, where)
    text = model.generate(
        _first_text(model) if prompt is None else prompt,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    # A vocabulary may hold what commands a terminal; a file or a pipe gets the text as it is.
    click.echo(clean(text, keep="\n\t") if sys.stdout.isatty() else text)


def _use_kind(model: GPT, kind: str, where: str) -> None:
    """Give a model the tokenizer that its kind alone says."""
    from ckptstore import plugins

    try:
        model.tokenizer = plugins.load_tokenizer({"token_kind": kind})
    except CorruptionError as error:
        needed = "the characters" if kind == "char" else "more than its name"
        raise ValueError(
            f"the tokenizer kind {kind!r} needs {needed}, which {where} does not record; "
            f"train it for a step with --tokenization {kind} and the text of its training, "
            "which records that"
        ) from error


def _first_text(model: GPT) -> str:
    """Return what a model goes on from where nobody says: a line break, or id 0."""
    try:
        ids = model.encode("\n")
    except ValueError:
        ids = []
    return "\n" if ids else model.decode([0])


if __name__ == "__main__":
    main(prog_name="python -m gpt.generate")
