"""What a save had to store."""

from __future__ import annotations

from dataclasses import dataclass

from ckptstore.manifest import Manifest

__all__ = ["Stored", "nothing_of"]


@dataclass(frozen=True)
class Stored:
    """What a save wrote, and what of it was there already.

    The manifest, and the plain files that a single checkpoint shows, are not counted.

    Attributes:
        written: the files that were written, as a whole or in part.
        spared: the files whose bytes were all there already, in the state before.
        written_bytes: bytes written to a disk, or sent to a service.
        spared_bytes: bytes that were there already and did not move, as files or as parts of some.
    """

    written: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    written_bytes: int = 0
    spared_bytes: int = 0

    def plus(self, name: str, size: int, spared: int = 0) -> Stored:
        """Return the same with one file more.

        Args:
            name: of the file.
            size: bytes.
            spared: how many of them were there already.
        """
        whole = 0 < size == spared
        return Stored(
            written=self.written if whole else (*self.written, name),
            spared=(*self.spared, name) if whole else self.spared,
            written_bytes=self.written_bytes + size - spared,
            spared_bytes=self.spared_bytes + spared,
        )


def nothing_of(manifest: Manifest) -> Stored:
    """Return what is said of a save that found all of it committed already."""
    sizes = {name: len(entry.text.encode()) for name, entry in manifest.texts.items()}
    sizes |= {name: entry.digest.size for name, entry in manifest.files.items()}
    return Stored(spared=tuple(sizes), spared_bytes=sum(sizes.values()))
