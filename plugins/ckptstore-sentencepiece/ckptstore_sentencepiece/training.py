"""A model of a text that gives every text back exactly, the same in every process."""

from __future__ import annotations

import io
import re

from ckptstore_sentencepiece.library import asked, library

__all__ = ["BLANK", "TYPES", "model_of"]

TYPES = ("unigram", "bpe", "char")
BLANK = "\u2581"  # what SentencePiece writes for a space
_MOST_IDS = 2**22
_LEAST_COVERAGE = 0.98  # the library's own
_LONGEST = 4192  # bytes in a sentence that the library takes unless told otherwise
_TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


def model_of(text: str, *, vocab_size: int, model_type: str, character_coverage: float) -> bytes:
    """Return a serialized model.

    Args:
        text: without halves of surrogate pairs.
        vocab_size: the most ids; 257 of them are the bytes and the unknown piece.
        model_type: ``unigram``, ``bpe`` or ``char``.
        character_coverage: the share of the text's characters that have ids of their own,
            0.98 to 1.

    Raises:
        ValueError: an option is out of range, or does not fit the text.
    """
    if model_type not in TYPES:
        raise ValueError(f"model_type is {model_type!r}, not one of {', '.join(TYPES)}")
    if not 0 < vocab_size <= _MOST_IDS:
        raise ValueError(f"vocab_size is {vocab_size}, not 1 to {_MOST_IDS}")
    if not _LEAST_COVERAGE <= character_coverage <= 1:
        raise ValueError(f"character_coverage is {character_coverage}, not {_LEAST_COVERAGE} to 1")
    # A piece never reaches over a line, and what SentencePiece writes for a space is no letter.
    sentences = [part for part in re.split(f"[\n{BLANK}]", text) if part]
    if not sentences:
        raise ValueError("the text is empty, so there is nothing to train on")
    written = io.BytesIO()
    asked(
        lambda: library().SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            # Longer ones would be left out without a word.
            max_sentence_length=max(_LONGEST, *(len(part.encode()) + 1 for part in sentences)),
            # A short text makes a smaller vocabulary, not an error.
            hard_vocab_limit=False,
            # Every text is covered, and comes back as it was.
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            # No control symbols: nothing would ever write them.
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            # Sums of several threads depend on which one ends first.
            num_threads=1,
            minloglevel=2,
        ),
        lambda why: _refusal(why, vocab_size),
    )
    return written.getvalue()


def _refusal(why: str, vocab_size: int) -> ValueError:
    needed = _TOO_SMALL.search(why)
    if needed is None:
        return ValueError(f"sentencepiece cannot train on this text: {why}")
    return ValueError(
        f"vocab_size is {vocab_size}, and the characters of this text and the 256 bytes need "
        f"{needed[1]}; take a larger vocab_size, or a smaller character_coverage"
    )
