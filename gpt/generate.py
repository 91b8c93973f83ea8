"""``gpt generate``: let a model write."""

from __future__ import annotations

import click

from gpt.commands import Command, base_dir, legacy_checkpoint, model_name

__all__ = ["main"]


@click.command("generate", cls=Command)
@model_name
@base_dir
@legacy_checkpoint
@click.option("--prompt", required=True, metavar="TEXT", help="What to go on from.")
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
@click.option("--seed", type=int, metavar="N", help="The same seed writes the same text.")
@click.option("--device", metavar="NAME", help="Where to compute; the checkpoint's by default.")
@click.option(
    "--tokenization", metavar="KIND", help="The tokenizer of a checkpoint that records none."
)
def main(
    model_name: str,
    base_dir: str,
    legacy_checkpoint: str | None,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    device: str | None,
    tokenization: str | None,
) -> None:
    """Print a prompt and what a model writes after it."""
    from ckptstore import plugins
    from gpt.checkpoint import CheckpointManager
    from gpt.config import usable_device

    model = CheckpointManager.load_for_inference(
        model_name,
        base_dir,
        legacy_checkpoint,
        map_location=None if device is None else usable_device(device),
    )
    if tokenization is not None and model.token_kind is None:
        model.tokenizer = plugins.load_tokenizer({"token_kind": tokenization})
    click.echo(
        model.generate(
            prompt,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
    )


if __name__ == "__main__":
    main(prog_name="python -m gpt.generate")
