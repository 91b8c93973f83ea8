"""The tokenizer kind ``hf-tokenizers``: a tokenizer of Hugging Face's library `tokenizers`.

`HfTokenizer.from_text` makes a byte-level BPE of a text, `HfTokenizer.from_file` takes any
``tokenizer.json`` that exists. The state holds the whole tokenizer, so a checkpoint needs no
network and no folder of the Hub.
"""

from __future__ import annotations

from ckptstore import hookimpl
from ckptstore.tokenizers.base import Tokenizer
from ckptstore_hf_tokenizers.kind import HfTokenizer

__all__ = ["HfTokenizer", "ckptstore_tokenizers"]


@hookimpl
def ckptstore_tokenizers() -> list[type[Tokenizer]]:
    """Return the kind ``hf-tokenizers``."""
    return [HfTokenizer]
