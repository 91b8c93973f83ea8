"""Where histories happen: kinds of storage, and what they hold, read without ckptstore's code."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem

from ckptstore.errors import UnsupportedError
from ckptstore.storage.base import Entry, Listing, Storage
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.memory import MemoryStorage
from ckptstore.storage.names import held_by_looking

__all__ = ["KINDS", "Place"]


class TwoLevels(MemoryStorage):
    """Memory whose folders are listed one after the other, as those of a disk are."""

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        return tuple(held_by_looking(self, folder, prefix, (name,)))


class Tagged(MemoryStorage):
    """Memory whose versions are digests of the bytes, as the ETags of S3 are."""

    content_versions = True

    def list(self, folder: str = "") -> Listing:
        found = super().list(folder)
        return Listing({n: self._tagged(e) for n, e in found.files.items()}, found.folders)

    def entry(self, name: str) -> Entry | None:
        found = super().entry(name)
        return None if found is None else self._tagged(found)

    def _tagged(self, entry: Entry) -> Entry:
        data = self._fs.store[self._key(entry.name)].getvalue()
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return Entry(entry.name, entry.size, entry.modified, tag)


class OneWriter(MemoryStorage):
    """Memory that does not keep two writers apart, and says so."""

    def create_only(self, name: str, data: bytes) -> bool:
        return False

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        raise UnsupportedError(f"{self.location} cannot replace a file on condition")


KINDS: dict[str, Callable[[str], Storage]] = {
    "memory": MemoryStorage,
    "two levels": TwoLevels,
    "tagged": Tagged,
    "one writer": OneWriter,
    "local": LocalStorage,
}


class Place:
    """One location, seen from outside of ckptstore.

    Args:
        kind: one of `KINDS`.
        root: for a local one a folder that is not there yet, for others any unused name.
    """

    def __init__(self, kind: str, root: str) -> None:
        self.kind = kind
        self.root = root
        self.storage = KINDS[kind](root)
        self.url = root if kind == "local" else f"memory://{root}"
        # A listing of several operations: each of them is a moment of its own.
        self.looks_twice = kind in ("local", "two levels")

    def files(self) -> dict[str, bytes]:
        """Return every file by its name below the location; temporary ones of a disk too."""
        if self.kind != "local":
            top = f"/{self.root.strip('/')}/"
            return {
                key[len(top) :]: held.getvalue()
                for key, held in MemoryFileSystem.store.items()
                if key.startswith(top)
            }
        return {
            os.path.relpath(os.path.join(folder, name), self.root): Path(folder, name).read_bytes()
            for folder, _, names in os.walk(self.root)
            for name in names
        }

    def put(self, name: str, data: bytes) -> None:
        """Write a file as a person's editor does: a new file under the old name."""
        if self.kind != "local":
            self.storage.replace(name, data)
            return
        temporary = Path(self.root, f"{name}~")
        temporary.write_bytes(data)
        temporary.replace(Path(self.root, name))

    def forget(self) -> None:
        """Remove everything."""
        if self.kind == "local":
            shutil.rmtree(self.root, ignore_errors=True)
            return
        top = f"/{self.root.strip('/')}"
        for key in [key for key in MemoryFileSystem.store if key.startswith(f"{top}/")]:
            del MemoryFileSystem.store[key]
        MemoryFileSystem.pseudo_dirs[:] = [
            folder
            for folder in MemoryFileSystem.pseudo_dirs
            if folder != top and not folder.startswith(f"{top}/")
        ]
