"""Digests: the SHA-256 of a file, and a fast checksum for each of its chunks.

The chunk checksum is XXH3-128: it has wheels for every platform, runs at the speed of memory
(measured: 26 GB/s on a core; isal's CRC-32 27, CRC-32C 14, SHA-256 1.9), and 128 bits make an
accidental match unthinkable. It finds damage, not malice: SHA-256 is there for that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["ALGORITHM", "Digest", "Digester", "checksum", "chunk_size_for", "sha256_of"]

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


def checksum(data: bytes | bytearray | memoryview) -> str:
    """Return the hexadecimal XXH3-128 of one chunk."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


def chunk_size_for(expected_size: int) -> int:
    """Return the chunk size for a file: 8 MiB, doubled until there are at most 131,072 chunks."""
    size = _CHUNK
    while expected_size > size * _MOST_CHUNKS:
        size *= 2
    return size


class Digester:
    """Computes a `Digest` from bytes as they pass, in one pass and without keeping them.

    Args:
        chunk_size: bytes in each chunk but the last.
    """

    def __init__(self, chunk_size: int = _CHUNK) -> None:
        import xxhash

        self._new = xxhash.xxh3_128
        self._sha256 = hashlib.sha256()
        self._chunk = self._new()
        self._filled = 0
        self._size = 0
        self._chunk_size = chunk_size
        self._checksums: list[str] = []

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file."""
        view = memoryview(data).cast("B")
        self._sha256.update(view)
        self._size += len(view)
        while len(view):
            part = view[: self._chunk_size - self._filled]
            self._chunk.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._chunk_size:
                self._close_chunk()

    def digest(self) -> Digest:
        """Return the digest of all that was taken; the file ends here."""
        if self._filled:
            self._close_chunk()
        return Digest(
            size=self._size,
            sha256=self._sha256.hexdigest(),
            chunk_size=self._chunk_size,
            checksums=tuple(self._checksums),
        )

    def _close_chunk(self) -> None:
        self._checksums.append(self._chunk.hexdigest())
        self._chunk = self._new()
        self._filled = 0
