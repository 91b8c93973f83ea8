"""The tokenizer kind ``tiktoken``: every encoding of OpenAI's tiktoken, and ranks of your own.

`TiktokenTokenizer.from_encoding` takes an encoding by name, `from_text` trains ranks on a text,
`from_file` reads a ``.tiktoken`` file.
"""

from __future__ import annotations

from ckptstore import hookimpl
from ckptstore.tokenizers.base import Tokenizer
from ckptstore_tiktoken.kind import TiktokenTokenizer

__all__ = ["TiktokenTokenizer", "ckptstore_tokenizers"]


@hookimpl
def ckptstore_tokenizers() -> list[type[Tokenizer]]:
    """Return the kind ``tiktoken``."""
    return [TiktokenTokenizer]
