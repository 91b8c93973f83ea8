"""Byte-pair ranks of a text.

Rules of this file:

1. A token is what its bytes are, however it came together: tiktoken merges whatever two neighbours
   make a token, so pairs count together here when their bytes are the same.
2. The most frequent one becomes a token first; of equally frequent ones the one whose bytes are
   first in order. Nothing else decides, so the same text gives the same ranks in every process.
"""

from __future__ import annotations

import heapq
import importlib
from collections import Counter
from itertools import pairwise

from ckptstore_tiktoken.ranks import BYTES, MOST_RANKS

__all__ = ["GPT2_PATTERN", "ranks_of"]

# How GPT-2 splits a text, as its authors published it: contractions, words with the space before
# them, numbers, signs, and blanks but the last one before a word.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def ranks_of(text: str, *, pattern: str, vocab_size: int, min_frequency: int) -> dict[bytes, int]:
    """Return the ranks of a text.

    Args:
        text: without halves of surrogate pairs.
        pattern: no token reaches from one of its matches into the next.
        vocab_size: the most ranks; the 256 bytes are among them.
        min_frequency: how often two neighbours have to be there to become a token.

    Raises:
        ValueError: an option is out of range, or the pattern is none, or leaves out text.
    """
    if not BYTES <= vocab_size <= MOST_RANKS:
        raise ValueError(
            f"vocab_size is {vocab_size}, not {BYTES} to {MOST_RANKS}; each of the {BYTES} bytes "
            "has an id, so that every text is covered"
        )
    if min_frequency < 1:
        raise ValueError(f"min_frequency is {min_frequency}, not 1 or more")
    ranks = {bytes([byte]): byte for byte in range(BYTES)}
    words = _Words(_counted(text, pattern))
    while len(ranks) < vocab_size:
        token = words.most_frequent(min_frequency)
        if token is None:
            break
        ranks.setdefault(token, len(ranks))
        words.merge(token)
    return ranks


def _counted(text: str, pattern: str) -> Counter[bytes]:
    regex = importlib.import_module("regex")
    try:
        matches = regex.compile(pattern).finditer(text)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is none: {error}") from error
    words: Counter[str] = Counter()
    end = 0
    for match in matches:
        if match.start() != end or match.end() == end:
            break
        words[match.group()] += 1
        end = match.end()
    if end != len(text):
        raise ValueError(
            f"the pattern {pattern!r} leaves out {text[end : end + 20]!r} at character {end} of "
            "the text; let it match everything"
        )
    return Counter({word.encode(): count for word, count in words.items()})


class _Words:
    """The different words of a text, each cut into tokens, and what two neighbours make."""

    def __init__(self, counts: Counter[bytes]) -> None:
        self._counts = list(counts.values())
        self._parts = [[bytes([byte]) for byte in word] for word in counts]
        self._totals: Counter[bytes] = Counter()
        self._where: dict[bytes, set[int]] = {}
        for number in range(len(self._parts)):
            self._count(number, 1)
        self._heap = [(-total, token) for token, total in self._totals.items()]
        heapq.heapify(self._heap)

    def most_frequent(self, least: int) -> bytes | None:
        """Return what two neighbours make most often, or None where that is too rare."""
        while self._heap:
            negative, token = heapq.heappop(self._heap)
            total = self._totals[token]
            if total != -negative:  # it has become rarer; a larger total is in the heap already
                if 0 < total < -negative:
                    heapq.heappush(self._heap, (-total, token))
                continue
            return token if total >= least else None
        return None

    def merge(self, token: bytes) -> None:
        """Make one of every two neighbours that make this token."""
        grown: set[bytes] = set()
        for number in self._where.pop(token, ()):
            self._count(number, -1)
            self._parts[number] = _merged(self._parts[number], token)
            self._count(number, 1)
            for left, right in pairwise(self._parts[number]):
                if token in (left, right):
                    grown.add(left + right)
        for made in grown:
            heapq.heappush(self._heap, (-self._totals[made], made))
        self._totals.pop(token, None)

    def _count(self, number: int, sign: int) -> None:
        for left, right in pairwise(self._parts[number]):
            both = left + right
            self._totals[both] += sign * self._counts[number]
            self._where.setdefault(both, set()).add(number)


def _merged(parts: list[bytes], token: bytes) -> list[bytes]:
    merged: list[bytes] = []
    i = 0
    while i < len(parts):
        if i + 1 < len(parts) and parts[i] + parts[i + 1] == token:
            merged.append(token)
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged
