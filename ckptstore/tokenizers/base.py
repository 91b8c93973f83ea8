"""What a tokenizer kind is: a class that turns text into ids and back, and itself into JSON.

Register a kind with the hook `ckptstore_tokenizers` (see `docs/plugins.md`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ckptstore.digests import sha256_of
from ckptstore.errors import UnsupportedError
from ckptstore.progress import OnProgress
from ckptstore.tokenizers.files import Fetched

__all__ = ["Fetched", "Tokenizer"]


class Tokenizer(ABC):
    """A vocabulary. Subclass it, and return the class from the hook `ckptstore_tokenizers`.

    Guarantee: what `state` returns is JSON, and `from_state` makes the same vocabulary of it, so
    that ids mean the same in training and in use.

    Attributes:
        kind: the ``token_kind`` of its state.
        folder_variable: the environment variable that says in which folder the library that the
            kind wraps looks for what `files_elsewhere` returns; None where there is none.
    """

    kind: ClassVar[str]
    folder_variable: ClassVar[str | None] = None

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
    def from_files(cls, state: Mapping[str, Any], files: Mapping[str, bytes]) -> Tokenizer:
        """Return the tokenizer that a state described, with files that a checkpoint carries.

        The default is `from_state`: a state that holds the whole vocabulary needs no file.

        Args:
            state: as for `from_state`.
            files: by name; some of those that `file_names_of` names may be absent, and others may
                be there. They are a stranger's: hold them against what the state names. A file is
                read when it is asked for.

        Raises:
            CorruptionError: the state is malformed, or a file holds another vocabulary.
            UnsupportedError: as for `from_state`.
        """
        return cls.from_state(state)

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

    @classmethod
    def file_names_of(cls, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the files that a state names and does not hold; by default none.

        Each satisfies `is_file_of_tokenizer`, such as ``tokenizer.tiktoken``.
        """
        return ()

    @classmethod
    def files_of(cls, state: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return those files, as far as they are on this machine; never by a network.

        A checkpoint carries all of them or none, so nothing is gained by some of them.
        """
        return {}

    def files(self) -> Mapping[str, bytes]:
        """Return the files of this very tokenizer, from which `from_files` makes it again."""
        return self.files_of(self.state())

    @classmethod
    def files_elsewhere(cls, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return files as the library that this kind wraps looks for them, by the names there.

        Args:
            files: what `files` returns, or a checkpoint carries.

        Raises:
            CorruptionError: they hold another vocabulary.
        """
        return dict(files)

    @classmethod
    def fetch_files(
        cls, folder: str | None = None, *, progress: OnProgress | None = None
    ) -> Fetched:
        """Have the files on this machine from now on, by a network where they are not there yet.

        Args:
            folder: where to; by default where `files_of` looks for them.
            progress: called with `Progress` events.

        Raises:
            UnsupportedError: this kind has no files, or cannot fetch them.
            StorageError: the network or the folder failed; the message says what to do by hand.
        """
        raise UnsupportedError(
            f"the tokenizer kind {cls.kind!r} has no files to fetch: what it needs stands in "
            "tokenizer.json, or comes with the package that brings the kind"
        )

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
