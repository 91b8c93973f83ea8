"""A byte-level BPE of a text, the same for the same text in every process.

Of the library's trainers only this one is offered. The merges that it chooses depend on counts, and
between equal counts on ids; those of the trainers for Unigram and WordPiece depend on the order of
a hash table that is another one in every process, so that the same text gives other ids each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ckptstore_hf_tokenizers.library import library, one_thread

__all__ = ["MOST_IDS", "byte_level_bpe", "pieces"]

BYTES = 256
MOST_IDS = 2**24
_PIECE = 2**16
_CUT = re.compile(r"[!-~]\n(?=[!-~])")


def byte_level_bpe(text: str, *, vocab_size: int, min_frequency: int) -> Any:
    """Return a `tokenizers.Tokenizer` trained on a text.

    Args:
        text: without halves of surrogate pairs.
        vocab_size: the most ids; the 256 bytes are among them, so every text is covered.
        min_frequency: how often a pair has to be there to become a token.

    Raises:
        ValueError: an option is out of range.
    """
    if not BYTES <= vocab_size <= MOST_IDS:
        raise ValueError(
            f"vocab_size is {vocab_size}, not {BYTES} to {MOST_IDS}; each of the {BYTES} bytes has "
            "an id, so that every text is covered"
        )
    if not 0 <= min_frequency < 2**63:
        raise ValueError(f"min_frequency is {min_frequency}, not 0 or more")
    tokenizers = library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    with one_thread():
        made.train_from_iterator(pieces(text), trainer)
    return made


def pieces(text: str) -> Iterator[str]:
    """Cut a long text where GPT-2's way to split cuts it too, so that memory is bounded."""
    start = 0
    while len(text) - start > _PIECE:
        cut = _CUT.search(text, start + _PIECE)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    if start < len(text):
        yield text[start:] if start else text
