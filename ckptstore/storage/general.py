"""Any fsspec filesystem, by what all of them have; good for one writer at a time.

Nothing here is exclusive by the service's own promise: `create` and `writer` look first. Only
calls that take a path literally are used; `rm`, `get`, `put` and `cp` expand globs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ckptstore.errors import CkptstoreError, NotFoundError, StorageError, UnsupportedError
from ckptstore.storage.base import Entry, Listing, RangeReader, Sink
from ckptstore.storage.keyed import KeyedStorage
from ckptstore.storage.names import held_by_looking, split_query
from ckptstore.storage.shown import Discretion, secrets_in, without_secrets

__all__ = ["GeneralStorage"]

_AT_ONCE = 8 * 2**20
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "ino")


class GeneralStorage(KeyedStorage):
    """What is below a URL of an fsspec filesystem, which is connected when first needed.

    Args:
        protocol: of the URL.
        url: the whole of it.
        storage_options: what fsspec takes for it.

    Raises:
        UnsupportedError: fsspec does not know the protocol, or lacks a package for it.
    """

    def __init__(self, protocol: str, url: str, storage_options: Mapping[str, Any]) -> None:
        import fsspec

        self._url, self._query = split_query(protocol, url)
        location = _without_slash(self._url) + self._query
        # In memory a question mark is a letter like any other.
        shown = location if protocol == "memory" else without_secrets(location)
        super().__init__(shown, "")

        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError as error:
            raise UnsupportedError(
                f"there is no storage {protocol!r}, which {self.location!r} asks for; name a path, "
                "or a URL such as s3://bucket/folder"
            ) from error
        except ImportError as error:
            raise UnsupportedError(
                f"the storage {protocol!r}, which {self.location!r} asks for, needs a package that "
                f"is not installed: {error}"
            ) from error
        self._options = dict(storage_options)
        defaults = fsspec.config.conf.get(protocol, {})
        self._discretion = Discretion(
            secrets_in({**defaults, **storage_options}), all_is_secret=shown != location
        )
        self._connected: tuple[int, Any] | None = None

    @property
    def _fs(self) -> Any:
        """The filesystem; made again after a fork, which fsspec's own do not outlive."""
        if self._connected is None or self._connected[0] != os.getpid():
            import fsspec

            with self._explained("reach", ""):
                filesystem, root = fsspec.core.url_to_fs(self._url, **self._options)
            self._root = root.rstrip("/")
            self._connected = os.getpid(), filesystem
        return self._connected[1]

    def list(self, folder: str = "") -> Listing:
        """See `Storage.list`."""
        path = self._inside(folder).rstrip("/") + self._query
        files: dict[str, Entry] = {}
        folders = []
        with self._explained("list", folder):
            self._fs.invalidate_cache()
            try:
                rows = self._fs.ls(path, detail=True)
            except FileNotFoundError:
                return Listing({}, ())
            except NotADirectoryError as error:
                raise self._no_folder(folder) from error
        for row in rows:
            if row["type"] == "file" and _same(row["name"], path):
                raise self._no_folder(folder)
            name = row["name"].rstrip("/").rpartition("/")[2]
            if row["type"] == "directory":
                folders.append(name)
            else:
                files[name] = self._as_entry(f"{folder}/{name}" if folder else name, row)
        return self._listing(files.items(), folders)

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """See `Storage.holding`."""
        return tuple(self.held(folder, prefix, (name,)))

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """See `Storage.held`."""
        return held_by_looking(self, folder, prefix, names)

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`."""
        key = self._key(name)
        with self._explained("look at", name):
            self._fs.invalidate_cache()
            try:
                row = self._fs.info(key)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return self._as_entry(name, row) if row["type"] == "file" else None

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See `Storage.read`."""
        entry = self.entry(name)
        if entry is None:
            raise self._absent(name)
        end = entry.size if limit is None else min(limit, entry.size)
        return self._range(name, 0, end) if end else b""

    def open(self, name: str) -> RangeReader:
        """See `Storage.open`."""
        entry = self.entry(name)
        if entry is None:
            raise self._absent(name)
        return _Reader(self, name, entry.size)

    def create_only(self, name: str, data: bytes) -> bool:
        """Return False: fsspec promises nothing of the kind."""
        return False

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.create`; looks first."""
        self._look_first(name)
        self.replace(name, data, durable=durable)

    @contextlib.contextmanager
    def writer(
        self,
        name: str,
        *,
        expected_size: int = 0,
        durable: bool = True,
        resident: bool = True,
        lasting: bool = False,
    ) -> Iterator[Sink]:
        """See `Storage.writer`; looks first."""
        self._look_first(name)
        with self._explained("create", name):
            file = self._open_new(self._key(name))
        try:
            yield _Sink(self, name, file)
            with self._explained("write", name):
                file.close()
        except BaseException:
            self._take_back(name, file)
            raise

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.replace`; as whole as the filesystem makes it."""
        key = self._key(name)
        with self._explained("write", name):
            try:
                self._fs.pipe_file(key, data)
            except FileNotFoundError:
                self._make_folders(key)
                self._fs.pipe_file(key, data)

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """Refuse: fsspec has no such operation."""
        raise UnsupportedError(
            f"{self.location} cannot replace a file on condition; "
            "remove the checkpoint first (ckptstore rm), or keep it on local disk or S3"
        )

    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """See `Storage.copy`; by the filesystem itself where it can, and looks first."""
        old, new = self._key(source), self._key(name)
        if self.entry(source) is None:
            raise self._absent(source)
        if only_new:
            self._look_first(name)
        if old == new:
            return
        with self._explained("copy", source):
            self._make_folders(new)
            with contextlib.suppress(NotImplementedError):
                self._fs.cp_file(old, new)
                return
            with self._fs.open(old, "rb") as original, self._fs.open(new, "wb") as duplicate:
                while data := original.read(_AT_ONCE):
                    duplicate.write(data)

    def delete(self, name: str) -> None:
        """See `Storage.delete`; the location's own folder stays."""
        key = self._key(name)
        with self._explained("delete", name), contextlib.suppress(FileNotFoundError):
            if self.entry(name) is not None:
                self._fs.rm_file(key)
        folder = name.rpartition("/")[0]
        with contextlib.suppress(OSError, NotImplementedError):
            while folder and self.list(folder) == Listing({}, ()):
                self._fs.rmdir(self._inside(folder).rstrip("/"))
                folder = folder.rpartition("/")[0]

    def _inside(self, folder: str) -> str:
        self._fs  # noqa: B018  connecting is what tells the root
        return super()._inside(folder)

    def _key(self, name: str) -> str:
        self._fs  # noqa: B018
        return super()._key(name) + self._query

    def _said(self, name: str) -> str:
        return super()._said(self._discretion.name(name))

    def _as_entry(self, name: str, row: Mapping[str, Any]) -> Entry:
        return _entry(name, row)

    def _range(self, name: str, start: int, end: int) -> bytes:
        with self._explained("read", name):
            return bytes(self._fs.cat_file(self._key(name), start=start, end=end))

    def _open_new(self, key: str) -> Any:
        try:
            return self._fs.open(key, "wb")
        except FileNotFoundError:
            self._make_folders(key)
            return self._fs.open(key, "wb")

    def _make_folders(self, key: str) -> None:
        """Make the folders of a key where the filesystem has folders.

        The first one is never made: on an object store it is a bucket.
        """
        fs = self._fs
        parts = key.split("/")[:-1]
        first = 2 if key.startswith("/") else 1
        missing: list[str] = []
        while len(parts) > first and not fs.isdir("/".join(parts)):
            missing.append("/".join(parts))
            parts.pop()
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                fs.mkdir(folder, create_parents=False)

    def _take_back(self, name: str, file: Any) -> None:
        """Remove what an unfinished file has left; closing it may publish it as it is."""
        from fsspec.spec import AbstractBufferedFile

        with contextlib.suppress(Exception):
            file.discard()
        with contextlib.suppress(Exception):
            if isinstance(file, AbstractBufferedFile):
                file.closed = True
            else:
                file.close()
        with contextlib.suppress(Exception):
            self.delete(name)

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        """Turn what a filesystem raises, which may be anything, into an error of ours."""
        try:
            yield
        except CkptstoreError:
            raise
        except FileNotFoundError as error:
            raise NotFoundError(
                f"cannot {action} {self._said(name)}: not found"
            ) from self._discretion.cause(error)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.location} cannot {action} files"
            ) from self._discretion.cause(error)
        except Exception as error:
            failure = StorageError(
                f"cannot {action} {self._said(name)}: {type(error).__name__}: "
                f"{self._discretion.told(error)}; look at the storage, then try again"
            )
            failure.denied = isinstance(error, PermissionError)
            raise failure from self._discretion.cause(error)


