"""A byte-pair vocabulary: ranks, special tokens and the pattern that splits a text.

Rules of this file:

1. Every byte is a token, ids are distinct, and less than half of them are missing. So tiktoken
   encodes every text, and a model has hardly an embedding for nothing.
2. Ranks are written as OpenAI's ``.tiktoken`` files have them: a line for each token, its bytes in
   base64, a space, its rank.
"""

from __future__ import annotations

import base64
import binascii
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ckptstore import CorruptionError, NotFoundError, StorageError

__all__ = ["BYTES", "MOST_RANKS", "Vocabulary", "dumped", "parsed_lines", "ranks_in", "read_file"]

BYTES = 256
MOST_RANKS = 2**22
_MOST_SPECIAL = 2**16
_MOST_BYTES = 64 * 2**20
_LONGEST_LINE = 4096
_LONGEST_PATTERN = 2**16


@dataclass(frozen=True)
class Vocabulary:
    """What an encoding is made of.

    Attributes:
        pattern: the regular expression whose matches are encoded one by one.
        ranks: the id of each token; those with lower ones are merged first.
        special_tokens: the id of each special token; they never come out of a text.
    """

    pattern: str
    ranks: Mapping[bytes, int]
    special_tokens: Mapping[str, int]

    def checked(self) -> Vocabulary:
        """Return it, if it keeps the rules of this file.

        Raises:
            ValueError: it does not; the message says what is wrong.
        """
        if not isinstance(self.pattern, str) or not 0 < len(self.pattern) <= _LONGEST_PATTERN:
            raise ValueError(f"its pattern is {reprlib.repr(self.pattern)}, not a pattern")
        if len(self.ranks) > MOST_RANKS or len(self.special_tokens) > _MOST_SPECIAL:
            raise ValueError(
                f"it has {len(self.ranks)} ranks and {len(self.special_tokens)} special tokens, "
                f"more than {MOST_RANKS} and {_MOST_SPECIAL}"
            )
        for byte in range(BYTES):
            if bytes([byte]) not in self.ranks:
                raise ValueError(f"no rank is the byte 0x{byte:02X}, so not every text is covered")
        given = [*self.ranks.values(), *self.special_tokens.values()]
        bad = next((number for number in given if type(number) is not int or number < 0), None)
        if bad is not None:
            raise ValueError(f"{reprlib.repr(bad)} is no id")
        # Special tokens may share an id among them: o200k_harmony has two names for 200018.
        ids = set(given)
        if len(ids) != len(self.ranks) + len(set(self.special_tokens.values())):
            raise ValueError("two tokens have one id")
        if max(ids) + 1 > 2 * len(ids):
            raise ValueError(f"its {len(ids)} ids run up to {max(ids)}")
        return self


def dumped(ranks: Mapping[bytes, int]) -> list[str]:
    """Return a line for each token, in the order of the ranks."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ordered]


def parsed_lines(lines: Iterable[object]) -> dict[bytes, int]:
    """Return the ranks of lines that may come from anybody; empty ones do not count.

    Raises:
        ValueError: a line is none; the message says which.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if line == "":
            continue
        if number > MOST_RANKS:
            raise ValueError(f"there are more than {MOST_RANKS} ranks")
        token, rank = _parsed(number, line)
        if token in ranks:
            raise ValueError(f"rank {number} is {line!r}, and its token was there before")
        ranks[token] = rank
    return ranks


def ranks_in(data: bytes) -> dict[bytes, int]:
    """Return the ranks in the text of a ``.tiktoken`` file.

    Raises:
        ValueError: it holds something else.
    """
    if data.count(b"\n") > MOST_RANKS:
        raise ValueError(f"there are more than {MOST_RANKS} ranks")
    return parsed_lines(data.decode("utf-8").split("\n"))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return what a file holds.

    Raises:
        NotFoundError: there is no such file.
        StorageError: it cannot be read.
        CorruptionError: it is larger than 64 MiB.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {where!r}") from error
    except OSError as error:
        raise StorageError(f"{where!r} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise CorruptionError(f"{where!r} is larger than {_MOST_BYTES} bytes")
    return data


def _parsed(number: int, line: object) -> tuple[bytes, int]:
    text, space, rank = line.partition(" ") if isinstance(line, str) else ("", "", "")
    try:
        if not isinstance(line, str) or len(line) > _LONGEST_LINE or not text or not space:
            raise ValueError
        if not (rank.isascii() and rank.isdigit()):
            raise ValueError
        return base64.b64decode(text, validate=True), int(rank)
    except (ValueError, binascii.Error):
        raise ValueError(
            f"rank {number} is {reprlib.repr(line)}, not a token in base64, a space and a number"
        ) from None
