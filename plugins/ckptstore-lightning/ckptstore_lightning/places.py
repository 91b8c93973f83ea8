"""A path of Lightning's as a location: what is there, and whose it is.

Lightning looks at paths through fsspec, and remembers listings of a bucket. ckptstore writes
through connections of its own, so that memory has to be told of what changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ckptstore.manifest import MANIFEST

__all__ = ["Place"]


class Place:
    """One path that a `CheckpointIO` was given. Does I/O.

    Attributes:
        location: for ckptstore: the path as text, that of a checkpoint's manifest without it.
        options: what fsspec's filesystem takes, or None.
    """

    def __init__(
        self, path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
    ) -> None:
        location = os.fspath(path)
        parent, separator, name = location.rpartition("/")
        self.location = parent if separator and parent and name == MANIFEST else location
        self.options = dict(options) if options else None

    def is_file(self) -> bool:
        """Whether a single file is there, and no folder: none of ours, then."""
        fs, key = self._found()
        fs.invalidate_cache(key)
        return bool(fs.isfile(key))

    def is_there(self) -> bool:
        """Whether anything is there."""
        fs, key = self._found()
        fs.invalidate_cache(key)
        return bool(fs.exists(key))

    def names(self) -> set[str]:
        """Return the names in the folder."""
        fs, key = self._found()
        return {found.rstrip("/").rpartition("/")[2] for found in fs.ls(key, detail=False)}

    def open(self) -> Any:
        """Open the single file for reading."""
        fs, key = self._found()
        return fs.open(key, "rb")

    def link(self) -> str | None:
        """Return the path of the symbolic link that this is, or None."""
        fs, key = self._found()
        return key if "file" in fs.protocol and os.path.islink(key) else None

    def tidy(self) -> None:
        """Remove the folder itself, once it is empty."""
        fs, key = self._found()
        if "file" in fs.protocol:
            with contextlib.suppress(OSError):
                os.rmdir(key)
        elif "memory" in fs.protocol:  # It has folders of their own, where S3 has none.
            with contextlib.suppress(OSError):
                fs.rmdir(key)

    def forget(self) -> None:
        """Have fsspec forget what it remembers of this path, with these options and without."""
        fs, key = self._found()
        fs.invalidate_cache(key)
        if self.options:
            with contextlib.suppress(ImportError, OSError, TypeError, ValueError):
                _filesystem(self.location, {})[0].invalidate_cache(key)

    def _found(self) -> tuple[Any, str]:
        return _filesystem(self.location, self.options or {})


def _filesystem(location: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, key = url_to_fs(location, **options)
    return fs, key
