"""What a save would be: its manifest before it has files, and its digests before it is stored."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone

import ckptstore
from ckptstore.commit.ends import Ends
from ckptstore.commit.incoming import Incoming
from ckptstore.formats.base import NewFiles
from ckptstore.manifest import FileEntry, Manifest, TextEntry
from ckptstore.storage.base import Sink

__all__ = ["Rehearsal", "draft"]


def draft(
    *,
    format: str,
    generation: int | None = None,
    step: int | None = None,
    metrics: Mapping[str, float] | None = None,
    fingerprint: str | None = None,
    earlier: Mapping[str, tuple[str, ...]] | None = None,
) -> Manifest:
    """Return a manifest with a new write id and no files yet."""
    return Manifest(
        write_id=secrets.token_hex(6),
        format=format,
        generation=generation,
        step=step,
        created=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        writer=f"ckptstore {ckptstore.__version__}",
        metrics=metrics or {},
        fingerprint=fingerprint,
        earlier=earlier or {},
    )


class Rehearsal(NewFiles):
    """Digests what would be written, and writes nothing: to compare before a byte is stored.

    Attributes:
        ends: the first and the last of each file of bytes.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.ends: dict[str, Ends] = {}
        self._manifest = manifest
        self._texts: dict[str, TextEntry] = {}
        self._files: dict[str, FileEntry] = {}

    @property
    def manifest(self) -> Manifest:
        """The manifest of what was written so far."""
        return replace(self._manifest, texts=self._texts, files=self._files)

    def write_text(self, name: str, text: str) -> None:
        """Take a JSON file."""
        self._texts[name] = TextEntry(path=name, text=text)

    def include(self, files: Mapping[str, FileEntry]) -> None:
        """Take files that were digested elsewhere."""
        self._files |= files

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Take a file of bytes."""
        incoming = Incoming(lambda: None, expected_size, resident=False)
        yield incoming
        self.ends[name] = incoming.ends
        self._files[name] = FileEntry(path=name, digest=incoming.digest())
