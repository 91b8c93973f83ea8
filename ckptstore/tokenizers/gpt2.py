"""The kind ``gpt2``: the byte-pair encoding of GPT-2 as tiktoken has it.

Rules of this file:

1. The state is two words, and needs neither tiktoken nor a network to be written, described or
   fingerprinted; only `Gpt2Tokenizer.from_state` needs the vocabulary itself.
2. The vocabulary is what fixes the meaning of ids: the ranks and the special tokens. tiktoken's
   splitting pattern is no part of the fingerprint, because tiktoken has once put an equivalent,
   faster one in its place.
3. Nothing waits for a network that does not answer.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import os
import reprlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.texts import encode_utf8
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["FINGERPRINT", "Gpt2Tokenizer", "fingerprint_of_ranks"]

# `fingerprint_of_ranks` of the 50,256 ranks in the vocab.bpe and encoder.json that OpenAI
# published, and of <|endoftext|> as 50256. The lines of the ranks alone are, byte for byte, the
# file r50k_base.tiktoken that OpenAI published later (SHA-256 306cd27f03c1...d930), as tiktoken
# pins it. A test computes both again from the two files.
FINGERPRINT = "sha256:081b9d145e0c2443d38650502a92e07a486d907839a5565cf264bee1f11458e2"

_SOURCE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class _File:
    """One of the two files: OpenAI's name, tiktoken's name in its cache, and its SHA-256."""

    name: str
    cached_as: str
    sha256: str


_FILES = (
    _File(
        "vocab.bpe",
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    _File(
        "encoder.json",
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
)


class Gpt2Tokenizer(Tokenizer):
    """GPT-2's byte-pair encoding: 50,257 ids, any text.

    The vocabulary is read once per process, at the first `from_state` or `from_text`.
    """

    kind = "gpt2"

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Gpt2Tokenizer:
        """Return the tokenizer of ``{"token_kind": "gpt2"}``.

        Raises:
            CorruptionError: the state says more than that; null fields, which old files have,
                say nothing.
            UnsupportedError: the vocabulary is not on this machine and cannot be downloaded;
                the message says which two files go where.
        """
        _check(state)
        _vocabulary()
        return cls()

    @classmethod
    def from_text(cls, text: str) -> Gpt2Tokenizer:
        """Return the tokenizer; the vocabulary is the same whatever the text.

        Raises:
            UnsupportedError: as for `from_state`.
        """
        return cls.from_state({"token_kind": cls.kind})

    @property
    def n_vocab(self) -> int:
        """50257."""
        return int(_vocabulary().encoding.n_vocab)

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text; ``<|endoftext|>`` in it is ordinary text.

        Raises:
            ValueError: the text holds half of a surrogate pair, which tiktoken would replace.
        """
        if not text.isascii():
            encode_utf8(text)
        ids: list[int] = _vocabulary().encoding.encode_ordinary(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        try:
            text: str = _vocabulary().encoding.decode(ids)
        except (KeyError, OverflowError):
            bad = next((i for i in ids if not 0 <= i < self.n_vocab), None)
            raise ValueError(
                f"id {bad!r} is not in the gpt2 vocabulary; ids run from 0 to {self.n_vocab - 1}"
            ) from None
        return text

    def state(self) -> dict[str, Any]:
        """Return ``{"token_kind": "gpt2"}``."""
        return {"token_kind": self.kind}

    def ranks(self) -> dict[bytes, int]:
        """Return the id of each token by its bytes, special tokens left out."""
        return dict(_vocabulary().ranks)

    def fingerprint(self) -> str:
        """Return the fingerprint of the ranks that are really in use."""
        return _vocabulary().fingerprint

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint of OpenAI's ranks, without reading them.

        Raises:
            CorruptionError: the state is not of this kind.
        """
        _check(state)
        return FINGERPRINT

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return ``GPT-2 BPE (fixed ~50k tokens)``."""
        _check(state)
        return "GPT-2 BPE (fixed ~50k tokens)"


def fingerprint_of_ranks(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]) -> str:
    """Return the fingerprint of a byte-pair vocabulary.

    It is the SHA-256 of one line per token in the order of the ids: the token's bytes in base64,
    a space, its id (the format of OpenAI's ``.tiktoken`` files); then one line per special
    token, which begins with ``special`` and a space.

    Args:
        ranks: the id of each token.
        special_tokens: the id of each special token.
    """
    digest = hashlib.sha256()
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        digest.update(b"%b %d\n" % (base64.b64encode(token), rank))
    for name, rank in sorted(special_tokens.items(), key=lambda item: item[1]):
        digest.update(b"special %b %d\n" % (base64.b64encode(name.encode()), rank))
    return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class _Vocabulary:
    encoding: Any  # a tiktoken.Encoding
    ranks: Mapping[bytes, int]
    fingerprint: str


