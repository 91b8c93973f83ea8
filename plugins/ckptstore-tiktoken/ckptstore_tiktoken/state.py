"""The two states of the kind.

Of an encoding by name, whose ranks are somewhere else::

    {"token_kind": "tiktoken", "encoding": "cl100k_base", "fingerprint": "sha256:...",
     "pattern": "...", "special_tokens": {"<|endoftext|>": 100257, ...}}

``fingerprint``, ``pattern`` and ``special_tokens`` may be left out for OpenAI's encodings. Of ranks
of one's own, which stand in the state, a line for each::

    {"token_kind": "tiktoken", "pattern": "...", "special_tokens": {}, "ranks": ["AA== 0", ...]}
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore import CorruptionError
from ckptstore.tokenizers.gpt2 import fingerprint_of_ranks
from ckptstore_tiktoken.named import FINGERPRINTS
from ckptstore_tiktoken.ranks import Vocabulary, dumped, parsed_lines

__all__ = ["KIND", "Named", "damaged", "fingerprint_of_own", "read", "state_of_own"]

KIND = "tiktoken"


@dataclass(frozen=True)
class Named:
    """An encoding by name.

    Attributes:
        encoding: what tiktoken calls it.
        fingerprint: of its ranks and special tokens.
        pattern: how it splits a text; None for what tiktoken says.
        special_tokens: the id of each; None for what tiktoken says.
    """

    encoding: str
    fingerprint: str
    pattern: str | None
    special_tokens: Mapping[str, int] | None

    def state(self) -> dict[str, Any]:
        """Return the state of it."""
        state: dict[str, Any] = {
            "token_kind": KIND,
            "encoding": self.encoding,
            "fingerprint": self.fingerprint,
        }
        if self.pattern is not None and self.special_tokens is not None:
            state |= {"pattern": self.pattern, "special_tokens": dict(self.special_tokens)}
        return state


def read(state: Mapping[str, Any]) -> Named | Vocabulary:
    """Return what a state describes; it may come from anybody.

    Raises:
        CorruptionError: it is malformed.
    """
    kind = state.get("token_kind")
    if kind != KIND:
        raise CorruptionError(
            f"the tokenizer state is of kind {reprlib.repr(kind)}, not {KIND!r}; restore it from a "
            "good copy"
        )
    if ("encoding" in state) == ("ranks" in state):
        raise damaged("it has to have either an 'encoding' or 'ranks'")
    return _named(state) if "encoding" in state else _own(state)


def state_of_own(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the state that holds a vocabulary."""
    return {
        "token_kind": KIND,
        "pattern": vocabulary.pattern,
        "special_tokens": dict(vocabulary.special_tokens),
        "ranks": dumped(vocabulary.ranks),
    }


def fingerprint_of_own(vocabulary: Vocabulary) -> str:
    """Return the fingerprint of a vocabulary that stands in the state: its pattern counts, too."""
    ranks = fingerprint_of_ranks(vocabulary.ranks, vocabulary.special_tokens)
    pattern = hashlib.sha256(vocabulary.pattern.encode()).hexdigest()
    text = f"{ranks}\npattern sha256:{pattern}\n"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def damaged(what: str) -> CorruptionError:
    """Return the error that a state is damaged."""
    return CorruptionError(f"the tokenizer state is damaged: {what}; restore it from a good copy")


def _named(state: Mapping[str, Any]) -> Named:
    name = state["encoding"]
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise damaged(f"'encoding' is {reprlib.repr(name)}, not a name")
    fingerprint = state.get("fingerprint") or FINGERPRINTS.get(name)
    if not isinstance(fingerprint, str) or not fingerprint.startswith("sha256:"):
        raise damaged(
            f"'fingerprint' is {reprlib.repr(fingerprint)}, and which vocabulary {name!r} was is "
            "known of OpenAI's encodings only"
        )
    pattern, special = state.get("pattern"), state.get("special_tokens")
    if (pattern is None) != (special is None):
        raise damaged("'pattern' and 'special_tokens' go together, and one of them is not there")
    if pattern is None:
        return Named(name, fingerprint, None, None)
    return Named(name, fingerprint, _pattern(pattern), _special(special))


def _own(state: Mapping[str, Any]) -> Vocabulary:
    lines = state["ranks"]
    if not isinstance(lines, list):
        raise damaged(f"'ranks' is {reprlib.repr(lines)}, not a list of lines")
    pattern, special = _pattern(state.get("pattern")), _special(state.get("special_tokens"))
    try:
        return Vocabulary(pattern, parsed_lines(lines), special).checked()
    except ValueError as error:
        raise damaged(str(error)) from error


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise damaged(f"'pattern' is {reprlib.repr(value)}, not a regular expression")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise damaged("'pattern' holds half of a surrogate pair") from error
    return value


def _special(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and name and type(number) is int and number >= 0
        for name, number in value.items()
    ):
        raise damaged(f"'special_tokens' is {reprlib.repr(value)}, not names and their ids")
    try:
        "".join(value).encode()
    except UnicodeEncodeError as error:
        raise damaged("'special_tokens' hold half of a surrogate pair") from error
    return dict(value)
