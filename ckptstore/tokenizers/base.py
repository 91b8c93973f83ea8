"""What a tokenizer kind is: a class that turns text into ids and back, and itself into JSON.

Register a kind with the hook `ckptstore_tokenizers` (see `docs/plugins.md`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ckptstore.digests import sha256_of

__all__ = ["Tokenizer"]


class Tokenizer(ABC):
    """A vocabulary. Subclass it, and return the class from the hook `ckptstore_tokenizers`.

    Guarantee: what `state` returns is JSON, and `from_state` makes the same vocabulary of it, so
    that ids mean the same in training and in use.

    Attributes:
        kind: the ``token_kind`` of its state.
    """

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tokenizer:
        """Return the tokenizer that `state` described.

        Raises:
            CorruptionError: the state is malformed.
            UnsupportedError: something it needs is not here; the message says what and where to
                get it.
        """

    @classmethod
    @abstractmethod
    def from_text(cls, text: str) -> Tokenizer:
        """Return a tokenizer for a model that is to be trained on this text.

        A kind declares training options as keyword-only parameters with a default, annotated with
        ``int``, ``float``, ``str`` or ``bool``: ``from_text(cls, text, *, vocab_size: int = 512)``.
        ``gpt train --tokenizer_option vocab_size=1024`` and `ckptstore.plugins.train_tokenizer`
        pass what was given.

        Raises:
            ValueError: the options, or the text, are not fit for it; the message says why.
        """

    @property
    @abstractmethod
    def n_vocab(self) -> int:
        """The number of ids, which run from 0 to ``n_vocab - 1``."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            ValueError: the text holds something that the vocabulary lacks; the message says what.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return a JSON object with ``token_kind`` from which `from_state` makes this again."""

    def fingerprint(self) -> str:
        """Return a digest of the vocabulary; equal ones give every text the same ids."""
        return self.fingerprint_of(self.state())

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint of the tokenizer that a state describes, without making it."""
        return "sha256:" + sha256_of(
            json.dumps(dict(state), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        )

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return one line about the vocabulary that a state describes, for people."""
        return f"{cls.kind} vocabulary"
