"""The config that a command is given: its options, and the file beside them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gpt.config import GPTConfig

__all__ = ["config_of", "config_options", "fields_of", "only"]

_OPTIONS = (
    click.option("--batch_size", type=int, metavar="N", help="Sequences in a batch."),
    click.option("--block_size", type=int, metavar="N", help="Longest sequence, in tokens."),
    click.option("--n_embd", type=int, metavar="N", help="Width; a multiple of n_head."),
    click.option("--n_head", type=int, metavar="N", help="Attention heads in each block."),
    click.option("--n_layer", type=int, metavar="N", help="Blocks."),
    click.option("--dropout", type=float, metavar="P", help="Probability, in training."),
    click.option(
        "--bias/--no-bias", default=None, help="Whether key, query and value have a bias."
    ),
    click.option("--device", metavar="NAME", help="Where to compute: cpu, cuda, ..."),
)


def config_options(command: Any) -> Any:
    """Give a command the options that are fields of the config."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def config_of(filed: dict[str, Any], given: dict[str, Any]) -> GPTConfig:
    """Return the config of a file's fields in their order, and of options, which win."""
    from gpt.config import GPTConfig

    config = GPTConfig.from_dict({name: given.get(name, value) for name, value in filed.items()})
    return config.with_values(**given)


def only(names: Collection[str], values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of these names."""
    return {name: value for name, value in values.items() if name in names}


def fields_of(config_file: Path | None) -> dict[str, Any]:
    """Return the fields of a file, not yet checked."""
    if config_file is None:
        return {}
    try:
        values = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config_file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{config_file} holds no JSON object but {type(values).__name__}")
    return values
