"""What `benchmarks.swallow` keeps of the objects that it was given: their ends, and their sizes."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KEPT", "Pieces", "Shelf", "Thing", "Upload", "fed"]

KEPT = 8 * 2**20
Pieces = list[tuple[int, bytearray]]


@dataclass
class Thing:
    """An object: pieces of it by where they begin, or the file that it is read from."""

    size: int
    pieces: Pieces = field(default_factory=list)
    path: Path | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: f'"{secrets.token_hex(16)}"')
    modified: float = field(default_factory=time.time)

    def range(self, start: int, size: int) -> Pieces:
        """Return what is kept of a range, by where it begins in it."""
        found = []
        for place, data in self.pieces:
            first, last = max(place, start), min(place + len(data), start + size)
            if first < last:
                found.append((first - start, data[first - place : last - place]))
        return found


def fed(path: Path) -> Thing:
    """Return an object that a file of this machine is read as."""
    return Thing(path.stat().st_size, path=path)


class Upload:
    """Parts, of which only the ends of the object are kept as they come."""

    def __init__(self, key: str, metadata: dict[str, str]) -> None:
        self.key, self.metadata = key, metadata
        self.sizes: dict[int, int] = {}
        self.pieces: dict[int, Pieces] = {}

    def add(self, number: int, size: int, pieces: Pieces) -> list[bytearray]:
        """Take a part, and return buffers that are not needed any more."""
        self.sizes[number] = size
        self.pieces[number] = pieces
        free = []
        # The last chunk of the object may begin in the last part but one.
        for old in sorted(self.pieces)[1:-2]:
            free += [data for _, data in self.pieces.pop(old) if len(data) == KEPT]
        return free

    def thing(self) -> Thing:
        """Return the object that all parts make."""
        starts, total = {}, 0
        for number, size in sorted(self.sizes.items()):
            starts[number], total = total, total + size
        pieces = [
            (starts[number] + place, data)
            for number, found in self.pieces.items()
            for place, data in found
        ]
        return Thing(total, pieces, metadata=self.metadata)


class Shelf:
    """What all connections know: objects by ``bucket/key``, and buffers to use again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.things: dict[str, Thing] = {}
        self.uploads: dict[str, Upload] = {}
        self.free: list[bytearray] = []

    def buffer(self) -> bytearray:
        """Return a buffer whose pages are there already, if there is one."""
        with self.lock:
            return self.free.pop() if self.free else bytearray(KEPT)