class _Sink(Sink):
    def __init__(self, storage: GeneralStorage, name: str, file: Any) -> None:
        self._storage = storage
        self._name = name
        self._file = file

    def write(self, data: memoryview, /) -> None:
        view = memoryview(data).cast("B")
        with self._storage._explained("write", self._name):
            for start in range(0, len(view), _AT_ONCE):
                self._file.write(bytes(view[start : start + _AT_ONCE]))


class _Reader(RangeReader):
    def __init__(self, storage: GeneralStorage, name: str, size: int) -> None:
        self.size = size
        self._storage = storage
        self._name = name

    def readinto(self, start: int, target: memoryview) -> None:
        rest = target.cast("B")
        if start + len(rest) > self.size:
            raise self._storage._short(self._name, self.size, start + len(rest))
        for place in range(0, len(rest), _AT_ONCE):
            part = rest[place : place + _AT_ONCE]
            data = self._storage._range(self._name, start + place, start + place + len(part))
            if len(data) != len(part):
                raise self._storage._short(self._name, start + place + len(data), start + len(rest))
            part[:] = data


def _entry(name: str, row: Mapping[str, Any]) -> Entry:
    modified = next((row[key] for key in _TIMES if row.get(key) is not None), 0.0)
    if isinstance(modified, str):
        try:
            modified = datetime.fromisoformat(modified.replace("Z", "+00:00"))
        except ValueError:
            modified = 0.0
    seconds = modified.timestamp() if isinstance(modified, datetime) else float(modified)
    size = int(row.get("size") or 0)
    version = next((str(row[key]) for key in _VERSIONS if row.get(key)), None)
    return Entry(name, size, seconds, version and f"{version}-{seconds}-{size}")


def _without_slash(url: str) -> str:
    return url if url.endswith("://") else url.rstrip("/")


def _same(name: str, path: str) -> bool:
    return name.strip("/") == path.strip("/")
