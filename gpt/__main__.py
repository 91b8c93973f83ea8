"""The command ``gpt``. Each command imports what it needs when it runs; help imports no torch."""

from __future__ import annotations

import click

from gpt.commands import LazyGroup

__all__ = ["main"]


@click.group(
    cls=LazyGroup,
    modules={
        "train": "gpt.train",
        "generate": "gpt.generate",
        "inspect": "gpt.inspect_model",
    },
)
def main() -> None:
    """Train a small GPT, let it write, and look at its checkpoints."""


if __name__ == "__main__":
    main(prog_name="gpt")
