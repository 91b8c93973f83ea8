"""The class of the kind.

Rules of this file:

1. The state is kept as it was given, to the last field, whatever the installed library would write
   instead; so its fingerprint stays the same for ever.
2. What the library would do to a text beside encoding it is switched off: truncation, padding,
   special tokens that are added, special tokens that are found in ordinary text, and sampling,
   with which the same text would have other ids each time.
3. Nothing is lost in silence: where the library would leave out what the vocabulary lacks, it is a
   ValueError.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import CorruptionError, NotFoundError, StorageError
from ckptstore.texts import parse_json
from ckptstore.tokenizers.base import Tokenizer
from ckptstore_hf_tokenizers.library import asked, library
from ckptstore_hf_tokenizers.state import (
    KIND,
    described,
    loses_unknown_characters,
    may_be_cut,
    tokenizer_of,
)
from ckptstore_hf_tokenizers.training import MOST_IDS, byte_level_bpe, pieces

__all__ = ["HfTokenizer"]

_MOST_BYTES = 64 * 2**20  # as much as a checkpoint's tokenizer.json may have
_SHOWN = 5
_LONGEST = 200
_SAMPLING = ("dropout", "alpha", "nbest_size")  # of BPE, and of Unigram


class HfTokenizer(Tokenizer):
    """A tokenizer of Hugging Face's library `tokenizers`.

    Guarantee: ids are those of the library for this ``tokenizer.json`` without added special
    tokens. A tokenizer of `from_text` gives every text back exactly; one from elsewhere gives back
    what it keeps of a text, so a normalizer that lowers letters, or an unknown token, shows.

    Args:
        tokenizer: the object of a ``tokenizer.json``.

    Raises:
        CorruptionError: the library cannot make a tokenizer of it.
        UnsupportedError: the library is not installed.
    """

    kind = KIND

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        tokenizer = tokenizer_of({"token_kind": KIND, "tokenizer": tokenizer})
        try:
            self._json = json.dumps(tokenizer, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise _damaged(f"it is no JSON: {error}") from error
        self._cut = may_be_cut(tokenizer)
        self._library = _made(self._json)
        ids = set(self._library.get_vocab(with_added_tokens=True).values())
        self._n_vocab = max(ids, default=-1) + 1
        # Some published vocabularies have a few gaps; with more, an id is hardly an id.
        if not 0 < self._n_vocab <= min(2 * len(ids), MOST_IDS):
            raise _damaged(f"its {len(ids)} ids run up to {self._n_vocab - 1}")
        self._covered: set[str] | None = set() if loses_unknown_characters(tokenizer) else None
        self._fingerprint: str | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HfTokenizer:
        """Return the tokenizer of ``{"token_kind": "hf-tokenizers", "tokenizer": {...}}``.

        Raises:
            CorruptionError: the state is malformed.
            UnsupportedError: the library is not installed.
        """
        return cls(tokenizer_of(state))

    @classmethod
    def from_text(
        cls, text: str, *, vocab_size: int = 8192, min_frequency: int = 2, file: str = ""
    ) -> HfTokenizer:
        """Return a byte-level BPE that is trained on this text, or the tokenizer of a file.

        Guarantee: the same text and options give the same state, in every process.

        Args:
            text: what to train on.
            vocab_size: the most ids; 256 of them are bytes, and a short text gives fewer.
            min_frequency: how often a pair has to be there to become a token.
            file: a ``tokenizer.json`` to take instead; the text then trains nothing.

        Raises:
            ValueError: an option is out of range, or two exclude each other.
            NotFoundError: there is no such file.
            CorruptionError: the file is no tokenizer.
        """
        if file:
            if (vocab_size, min_frequency) != (8192, 2):
                raise ValueError(
                    "file takes the tokenizer as it is in the file; leave out vocab_size and "
                    "min_frequency, or leave out file"
                )
            return cls.from_file(file)
        _check_unicode(text)
        made = byte_level_bpe(text, vocab_size=vocab_size, min_frequency=min_frequency)
        return cls.from_tokenizer(made)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> HfTokenizer:
        """Return the tokenizer of a ``tokenizer.json``, such as those on the Hub.

        Raises:
            NotFoundError: there is no such file.
            StorageError: it cannot be read.
            CorruptionError: it is no tokenizer, or larger than 64 MiB.
        """
        try:
            with open(path, "rb") as opened:
                data = opened.read(_MOST_BYTES + 1)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {os.fspath(path)!r}") from error
        except OSError as error:
            raise StorageError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from error
        if len(data) > _MOST_BYTES:
            raise CorruptionError(f"{os.fspath(path)!r} is larger than {_MOST_BYTES} bytes")
        return cls.from_state({"token_kind": KIND, "tokenizer": parse_json(data, os.fspath(path))})

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> HfTokenizer:
        """Return the kind's tokenizer for a `tokenizers.Tokenizer`.

        Args:
            tokenizer: it is copied, and not changed. That of a fast tokenizer of transformers is
                its ``backend_tokenizer``.
        """
        return cls.from_state({"token_kind": KIND, "tokenizer": json.loads(tokenizer.to_str())})

    def to_tokenizer(self) -> Any:
        """Return a `tokenizers.Tokenizer` of the caller's own, truncation and all as it is stored.

        ``transformers.PreTrainedTokenizerFast(tokenizer_object=...)`` takes it.
        """
        return library().Tokenizer.from_str(self._json)

    @property
    def n_vocab(self) -> int:
        """The highest id and one."""
        return self._n_vocab

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; text that looks like a special token is ordinary text.

        Raises:
            ValueError: the vocabulary lacks something and has no token for what is unknown, or
                the text holds half of a surrogate pair.
        """
        _check_unicode(text)
        self._check_covered(text)
        ids: list[int] = []
        for piece in pieces(text) if self._cut else (text,):
            call = functools.partial(self._library.encode, piece, add_special_tokens=False)
            ids += asked(call, lambda why: ValueError(self._refusal(text, why))).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included.

        An id in a gap of the vocabulary is no text. Bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        ids = list(ids)
        bad = next((number for number in ids if not 0 <= number < self._n_vocab), None)
        if bad is not None:
            raise ValueError(
                f"id {bad!r} is not in this vocabulary; ids run from 0 to {self._n_vocab - 1}"
            )
        text: str = asked(
            lambda: self._library.decode(ids, skip_special_tokens=False),
            lambda why: ValueError(f"these ids cannot be decoded: {why}"),
        )
        return text

    def state(self) -> dict[str, Any]:
        """Return the tokenizer as it was given: a copy."""
        return {"token_kind": KIND, "tokenizer": json.loads(self._json)}

    def fingerprint(self) -> str:
        """Return the digest of the canonical JSON of the state."""
        if self._fingerprint is None:
            self._fingerprint = self.fingerprint_of(self.state())
        return self._fingerprint

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint of a state; fields beside the tokenizer do not count.

        Raises:
            CorruptionError: the state is of another kind, or holds no tokenizer.
        """
        return super().fingerprint_of({"token_kind": KIND, "tokenizer": tokenizer_of(state)})

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return what it is, such as ``byte-level BPE of 8192 ids``."""
        return described(tokenizer_of(state))

    def _check_covered(self, text: str) -> None:
        """Refuse what the library would leave out without a word."""
        if self._covered is None:
            return
        new = set(text) - self._covered
        lacking = {char for char in new if self._lacks(char)}
        self._covered |= new - lacking
        if lacking:
            raise ValueError(_lacking([char for char in dict.fromkeys(text) if char in lacking]))

    def _lacks(self, char: str) -> bool:
        parts = self._library
        left = char if parts.normalizer is None else parts.normalizer.normalize_str(char)
        if parts.pre_tokenizer is not None:
            left = "".join(piece for piece, _ in parts.pre_tokenizer.pre_tokenize_str(left))
        return bool(left) and not parts.encode(char, add_special_tokens=False).ids

    def _refusal(self, text: str, why: str) -> str:
        """Return why the library refuses a text: what the vocabulary lacks, where it is that."""
        unknown = []
        for char in dict.fromkeys(text):
            try:
                self._library.encode(char, add_special_tokens=False)
            except Exception:
                unknown.append(char)
        return f"{_lacking(unknown)}; {why}" if unknown else f"the text cannot be encoded: {why}"


def _made(text: str) -> Any:
    made = asked(functools.partial(library().Tokenizer.from_str, text), _damaged)
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    for name in _SAMPLING:
        if getattr(made.model, name, None) is not None:
            setattr(made.model, name, None)
    return made


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        char = text[error.start]
        raise ValueError(
            f"the text holds {char!r} (U+{ord(char):04X}) at {error.start}, half of a surrogate "
            "pair, which is no character; read the text as UTF-8"
        ) from None


def _lacking(chars: Sequence[str]) -> str:
    listed = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in chars[:_SHOWN])
    more = f" and {len(chars) - _SHOWN} more" if len(chars) > _SHOWN else ""
    return f"the text holds {listed}{more}, which this vocabulary lacks"


def _damaged(why: str) -> CorruptionError:
    return CorruptionError(
        f"the tokenizer state is damaged: {why[:_LONGEST]!r}; restore it from a good copy"
    )
