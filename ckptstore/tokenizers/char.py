"""The kind ``char``: one id for each character of the training text, in order of code points."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore.errors import CorruptionError
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["CharTokenizer"]

_MOST_CHARACTERS = 0x110000  # Unicode has no more code points
_SHOWN = 5


class CharTokenizer(Tokenizer):
    """A vocabulary of single characters.

    Guarantee: the order of ``chars`` in the state is the order of the ids, whatever it is, so a
    model keeps the ids that it was trained with.

    A subclass with a ``kind`` of its own is another kind, which may choose other characters.

    Args:
        chars: the characters in the order of their ids, each one once.
    """

    kind = "char"

    def __init__(self, chars: Sequence[str]) -> None:
        self._chars = tuple(chars)
        self._ids = {char: number for number, char in enumerate(self._chars)}
        self._by_id = dict(enumerate(self._chars))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CharTokenizer:
        """Return the tokenizer of ``{"token_kind": "char", "chars": [...]}``.

        Raises:
            CorruptionError: ``chars`` is not a list of distinct single characters.
        """
        return cls(_chars_of(cls.kind, state))

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """Return the tokenizer whose vocabulary is the characters of this text, sorted.

        Raises:
            ValueError: the text is empty.
        """
        if not text:
            raise ValueError("the text is empty, so there are no characters to make ids of")
        return cls(sorted(set(text)))

    @property
    def n_vocab(self) -> int:
        """The number of characters."""
        return len(self._chars)

    def encode(self, text: str) -> list[int]:
        """Return one id per character.

        Raises:
            ValueError: the text holds characters that the vocabulary lacks; the message lists
                the first few.
        """
        try:
            return list(map(self._ids.__getitem__, text))
        except KeyError:
            raise ValueError(self._unknown(text)) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return one character per id.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        try:
            return "".join(map(self._by_id.__getitem__, ids))
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]!r} is not in this vocabulary of {self.n_vocab} characters; "
                f"ids run from 0 to {self.n_vocab - 1}"
            ) from None

    def state(self) -> dict[str, Any]:
        """Return ``{"token_kind": "char", "chars": [...]}``."""
        return {"token_kind": self.kind, "chars": list(self._chars)}

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint of the characters and their order; other fields do not count.

        Raises:
            CorruptionError: ``chars`` is not a list of distinct single characters.
        """
        return super().fingerprint_of(
            {"token_kind": cls.kind, "chars": list(_chars_of(cls.kind, state))}
        )

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return the number of characters, such as ``41 characters``."""
        number = len(_chars_of(cls.kind, state))
        return f"{number} character" + "s" * (number != 1)

    def _unknown(self, text: str) -> str:
        unknown = [char for char in dict.fromkeys(text) if char not in self._ids]
        listed = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        return (
            f"the text holds {listed}{more}, which this vocabulary of {self.n_vocab} characters "
            "lacks; leave them out, or use a model whose training text had them"
        )


def _chars_of(kind: str, state: Mapping[str, Any]) -> Sequence[str]:
    """Return the checked ``chars`` of a state that may come from anybody."""
    if state.get("token_kind") != kind:
        raise CorruptionError(
            f"the tokenizer state is of kind {reprlib.repr(state.get('token_kind'))}, "
            f"not {kind!r}; restore it from a good copy"
        )
    chars = state.get("chars")
    # Old single-file checkpoints may hold a tuple; everything else comes from JSON.
    if not isinstance(chars, (list, tuple)):
        raise _damaged(f"'chars' is {reprlib.repr(chars)}, not a list of characters")
    if not 0 < len(chars) <= _MOST_CHARACTERS:
        raise _damaged(f"'chars' has {len(chars)} entries, not 1 to {_MOST_CHARACTERS}")
    for number, char in enumerate(chars):
        if not isinstance(char, str) or len(char) != 1:
            raise _damaged(f"entry {number} of 'chars' is {reprlib.repr(char)}, not one character")
    if len(set(chars)) != len(chars):
        twice = Counter(chars).most_common(1)[0][0]
        raise _damaged(f"'chars' has {twice!r} twice, so the ids are not certain")
    return chars


def _damaged(what: str) -> CorruptionError:
    return CorruptionError(f"the tokenizer state is damaged: {what}; restore it from a good copy")