@functools.cache
def _vocabulary() -> _Vocabulary:
    try:
        import tiktoken

        # tiktoken.get_encoding imports every module of tiktoken_ext first, and one broken module
        # among them would take this vocabulary away; its own module is asked directly.
        constructor = importlib.import_module("tiktoken_ext.openai_public").gpt2
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            f"the tokenizer kind 'gpt2' needs tiktoken, which does not load here ({error}); "
            "install it with: pip install tiktoken"
        ) from error
    _check_files()
    try:
        parts = constructor()
        encoding = tiktoken.Encoding(**parts)
    except (OSError, ValueError, AssertionError) as error:
        raise _unavailable(_FILES, f"the download failed ({type(error).__name__})") from error
    return _Vocabulary(
        encoding=encoding,
        ranks=parts["mergeable_ranks"],
        fingerprint=fingerprint_of_ranks(parts["mergeable_ranks"], parts["special_tokens"]),
    )


def _check_files() -> None:
    """Make sure that tiktoken has the files, or a server that answers, before it waits for one.

    tiktoken downloads without a time limit, and deletes a file whose bytes are wrong before it
    knows that it can have another. Asking first avoids both.
    """
    absent = _absent_files()
    if not absent:
        return
    try:
        # requests is how tiktoken itself downloads: the same proxies, the same certificates.
        requests = importlib.import_module("requests")
        requests.head(_SOURCE + absent[0].name, timeout=_ANSWER_SECONDS)
    except (ImportError, OSError, ValueError) as error:
        raise _unavailable(absent, f"no download ({type(error).__name__})") from error


def _absent_files() -> tuple[_File, ...]:
    folder = _folder()
    return tuple(file for file in _FILES if folder is None or not _holds(folder, file))


def _holds(folder: Path, file: _File) -> bool:
    try:
        return hashlib.sha256((folder / file.cached_as).read_bytes()).hexdigest() == file.sha256
    except OSError:
        return False


def _folder() -> Path | None:
    """Return the folder where tiktoken looks for files, or None where it was told to keep none."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def _unavailable(absent: Sequence[_File], why: str) -> UnsupportedError:
    folder = _folder()
    names = " and ".join(
        f"{file.name} (a damaged one is there)"
        if folder and (folder / file.cached_as).exists()
        else file.name
        for file in absent
    )
    where = f"the folder {str(folder)!r}" if folder else "its folder (TIKTOKEN_CACHE_DIR is empty)"
    targets = ", ".join(f"{file.name} as {file.cached_as}" for file in _FILES)
    return UnsupportedError(
        f"the gpt2 vocabulary is not on this machine: {where} lacks {names}, and {why}; "
        f"copy the two files from {_SOURCE} into a folder ({targets}), "
        "and set TIKTOKEN_CACHE_DIR to that folder"
    )


def _check(state: Mapping[str, Any]) -> None:
    said = {name: value for name, value in state.items() if value is not None}
    if said != {"token_kind": Gpt2Tokenizer.kind}:
        raise CorruptionError(
            f"the tokenizer state is {reprlib.repr(dict(said))}, not {{'token_kind': 'gpt2'}}, "
            "so its ids are not certain; restore it from a good copy"
        )
