"""Names below a location: which ones are taken, and how folders that hold a file are found."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ckptstore.errors import StorageError, UnsafeError
from ckptstore.storage.base import Entry, Storage

__all__ = ["TEMPORARY", "by_number", "checked", "encodable", "held_by_looking", "split_query"]

TEMPORARY = ".tmp-"
"""What the name of every temporary file starts with, and no name of a checkpoint does."""

_MOST_SCANS = 100


def checked(name: str, *, folder: bool = False) -> str:
    """Return a relative name once it is sure to stay below the location.

    Args:
        name: parts with ``/`` between them, taken literally.
        folder: whether it names a folder, which may be ``""``, the location itself.

    Raises:
        UnsafeError: it is absolute, has an empty part, or one that leads elsewhere.
    """
    if folder and not name:
        return name
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UnsafeError(f"{name!r} is not a name below a location; not followed")
    if not encodable(name):
        raise UnsafeError(f"{name!r} holds a character that no name can have; not followed")
    return name


def encodable(text: str) -> bool:
    """Whether the operating system could take a text as a name.

    Half of a surrogate pair it cannot, unless that stands for a byte of a file's name that is
    not UTF-8.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def held_by_looking(
    storage: Storage, folder: str, prefix: str, names: Sequence[str]
) -> dict[str, dict[str, Entry]]:
    """Answer `Storage.held` where a listing is not one moment's state.

    A checkpoint is replaced by committing a higher one before the lower one is removed. Looking
    from low to high therefore meets at least one of the two, unless a folder appeared meanwhile:
    so the answer counts only where the set of folders is the same afterwards.

    Raises:
        StorageError: the set never came to rest.
    """
    inside = f"{folder}/" if folder else ""
    before = _called(storage, folder, prefix)
    for _ in range(_MOST_SCANS):
        found: dict[str, dict[str, Entry]] = {}
        for sub in before:
            first = storage.entry(f"{inside}{sub}/{names[0]}")
            if first is not None:
                rest = {name: storage.entry(f"{inside}{sub}/{name}") for name in names[1:]}
                there = {name: entry for name, entry in rest.items() if entry is not None}
                found[sub] = {names[0]: first, **there}
        after = _called(storage, folder, prefix)
        if after == before:
            return found
        before = after
    raise StorageError(
        f"{storage.location} changed {_MOST_SCANS} times while it was listed; "
        "too many writers are at work there; try again when they are done"
    )


def by_number(name: str) -> tuple[int, str]:
    """Return what sorts names that end in numbers of eight digits or more by these."""
    return len(name), name


def split_query(protocol: str, url: str) -> tuple[str, str]:
    """Return a URL without its query, and the query, which on the web goes with every name.

    Elsewhere it is a part of the name. What follows a ``#`` no web server ever sees.
    """
    if protocol not in ("http", "https"):
        return url, ""
    url = url.partition("#")[0]
    start = url.find("?")
    return (url, "") if start < 0 else (url[:start], url[start:])


def _called(storage: Storage, folder: str, prefix: str) -> tuple[str, ...]:
    found = (sub for sub in storage.list(folder).folders if sub.startswith(prefix))
    return tuple(sorted(found, key=by_number))
