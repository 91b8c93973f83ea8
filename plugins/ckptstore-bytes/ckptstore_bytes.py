"""The tokenizer kind ``bytes``: the ids of a text are its UTF-8 bytes, 0 to 255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import CorruptionError, hookimpl
from ckptstore.texts import encode_utf8
from ckptstore.tokenizers.base import Tokenizer


class BytesTokenizer(Tokenizer):
    """256 ids; every text is covered, whatever it was trained on."""

    kind = "bytes"
    n_vocab = 256

    @classmethod
    def from_text(cls, text: str) -> BytesTokenizer:
        """Return the tokenizer; it is the same for every text."""
        return cls()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BytesTokenizer:
        """Return the tokenizer of ``{"token_kind": "bytes"}``.

        Raises:
            CorruptionError: the state is anything else.
        """
        if state != {"token_kind": "bytes"}:
            raise CorruptionError(f"{state!r} is no state of the tokenizer kind 'bytes'")
        return cls()

    def state(self) -> dict[str, Any]:
        """Return ``{"token_kind": "bytes"}``."""
        return {"token_kind": "bytes"}

    def encode(self, text: str) -> list[int]:
        """Return the bytes of the text as UTF-8.

        Raises:
            ValueError: the text holds half of a surrogate pair, which has no bytes.
        """
        return list(encode_utf8(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is no byte.
        """
        for number in ids:
            if not 0 <= number < 256:
                raise ValueError(f"id {number} is no byte; ids run from 0 to 255")
        return bytes(ids).decode("utf-8", "replace")


@hookimpl
def ckptstore_tokenizers() -> list[type[Tokenizer]]:
    """Return the kind ``bytes``."""
    return [BytesTokenizer]
