"""The tokenizer kinds that ship with ckptstore, registered like those of any plugin."""

from __future__ import annotations

from ckptstore.hookspecs import hookimpl
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["ckptstore_tokenizers"]


@hookimpl
def ckptstore_tokenizers() -> list[type[Tokenizer]]:
    """Return the kinds ``char`` and ``gpt2``."""
    from ckptstore.tokenizers.char import CharTokenizer
    from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer

    return [CharTokenizer, Gpt2Tokenizer]
