"""From a path or URL to the storage behind it; nothing else decides which one that is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ckptstore.errors import UnsupportedError
from ckptstore.storage.base import Storage
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.names import encodable, split_query
from ckptstore.storage.shown import without_secrets

__all__ = ["connect", "locate"]

# One letter before a colon is a Windows drive, not a protocol.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_HALF_URL = re.compile(
    r"(s3a?|gcs|gs|azure|az|abfss?|memory|https?|sftp|ftp):/(?!/)", re.IGNORECASE
)
_CHAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://[^:]*)?::")
_CACHES = frozenset({"simplecache", "filecache", "blockcache", "cached"})
_LITERAL = frozenset({"file", "local", "memory", "s3", "s3a"})


def connect(
    location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Storage:
    """Return the storage of a folder; asks the storage nothing yet.

    Args:
        location: a path, or a URL that fsspec knows. It is taken literally: no globs, no
            %-escapes. An `os.PathLike` is always a path.
        storage_options: what fsspec takes for the protocol; local paths and memory need none.

    Raises:
        UnsupportedError: the protocol is unknown, lacks a package, or is a cache; or the
            location is no text that a storage could take.
        TypeError: it is neither text nor a path.
    """
    protocol, rest = _split(location)
    options = dict(storage_options or {})
    if protocol == "file":
        return LocalStorage(_trimmed(os.path.expanduser(rest)))
    if protocol == "memory":
        from ckptstore.storage.memory import MemoryStorage

        return MemoryStorage(rest)
    if protocol in ("s3", "s3a"):
        from ckptstore.storage.s3 import S3Storage

        return S3Storage(rest, options)
    from ckptstore.storage.general import GeneralStorage

    return GeneralStorage(protocol.removesuffix("::"), os.fspath(location), options)


def locate(
    location: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    new: bool = False,
) -> tuple[Storage, str | None]:
    """Return the storage of a location, and the file's name where the location is a file.

    Args:
        location: as in `connect`; ``checkpoints/dante/latest.pt`` gives the storage of
            ``checkpoints/dante`` and ``latest.pt`` if that is a file, else the storage of a folder
            of that name and None. With a separator at its end it is always a folder.
        storage_options: as in `connect`.
        new: whether it is a file that need not be there yet; the storage is asked nothing then.

    Raises:
        UnsupportedError: as in `connect`.
        StorageError: the storage failed, or refused to say what is there.
    """
    protocol, rest = _split(location)
    separators = "/" + (os.sep if protocol == "file" else "")
    text, query = split_query(protocol, os.fspath(location))
    if not rest or text[-1] in separators or protocol.endswith("::"):
        return connect(location, storage_options), None
    if protocol == "file":
        rest = os.path.expanduser(rest)
        parent, name = os.path.split(rest)
        if os.path.isfile(rest) or (new and name not in ("", ".", "..")):
            return LocalStorage(parent or os.curdir), name
        return LocalStorage(rest), None
    name = text.rpartition("/")[2]
    parent = text[: -len(name)]
    # What stands alone behind :// is a bucket or a host, but for memory, which has neither.
    if name not in (".", "..") and (protocol == "memory" or not parent.endswith("://")):
        above = connect(parent + query, storage_options)
        if new or above.entry(name) is not None:
            return above, name
    return connect(location, storage_options), None


def _split(location: str | os.PathLike[str]) -> tuple[str, str]:
    """Return protocol and rest: ``file`` for a path, and for a chain of URLs ``first::``, all."""
    if not isinstance(location, (str, os.PathLike)):
        raise TypeError(
            f"a location cannot be a {type(location).__name__}; pass a path or a URL as str, or an "
            "os.PathLike"
        )
    text = os.fspath(location)
    if not isinstance(text, str):
        raise UnsupportedError(f"{text!r} is not text; pass a location as str or os.PathLike")
    if not text:
        raise UnsupportedError("the location is empty; name a path, or a URL such as s3://bucket/x")
    if "\0" in text or not encodable(text):
        raise UnsupportedError(
            f"the location {without_secrets(text)!r} holds a character that no name can have; "
            "name another"
        )
    half = _HALF_URL.match(text)
    if half:
        raise UnsupportedError(
            f"{without_secrets(text)!r} is neither a URL nor a likely path; write "
            f"'{half[1]}://...', as str, for pathlib makes one slash of the two (a folder of this "
            f"name is './{half[1]}:/...')"
        )
    if not isinstance(location, str):
        return "file", text
    url, chain = _URL.match(text), _CHAIN.match(text)
    protocol, rest = (url[1].lower(), url[2]) if url else ("file", text)
    if chain and (not url or protocol not in _LITERAL):
        names = [part.partition("://")[0].lower() for part in text.split("::")]
        _refuse_caches(names, text)
        return f"{names[0]}::", text
    _refuse_caches([protocol], text)
    if url and protocol in ("file", "local"):
        drive = os.name == "nt" and re.match(r"/[A-Za-z]:", rest)
        return "file", rest[1:] if drive else rest
    return protocol, rest


def _refuse_caches(protocols: list[str], text: str) -> None:
    if not _CACHES.isdisjoint(protocols):
        raise UnsupportedError(
            f"{without_secrets(text)!r} reads through a cache that never asks whether it is still "
            "right; name the location behind it"
        )


def _trimmed(path: str) -> str:
    """Return a path without separators at its end, but for the root's own."""
    return path.rstrip("/" + os.sep) or path[:1] or os.curdir
