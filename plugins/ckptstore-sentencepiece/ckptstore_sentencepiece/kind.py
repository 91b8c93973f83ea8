"""The class of the kind.

Rules of this file:

1. A model that promises to keep every text (bytes for what is unknown, no normalization, blanks as
   they are) keeps it to the last character. SentencePiece itself takes its own sign for a space
   (U+2581) in a text for a space; here it goes by its bytes, and so does a space where the
   vocabulary has no piece for it.
2. Any other model encodes and decodes as the library does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import CorruptionError, NotFoundError, StorageError
from ckptstore.tokenizers.base import Tokenizer
from ckptstore_sentencepiece.library import asked, library
from ckptstore_sentencepiece.proto import facts_of
from ckptstore_sentencepiece.state import (
    KIND,
    MOST_BYTES,
    damaged,
    fingerprint_of_model,
    read,
    state_of,
)
from ckptstore_sentencepiece.training import BLANK, model_of

__all__ = ["SentencePieceTokenizer"]

_TOGETHER = 4096  # parts of a text that are encoded in one call


class SentencePieceTokenizer(Tokenizer):
    """A model of SentencePiece.

    Guarantee: a model of `from_text` gives every text back exactly. One from elsewhere gives back
    what it keeps of a text: many add a space in front, and put a sign for what they do not know.
    Control symbols never come out of a text.

    Args:
        model: a serialized ``ModelProto``: the bytes of a ``tokenizer.model``.

    Raises:
        CorruptionError: the library makes no model of it.
        UnsupportedError: the library is not installed.
    """

    kind = KIND

    def __init__(self, model: bytes) -> None:
        try:
            self._facts = facts_of(model)
        except ValueError as error:
            raise damaged(f"'model' is no SentencePiece model: {error}") from error
        self._model = bytes(model)
        processor = library().SentencePieceProcessor
        self._library = asked(
            lambda: processor(model_proto=self._model),
            lambda why: damaged(f"sentencepiece makes no model of it ({why})"),
        )
        self._n_vocab = int(self._library.get_piece_size())
        self._bytes: dict[str, list[int]] = {}
        self._cut: re.Pattern[str] | None = None
        if self._facts.exact:
            self._bytes = self._that_go_by_their_bytes()
            self._cut = re.compile("([" + re.escape("".join(self._bytes)) + "])")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SentencePieceTokenizer:
        """Return the tokenizer of a state.

        Raises:
            CorruptionError: the state is malformed.
            UnsupportedError: the library is not installed.
        """
        model, _ = read(state)
        return cls(model)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        vocab_size: int = 8192,
        model_type: str = "unigram",
        character_coverage: float = 0.9995,
        file: str = "",
    ) -> SentencePieceTokenizer:
        """Return a model that is trained on this text, or that of a file.

        Guarantee: the same text and options give the same state, in every process.

        Args:
            text: what to train on.
            vocab_size: the most ids; a short text gives fewer.
            model_type: ``unigram``, ``bpe`` or ``char``.
            character_coverage: the share of the text's characters that have ids of their own, 0.98
                to 1; the others go by their bytes.
            file: a ``tokenizer.model`` to take instead; the text then trains nothing.

        Raises:
            ValueError: an option is out of range or does not fit the text, the text is empty, or
                two options exclude each other.
            NotFoundError: there is no such file.
            CorruptionError: the file is no model.
        """
        if file:
            if (vocab_size, model_type, character_coverage) != (8192, "unigram", 0.9995):
                raise ValueError(
                    "file takes the model as it is in the file; leave out the other options, or "
                    "leave out file"
                )
            return cls.from_file(file)
        _check_unicode(text)
        return cls(
            model_of(
                text,
                vocab_size=vocab_size,
                model_type=model_type,
                character_coverage=character_coverage,
            )
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SentencePieceTokenizer:
        """Return the tokenizer of a ``tokenizer.model``, such as Llama's or T5's.

        Raises:
            NotFoundError: there is no such file.
            StorageError: it cannot be read.
            CorruptionError: it is no model, or larger than 40 MiB.
        """
        where = os.fspath(path)
        try:
            with open(path, "rb") as opened:
                data = opened.read(MOST_BYTES + 1)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {where!r}") from error
        except OSError as error:
            raise StorageError(f"{where!r} cannot be read: {error.strerror}") from error
        if len(data) > MOST_BYTES:
            raise CorruptionError(f"{where!r} is larger than {MOST_BYTES} bytes")
        try:
            return cls(data)
        except CorruptionError as error:
            raise CorruptionError(f"{where!r} is no model of SentencePiece: {error}") from error

    def to_model(self) -> bytes:
        """Return the bytes of a ``tokenizer.model``, for the library itself and for others."""
        return self._model

    @property
    def n_vocab(self) -> int:
        """The number of pieces."""
        return self._n_vocab

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; text that looks like a control symbol is ordinary text.

        Raises:
            ValueError: the text holds half of a surrogate pair.
        """
        _check_unicode(text)
        if self._cut is None:
            return self._encoded([text])[0]
        ids: list[int] = []
        parts = self._cut.split(text)
        for start in range(0, len(parts), _TOGETHER):
            some = parts[start : start + _TOGETHER]
            # What stands between two cuts, and what was cut at, take turns.
            between = iter(self._encoded(some[0::2]))
            for at, part in enumerate(some):
                ids += self._bytes[part] if at % 2 else next(between)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        ids = list(ids)
        bad = next((number for number in ids if not 0 <= number < self._n_vocab), None)
        if bad is not None:
            raise ValueError(
                f"id {bad!r} is not in this vocabulary; ids run from 0 to {self._n_vocab - 1}"
            )
        text: str = self._library.decode(ids) if ids else ""
        return text

    def state(self) -> dict[str, Any]:
        """Return the model in base64, and what it is."""
        return state_of(self._model, self._facts)

    def fingerprint(self) -> str:
        """Return the digest of the model's bytes."""
        return fingerprint_of_model(self._model)

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the digest of the model's bytes: what ``sha256sum tokenizer.model`` prints.

        Raises:
            CorruptionError: the state is malformed.
        """
        model, _ = read(state)
        return fingerprint_of_model(model)

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return what it is, such as ``SentencePiece unigram of 8192 ids``."""
        _, facts = read(state)
        number = facts.vocab_size
        return f"SentencePiece {facts.model_type} of {number} id" + "s" * (number != 1)

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = asked(
            lambda: self._library.encode(texts, add_bos=False, add_eos=False, num_threads=1),
            lambda why: ValueError(f"sentencepiece cannot encode this text: {why}"),
        )
        return ids

    def _that_go_by_their_bytes(self) -> dict[str, list[int]]:
        """Return what SentencePiece does not give back, and the ids of the bytes of it."""
        ids = range(self._n_vocab)
        pieces = {self._library.id_to_piece(number): number for number in ids}
        chars = [BLANK]
        if BLANK not in pieces:
            chars.append(" ")
        if not any("\n" in piece for piece in pieces):
            chars.append("\n")  # It goes by its byte anyway; cutting here keeps the parts short.
        try:
            return {char: [pieces[f"<0x{b:02X}>"] for b in char.encode()] for char in chars}
        except KeyError as error:
            raise damaged(f"it has no piece {error.args[0]!r}, though bytes are covered") from None


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        char = text[error.start]
        raise ValueError(
            f"the text holds {char!r} (U+{ord(char):04X}) at {error.start}, half of a surrogate "
            "pair, which is no character; read the text as UTF-8"
        ) from None
