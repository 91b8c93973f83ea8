"""The two hooks of the entry-point group ``ckptstore``. Each takes nothing and returns a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ckptstore.formats.base import Format
    from ckptstore.tokenizers.base import Tokenizer

__all__ = ["ckptstore_formats", "ckptstore_tokenizers", "hookimpl"]

hookspec = pluggy.HookspecMarker("ckptstore")
hookimpl = pluggy.HookimplMarker("ckptstore")


@hookspec
def ckptstore_formats() -> list[type[Format]]:  # type: ignore[empty-body]
    """Return the formats that this plugin adds, as classes."""


@hookspec
def ckptstore_tokenizers() -> list[type[Tokenizer]]:  # type: ignore[empty-body]
    """Return the tokenizer kinds that this plugin adds, as classes."""
