"""Byte-pair ranks of a text.

Rules of this file:

1. A token is what its bytes are, however it came together: tiktoken merges whatever two neighbours
   make a token, so pairs count together here when their bytes are the same.
2. A longer word than 256 bytes, as there are in languages without blanks, is counted in parts of
   that length, so that a merge never costs a whole text.
3. The most frequent one becomes a token first; of equally frequent ones the one whose bytes are
   first in order. Nothing else decides, so the same text gives the same ranks in every process.
"""

from __future__ import annotations

import heapq
import importlib
from collections import Counter, defaultdict
from itertools import pairwise

from ckptstore_tiktoken.ranks import BYTES, MOST_RANKS

__all__ = ["GPT2_PATTERN", "ranks_of"]

_LONGEST = 256

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
    counts: Counter[bytes] = Counter()
    for word, count in words.items():
        data = word.encode()
        for start in range(0, len(data), _LONGEST):
            counts[data[start : start + _LONGEST]] += count
    return counts


class _Words:
    """The different words of a text, each cut into tokens, and what two neighbours make."""

    def __init__(self, counts: Counter[bytes]) -> None:
        self._counts = list(counts.values())
        self._parts = [[bytes([byte]) for byte in word] for word in counts]
        self._totals: Counter[bytes] = Counter()
        self._where: defaultdict[bytes, set[int]] = defaultdict(set)
        for number, parts in enumerate(self._parts):
            for left, right in pairwise(parts):
                self._count(left + right, number)
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
            grown |= self._merge_in(number, token)
        del self._totals[token]
        for made in grown:
            heapq.heappush(self._heap, (-self._totals[made], made))

    def _merge_in(self, number: int, token: bytes) -> set[bytes]:
        """Merge in one word, from the left, and return what its new neighbours make."""
        parts, size, count = self._parts[number], len(token), self._counts[number]
        merged: list[bytes] = []
        grown: set[bytes] = set()
        i, last = 0, len(parts) - 1
        while i <= last:
            part = parts[i]
            if i == last or len(part) + len(parts[i + 1]) != size or part + parts[i + 1] != token:
                merged.append(part)
                i += 1
                continue
            if merged:
                self._totals[merged[-1] + part] -= count
                grown.add(merged[-1] + token)
                self._count(merged[-1] + token, number)
            if i + 2 <= last:
                self._totals[parts[i + 1] + parts[i + 2]] -= count
                grown.add(token + parts[i + 2])
                self._count(token + parts[i + 2], number)
            merged.append(token)
            i += 2
        self._parts[number] = merged
        return grown

    def _count(self, made: bytes, number: int) -> None:
        self._totals[made] += self._counts[number]
        self._where[made].add(number)
