"""The format ``nanogpt``: the ``ckpt.pt`` of karpathy/nanoGPT, read and written."""

from __future__ import annotations

from ckptstore import hookimpl
from ckptstore_nanogpt.format import NanogptFormat
from ckptstore_nanogpt.meta import meta_of, tokenizer_of

__all__ = ["NanogptFormat", "ckptstore_formats", "meta_of", "tokenizer_of"]


@hookimpl
def ckptstore_formats() -> list[type[NanogptFormat]]:
    """Return the format ``nanogpt``."""
    return [NanogptFormat]
