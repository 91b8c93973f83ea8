"""The vocabulary of a model: known by its state at once, made when it is needed.

So a model can be loaded, trained further on ids, saved and inspected where its kind of tokenizer
is not installed, or needs files that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckptstore import CorruptionError, UnsupportedError, plugins
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["Vocabulary"]

_NEED_MORE_THAN_A_NAME = ("char",)


class Vocabulary:
    """A tokenizer, or the state from which one is made at the first use; or neither.

    Args:
        rows: of the model's embedding; no tokenizer may have more ids.
        state: the tokenizer as a JSON object, or None where there is none.
        load: makes the tokenizer; from the state alone by default.
        files: what its checkpoint carries beside the state.

    Attributes:
        files: what a checkpoint of the model is to carry beside the state, by name.
    """

    def __init__(
        self,
        rows: int,
        state: Mapping[str, Any] | None = None,
        load: Callable[[], Tokenizer] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._rows = rows
        self._state = None if state is None else dict(state)
        self._load = load
        self._tokenizer: Tokenizer | None = None
        self.files = dict(files or {})

    @classmethod
    def of(
        cls,
        rows: int,
        tokenizer: Tokenizer | Mapping[str, Any] | None,
        token_kind: str | None = None,
    ) -> Vocabulary:
        """Return the vocabulary that a caller describes.

        Args:
            rows: of the model's embedding.
            tokenizer: an object, a state, or None.
            token_kind: the kind, where that says all; beside a tokenizer it has to agree.

        Raises:
            ValueError: the tokenizer has more ids than there are rows, the kind is another one
                than the tokenizer's, or does not say all.
        """
        if isinstance(tokenizer, Tokenizer):
            made = cls(rows, tokenizer.state())
            if tokenizer.n_vocab > rows:
                raise ValueError(made._too_large(tokenizer))
            made._tokenizer = tokenizer
        elif tokenizer is not None:
            made = cls(rows, tokenizer)
        elif token_kind in _NEED_MORE_THAN_A_NAME:
            raise ValueError(
                f"token_kind {token_kind!r} does not say which characters; pass tokenizer="
            )
        elif token_kind is not None:
            plugins.tokenizer_kind(token_kind)
            made = cls(rows, {"token_kind": token_kind})
        else:
            made = cls(rows)
        if token_kind is not None and token_kind != made.kind:
            raise ValueError(f"token_kind is {token_kind!r}, the tokenizer is {made.kind!r}")
        return made

    @property
    def state(self) -> dict[str, Any] | None:
        """The tokenizer as a JSON object, or None."""
        return None if self._state is None else dict(self._state)

    @property
    def kind(self) -> str | None:
        """The kind, or None."""
        return None if self._state is None else self._state.get("token_kind")

    @property
    def known(self) -> Tokenizer | dict[str, Any] | None:
        """The tokenizer where it has been made, else the state: what a save takes."""
        return self._tokenizer or self.state

    @property
    def n_ids(self) -> int:
        """The number of ids that mean something, as far as that is known by now."""
        return self._rows if self._tokenizer is None else self._tokenizer.n_vocab

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            ValueError: there is none.
            UnsupportedError: its kind, or what the kind needs, is not installed.
            CorruptionError: its state is damaged, or has more ids than the model has rows.
        """
        if self._tokenizer is None:
            if self._state is None:
                raise ValueError(
                    "this model has no tokenizer, because its checkpoint records none; "
                    "say which with --tokenization, or set model.tokenizer"
                )
            made = self._load() if self._load else plugins.load_tokenizer(self._state)
            if made.n_vocab > self._rows:
                raise CorruptionError(self._too_large(made))
            self._tokenizer = made
        return self._tokenizer

    def carry(self) -> None:
        """Have checkpoints of the model carry all that the tokenizer needs beside its state.

        Raises:
            UnsupportedError: that is not on this machine; and what `tokenizer` raises.
        """
        tokenizer = self.tokenizer()
        found = dict(tokenizer.files())
        lacking = [n for n in tokenizer.file_names_of(tokenizer.state()) if n not in found]
        if lacking:
            raise UnsupportedError(
                f"the {tokenizer.kind!r} tokenizer needs {', '.join(lacking)}, which is not on "
                "this machine, so no checkpoint can carry it; put it there, or train without "
                "--carry_vocabulary"
            )
        self.files = found

    def _too_large(self, tokenizer: Tokenizer) -> str:
        return (
            f"the {tokenizer.kind!r} vocabulary has {tokenizer.n_vocab} ids, the model only "
            f"vocab_size {self._rows}; they do not belong together"
        )
