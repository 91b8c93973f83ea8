"""Digests: the SHA-256 of a file, and a fast checksum for each of its chunks.

The chunk checksum is XXH3-128: it has wheels for every platform, runs at the speed of memory
(measured: 26 GB/s on a core; isal's CRC-32 27, CRC-32C 14, SHA-256 1.9), and 128 bits make an
accidental match unthinkable. It finds damage, not malice: SHA-256 is there for that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["ALGORITHM", "Chunks", "Digest", "checksum", "chunk_size_for", "sha256_of"]

ALGORITHM = "xxh3-128"
_CHUNK = 8 * 2**20
_MOST_CHUNKS = 131_072


@dataclass(frozen=True)
class Digest:
    """What proves a file.

    Attributes:
        size: bytes.
        sha256: hexadecimal, what ``sha256sum`` prints.
        chunk_size: bytes in each chunk but the last.
        checksums: one per chunk, hexadecimal, in order.
        algorithm: the name of the checksum.
    """

    size: int
    sha256: str
    chunk_size: int
    checksums: tuple[str, ...]
    algorithm: str = ALGORITHM


def sha256_of(data: bytes | str) -> str:
    """Return the hexadecimal SHA-256 of bytes, or of text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def checksum(*parts: bytes | bytearray | memoryview) -> str:
    """Return the hexadecimal XXH3-128 of one chunk, whose bytes may lie in several places."""
    import xxhash

    chunk = xxhash.xxh3_128()
    for part in parts:
        chunk.update(part)
    return chunk.hexdigest()


def chunk_size_for(expected_size: int) -> int:
    """Return the chunk size for a file: 8 MiB, doubled until there are at most 131,072 chunks."""
    size = _CHUNK
    while expected_size > size * _MOST_CHUNKS:
        size *= 2
    return size


class Chunks:
    """Computes the chunk checksums of bytes as they pass, without keeping them.

    Args:
        size: bytes in each chunk but the last.

    Attributes:
        size: the same.
        checksums: of the chunks that are whole.
    """

    def __init__(self, size: int = _CHUNK) -> None:
        import xxhash

        self.size = size
        self.checksums: list[str] = []
        self._new = xxhash.xxh3_128
        self._chunk = self._new()
        self._filled = 0

    @property
    def room(self) -> int:
        """How many bytes the chunk under way still takes."""
        return self.size - self._filled

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file."""
        view = memoryview(data).cast("B")
        while len(view):
            part = view[: self.room]
            self._chunk.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.size:
                self.checksums.append(self._chunk.hexdigest())
                self._chunk, self._filled = self._new(), 0

    def digest(self, sha256: str = "") -> Digest:
        """Return the digest of all that was taken, with the SHA-256 that somebody computed."""
        last = (self._chunk.hexdigest(),) if self._filled else ()
        return Digest(
            size=len(self.checksums) * self.size + self._filled,
            sha256=sha256,
            chunk_size=self.size,
            checksums=(*self.checksums, *last),
        )
