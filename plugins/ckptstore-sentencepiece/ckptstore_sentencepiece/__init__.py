"""The tokenizer kind ``sentencepiece``: a model of Google's SentencePiece.

`SentencePieceTokenizer.from_text` trains one on a text, `SentencePieceTokenizer.from_file` takes
any ``tokenizer.model`` that exists. The state holds the whole model.
"""

from __future__ import annotations

from ckptstore import hookimpl
from ckptstore.tokenizers.base import Tokenizer
from ckptstore_sentencepiece.kind import SentencePieceTokenizer

__all__ = ["SentencePieceTokenizer", "ckptstore_tokenizers"]


@hookimpl
def ckptstore_tokenizers() -> list[type[Tokenizer]]:
    """Return the kind ``sentencepiece``."""
    return [SentencePieceTokenizer]
