"""The class of the kind.

Rules of this file:

1. Text is text: what looks like a special token in it is encoded as ordinary text.
2. Every id below `n_vocab` has a text. Some encodings have gaps between their ranks and their
   special tokens; tiktoken refuses ids in them, here they are U+FFFD, as bytes are that mean
   nothing.
3. An encoding is what its fingerprint says: that is compared whenever ranks come from outside the
   state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import CorruptionError
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.gpt2 import fingerprint_of_ranks
from ckptstore_tiktoken.library import asked, library
from ckptstore_tiktoken.named import file_here, vocabulary_of
from ckptstore_tiktoken.ranks import Vocabulary, dumped, ranks_in, read_file
from ckptstore_tiktoken.state import KIND, Named, damaged, fingerprint_of_own, read, state_of_own
from ckptstore_tiktoken.training import GPT2_PATTERN, ranks_of

__all__ = ["TiktokenTokenizer"]

_FILE = "tokenizer.tiktoken"
_GAP = "\ufffd".encode()

_log = logging.getLogger("ckptstore.tokenizers.tiktoken")


class TiktokenTokenizer(Tokenizer):
    """A byte-pair encoding as tiktoken has it.

    Guarantee: ids are those of tiktoken's ``encode_ordinary``, and every text comes back exactly.

    Args:
        vocabulary: ranks, special tokens and pattern.
        named: the encoding whose vocabulary it is; None for ranks that stand in the state.

    Raises:
        CorruptionError: tiktoken makes no encoding of it.
        UnsupportedError: tiktoken is not installed.
    """

    kind = KIND

    def __init__(self, vocabulary: Vocabulary, named: Named | None = None) -> None:
        self._vocabulary = vocabulary
        self._named = named
        ids = [*vocabulary.ranks.values(), *vocabulary.special_tokens.values()]
        self._n_vocab = max(ids) + 1
        self._bytes: list[bytes] = [_GAP] * self._n_vocab
        for token, number in vocabulary.ranks.items():
            self._bytes[number] = token
        for name, number in reversed(list(vocabulary.special_tokens.items())):
            self._bytes[number] = name.encode()  # of two names the first
        self._encoding = asked(
            lambda: library().Encoding(
                name=named.encoding if named else "own ranks",
                pat_str=vocabulary.pattern,
                mergeable_ranks=dict(vocabulary.ranks),
                special_tokens=dict(vocabulary.special_tokens),
            ),
            lambda why: damaged(f"tiktoken makes no encoding of it ({why})"),
        )
        self._fingerprint = _fingerprint(vocabulary, named)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TiktokenTokenizer:
        """Return the tokenizer of a state; the ranks of an encoding by name are tiktoken's.

        Raises:
            CorruptionError: the state is malformed, or tiktoken has other ranks.
            UnsupportedError: the encoding is not on this machine and cannot be downloaded; the
                message says which files go where.
        """
        described = read(state)
        if isinstance(described, Vocabulary):
            return cls(described)
        here = vocabulary_of(described.encoding)
        if described.pattern is not None and described.pattern != here.pattern:
            _log.warning(
                "the tiktoken here splits texts for %r by another pattern than the checkpoint "
                "has; the checkpoint's is used",
                described.encoding,
            )
        return cls._proved(described, here.ranks, here)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        encoding: str = "",
        vocab_size: int = 8192,
        min_frequency: int = 2,
        pattern: str = "",
        file: str = "",
    ) -> TiktokenTokenizer:
        """Return ranks that are trained on this text, or an encoding that exists.

        Guarantee: the same text and options give the same state, in every process.

        Args:
            text: what to train on.
            encoding: take the encoding of this name; the text then trains nothing.
            vocab_size: the most ids; 256 of them are bytes, and a short text gives fewer.
            min_frequency: how often two neighbours have to be there to become a token.
            pattern: a regular expression; no token reaches from one match into the next. By default
                texts are split as GPT-2 splits them.
            file: a ``.tiktoken`` file to take the ranks of; the text then trains nothing.

        Raises:
            ValueError: an option is out of range, or two exclude each other.
            UnsupportedError: as for `from_state`.
            NotFoundError: there is no such file.
            CorruptionError: the file holds no ranks.
        """
        trained = (vocab_size, min_frequency) != (8192, 2)
        if encoding and (trained or pattern or file):
            raise ValueError("encoding takes a vocabulary as it is; leave out the other options")
        if file and trained:
            raise ValueError(
                "file takes ranks as they are; leave out vocab_size and min_frequency, or leave "
                "out file"
            )
        if encoding:
            return cls.from_encoding(encoding)
        pattern = pattern or GPT2_PATTERN
        if file:
            return cls.from_file(file, pattern=pattern)
        _check_unicode(text)
        ranks = ranks_of(text, pattern=pattern, vocab_size=vocab_size, min_frequency=min_frequency)
        return cls(Vocabulary(pattern, ranks, {}).checked())

    @classmethod
    def from_encoding(cls, name: str) -> TiktokenTokenizer:
        """Return an encoding by name, such as ``cl100k_base``.

        Raises:
            UnsupportedError: as for `from_state`.
        """
        here = vocabulary_of(name)
        fingerprint = fingerprint_of_ranks(here.ranks, here.special_tokens)
        return cls(here, Named(name, fingerprint, here.pattern, here.special_tokens))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str = GPT2_PATTERN,
        special_tokens: Mapping[str, int] | None = None,
    ) -> TiktokenTokenizer:
        """Return the tokenizer of a ``.tiktoken`` file; its state holds the ranks.

        Args:
            path: lines of a token in base64, a space and its rank.
            pattern: the regular expression that splits a text.
            special_tokens: the id of each, if there are some.

        Raises:
            NotFoundError: there is no such file.
            StorageError: it cannot be read.
            CorruptionError: it holds no ranks, or is larger than 64 MiB.
        """
        data = read_file(path)
        try:
            ranks = ranks_in(data)
            return cls(Vocabulary(pattern, ranks, dict(special_tokens or {})).checked())
        except ValueError as error:
            raise CorruptionError(
                f"{os.fspath(path)!r} holds no ranks of tiktoken: {error}"
            ) from error

    # -- files beside the state -----------------------------------------------------------

    @classmethod
    def file_names_of(cls, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Return ``tokenizer.tiktoken`` of a state that names ranks and does not hold them."""
        return (_FILE,) if isinstance(read(state), Named) else ()

    @classmethod
    def files_of(cls, state: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return the ranks that a state names and does not hold, as far as they are here.

        Nothing is downloaded. Of encodings that are not OpenAI's it is not known whether they
        would be, so those are found in `files` alone.

        Returns:
            ``tokenizer.tiktoken``, OpenAI's text of the ranks; or nothing.

        Raises:
            CorruptionError: the state is malformed.
        """
        described = read(state)
        data = file_here(described.encoding) if isinstance(described, Named) else None
        return {} if data is None else {_FILE: data}

    def files(self) -> Mapping[str, bytes]:
        """Return the ranks that the state names and does not hold, as they are in use."""
        if self._named is None:
            return {}
        return {_FILE: "".join(f"{line}\n" for line in dumped(self._vocabulary.ranks)).encode()}

    @classmethod
    def from_files(cls, state: Mapping[str, Any], files: Mapping[str, bytes]) -> TiktokenTokenizer:
        """Return the tokenizer of a state with the ranks of a file, so that none are downloaded.

        Args:
            state: as for `from_state`.
            files: ``tokenizer.tiktoken``, if it is there; without it `from_state` is asked.

        Raises:
            CorruptionError: the state is malformed, or the ranks are not those of its fingerprint.
            UnsupportedError: as for `from_state`, where there is no file.
        """
        described = read(state)
        data = files.get(_FILE)
        if not isinstance(described, Named) or described.pattern is None or data is None:
            return cls.from_state(state)
        try:
            ranks = ranks_in(data)
        except ValueError as error:
            raise damaged(f"{_FILE} holds no ranks of tiktoken: {error}") from error
        return cls._proved(described, ranks)

    # -- text and ids -----------------------------------------------------------------------

    @property
    def n_vocab(self) -> int:
        """The highest id and one."""
        return self._n_vocab

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; ``<|endoftext|>`` in it is ordinary text.

        Raises:
            ValueError: the pattern leaves out part of the text, or the text holds half of a
                surrogate pair.
        """
        length = _check_unicode(text)
        ids: list[int] = asked(
            lambda: self._encoding.encode_ordinary(text),
            lambda why: ValueError(f"tiktoken cannot encode this text: {why}"),
        )
        if sum(map(len, map(self._bytes.__getitem__, ids))) != length:
            raise ValueError(self._left_out(text, ids))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids.

        Bytes that are not UTF-8, and ids in a gap of the vocabulary, become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        bad = next((number for number in ids if not 0 <= number < self._n_vocab), None)
        if bad is not None:
            raise ValueError(
                f"id {bad!r} is not in this vocabulary; ids run from 0 to {self._n_vocab - 1}"
            )
        return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", "replace")

    # -- state ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the encoding's name and what fixes it, or the vocabulary itself."""
        return state_of_own(self._vocabulary) if self._named is None else self._named.state()

    def fingerprint(self) -> str:
        """Return the fingerprint of the ranks that are really in use."""
        return self._fingerprint

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint that the vocabulary of a state has to have.

        Of an encoding by name it is that of ranks and special tokens, the same as of the kind
        ``gpt2``; the pattern, which tiktoken rewrites now and then, stands in the state. Of one's
        own ranks it is of them, the special tokens and the pattern.

        Raises:
            CorruptionError: the state is malformed.
        """
        described = read(state)
        if isinstance(described, Named):
            return described.fingerprint
        return fingerprint_of_own(described)

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return what it is: ``tiktoken's cl100k_base``, or ``byte-level BPE of 512 ids``."""
        described = read(state)
        if isinstance(described, Named):
            return f"tiktoken's {described.encoding}"
        ids = max((*described.ranks.values(), *described.special_tokens.values())) + 1
        return f"byte-level BPE of {ids} ids"

    @classmethod
    def _proved(
        cls, named: Named, ranks: Mapping[bytes, int], here: Vocabulary | None = None
    ) -> TiktokenTokenizer:
        """Return the tokenizer of an encoding by name, if these are its ranks."""
        pattern = here.pattern if here and named.pattern is None else named.pattern
        special = here.special_tokens if here and named.special_tokens is None else None
        try:
            vocabulary = Vocabulary(pattern or "", ranks, special or named.special_tokens or {})
            made = cls(vocabulary.checked(), named)
        except ValueError as error:
            raise damaged(str(error)) from error
        if made.fingerprint() != named.fingerprint:
            raise CorruptionError(
                f"the ranks of {named.encoding!r} here are not the ones of the training: their "
                f"fingerprint is {made.fingerprint()}, the state's is {named.fingerprint}; restore "
                "tokenizer.json from a good copy, or install the encoding of the training"
            )
        return made

    def _left_out(self, text: str, ids: Sequence[int]) -> str:
        data, kept = text.encode(), b"".join(map(self._bytes.__getitem__, ids))
        pairs = enumerate(zip(data, kept, strict=False))
        same = next((i for i, (given, back) in pairs if given != back), len(kept))
        char = data[same:].decode("utf-8", "replace")[:1]
        return (
            f"the pattern of this vocabulary leaves out {char!r} (U+{ord(char):04X}), and perhaps "
            "more of the text; make it match everything"
        )


def _fingerprint(vocabulary: Vocabulary, named: Named | None) -> str:
    if named is None:
        return fingerprint_of_own(vocabulary)
    return fingerprint_of_ranks(vocabulary.ranks, vocabulary.special_tokens)


def _check_unicode(text: str) -> int:
    """Return the number of bytes of a text as UTF-8."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        char = text[error.start]
        raise ValueError(
            f"the text holds {char!r} (U+{ord(char):04X}) at {error.start}, half of a surrogate "
            "pair, which is no character; read the text as UTF-8"
        ) from None
