"""The format ``huggingface`` for ckptstore: model folders as transformers has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptstore import hookimpl

if TYPE_CHECKING:
    from ckptstore.formats.base import Format

__all__ = ["ckptstore_formats"]


@hookimpl
def ckptstore_formats() -> list[type[Format]]:
    """Return the format ``huggingface``."""
    from ckptstore_huggingface.format import HuggingFaceFormat

    return [HuggingFaceFormat]
