"""S3 and its like: conditional requests where the service keeps them, and never a new bucket.

Whether a service refuses to create what is there already, and to replace what has changed, is
asked once per endpoint and bucket, and never assumed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ckptstore.errors import CkptstoreError, NotFoundError, StorageError, UnsupportedError
from ckptstore.storage.base import (
    Elsewhere,
    Entry,
    Held,
    Listing,
    RangeReader,
    Sink,
    Storage,
    Unfinished,
    UnknownOutcomeError,
    worth_keeping,
)
from ckptstore.storage.clocks import date_of
from ckptstore.storage.keyed import KeyedStorage
from ckptstore.storage.names import TEMPORARY, by_number
from ckptstore.storage.s3client import client_for
from ckptstore.storage.s3conditions import Conditions
from ckptstore.storage.s3copies import LEAST_SOURCE, Copies
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3file import S3Reader, S3Sink
from ckptstore.storage.s3objects import Objects
from ckptstore.storage.s3transfer import copy_in_parts
from ckptstore.storage.s3unfinished import abort, parts_of, unfinished
from ckptstore.storage.s3upload import Upload

__all__ = ["S3Storage"]

log = logging.getLogger(__name__)

_ARN = re.compile(r"(arn:[^/]*:accesspoint[:/][^/:]+)(?:/(.*))?", re.DOTALL)
_LARGEST_COPY = 5 * 2**30
_MOST_SCANS = 100


class S3Storage(KeyedStorage):
    """The objects below ``s3://bucket/prefix``; sends no request before it is asked something.

    Args:
        rest: the URL's part behind ``s3://``.
        storage_options: what s3fs takes, such as ``endpoint_url``, ``key`` and ``secret``.

    Raises:
        UnsupportedError: the URL names no bucket, or holds credentials.
    """

    at_once = 16
    content_versions = True
    lists_in_order = True
    taking_over = "nothing"

    def __init__(self, rest: str, storage_options: Mapping[str, Any]) -> None:
        arn = _ARN.fullmatch(rest)
        bucket, _, prefix = rest.partition("/")
        if arn:
            bucket, prefix = arn[1], arn[2] or ""
        # A secret may hold a slash that should have been escaped; no bucket's name has a colon.
        if "@" in bucket or ("@" in rest and ":" in bucket and not arn):
            raise UnsupportedError(
                "an S3 location holds credentials; take them out of it, and set AWS variables or "
                "pass storage options"
            )
        if not bucket:
            raise UnsupportedError("an S3 location names no bucket; write s3://bucket/folder")
        root = prefix.rstrip("/")
        super().__init__(f"s3://{bucket}/{root}".rstrip("/"), root)
        self._bucket = bucket
        self._client = client_for(storage_options)
        self._conditions = Conditions(self._client, bucket)
        self._objects = Objects(self._client, bucket)
        self._rest = rest

    def elsewhere(self) -> Elsewhere:
        """See `Storage.elsewhere`."""
        return Elsewhere(f"s3://{self._rest}", self._client.options)

    def list(self, folder: str = "") -> Listing:
        """See `Storage.list`."""
        inside = self._inside(folder)
        files: dict[str, Entry] = {}
        folders: list[str] = []
        for page in self._pages(inside, Delimiter="/"):
            folders += [row["Prefix"][len(inside) : -1] for row in page.get("CommonPrefixes", ())]
            for row in page.get("Contents", ()):
                name = row["Key"][len(inside) :]
                full = f"{folder}/{name}" if folder else name
                files[name] = _entry(full, row["Size"], row)
        if inside and not files and not folders and self._head(inside[:-1], folder):
            raise self._no_folder(folder)
        return self._listing(files.items(), folders)

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """See `Storage.holding`; one listing of all that starts with ``prefix``."""
        return tuple(self.held(folder, prefix, (name,)))

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """See `Storage.held`; one listing of all that starts with ``prefix``."""
        inside = self._inside(folder)
        before: dict[str, dict[str, Entry]] | None = None
        for _ in range(_MOST_SCANS):
            seen: dict[str, dict[str, Entry]] = {}
            pages = 0
            for page in self._pages(inside + prefix):
                pages += 1
                for row in page.get("Contents", ()):
                    subfolder, slash, rest = row["Key"][len(inside) :].partition("/")
                    files = seen.setdefault(subfolder, {}) if slash else {}
                    if rest in names:
                        full = row["Key"][len(self._inside("")) :]
                        files[rest] = _entry(full, row["Size"], row)
            found = {sub: seen[sub] for sub in sorted(seen, key=by_number) if names[0] in seen[sub]}
            if self._is_one_moment(inside, prefix, seen, pages, found == before):
                return found
            before = found
        raise StorageError(
            f"{self.location} changed {_MOST_SCANS} times while it was listed; "
            "too many writers are at work there; try again when they are done"
        )

    def _is_one_moment(
        self, inside: str, prefix: str, seen: Collection[str], pages: int, again: bool
    ) -> bool:
        """Whether what several pages show was there at one moment, as what one page shows is.

        Keys come in ascending order, so what holds for looking into folders one by one holds for
        pages, unless numbers have more than eight digits: there only the same answer twice will
        do, ``again``.
        """
        if pages < 2:
            return True
        if len({len(subfolder) for subfolder in seen}) > 1:
            return again
        return {*seen} == self._subfolders(inside, prefix)

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`."""
        head = self._head(self._key(name), name)
        return _entry(name, head["ContentLength"], head) if head else None

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See `Storage.read`."""
        return self._get(name, limit)[0]

    def open(self, name: str) -> RangeReader:
        """See `Storage.open`; one request, which brings the object's end along."""
        with self._explained("read", name):
            end = self._objects.end(self._key(name))
        if end is None:
            raise self._absent(name)
        size, tag, tail = end
        return S3Reader(
            self._client,
            self._target(name),
            size=size,
            tag=tag,
            tail=tail,
            short=lambda end: self._short(name, size, end),
            said=self._said(name),
            explained=lambda: self._explained("read", name),
        )

    def create_only(self, name: str, data: bytes) -> bool:
        """See `Storage.create_only`; asks once per endpoint and bucket."""
        with self._explained("write", name):
            return self._conditions.ask_creates_only(self._key(name), data)

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.create`; looks first as long as the service is not known to refuse."""
        if not self._conditions.creates_only:
            self._look_first(name)
        request = {**self._target(name), "Body": data}
        try:
            try:
                self._client.run("put_object", **request, **self._conditions.only_new)
            except Failure as failure:
                if failure.kind is not Kind.NO_CONDITIONS:
                    raise
                self._conditions.no_only_new()
                self._client.run("put_object", **request)
        except Failure as failure:
            if failure.kind is Kind.REFUSED:
                raise self._taken(name) from failure
            held = self._held(name) if failure.lost else None
            if held is not None and held != data:
                raise self._taken(name) from failure
            if held is None:
                raise self._unsettled(failure, name) from failure

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
        """See `Storage.writer`; parts are sent as they come, and count when all are there."""
        self._look_first(name)
        upload = Upload(
            self._client,
            self._bucket,
            self._key(name),
            expected_size=expected_size,
            condition=self._conditions.only_new,
            inside=self._inside(""),
            resident=resident,
        )
        try:
            yield S3Sink(upload, self._target_of, lambda: self._explained("write", name))
            try:
                upload.finish()
            except Failure as failure:
                if failure.kind is Kind.REFUSED:
                    raise self._taken(name) from failure
                raise self._unsettled(failure, name) from failure
        except BaseException as error:
            if lasting and worth_keeping(error):
                upload.leave()
            else:
                upload.abort()
            raise

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.replace`."""
        try:
            self._client.run("put_object", **self._target(name), Body=data)
        except Failure as failure:
            if not failure.lost or self._held(name) != data:
                raise self._unsettled(failure, name) from failure

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """See `Storage.swap`; by If-Match, where the service keeps it."""
        self._need_swaps(name)
        try:
            content, tag = self._get(name)
        except NotFoundError:
            return False
        if content != expected:
            return False
        try:
            self._client.run("put_object", **self._target(name), Body=data, IfMatch=tag)
        except Failure as failure:
            refused = failure.kind in (Kind.REFUSED, Kind.ABSENT)
            # After a repeated request it may be our own success that is in the way; and aiohttp
            # repeats a PUT by itself where a connection that it had kept turns out to be closed.
            if (refused or failure.lost) and self._held(name) == data:
                return True
            if not refused:
                raise self._unsettled(failure, name) from failure
            return False
        return True

    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """See `Storage.copy`; by the service, in parts above 5 GiB."""
        old, new = self._key(source), self._target(name)
        head = self._head(old, source)
        if head is None:
            raise self._absent(source)
        if only_new:
            self._copy_new({"Bucket": self._bucket, "Key": old}, name, head)
            return
        if old == new["Key"]:
            return
        with self._explained("copy", source):
            self._copy({"Bucket": self._bucket, "Key": old}, name, head)

    def beside(self, other: Storage) -> bool:
        """See `Storage.beside`; with one set of options and variables, so that one may do both."""
        return isinstance(other, S3Storage) and other._client is self._client

    def fetch(self, origin: Storage, source: str, name: str) -> bool:
        """See `Storage.fetch`."""
        if not isinstance(origin, S3Storage):
            return False
        place = origin._target(source)
        try:
            head = self._client.run("head_object", **place)
            if head["ContentLength"] > _LARGEST_COPY:
                return False
            self._copy(place, name, head)
        except Failure as failure:
            log.info("%s is not copied by the service itself: %s", self._said(name), failure)
            return False
        return True

    def composes(self) -> bool:
        """See `Storage.composes`; the service is asked once."""
        return Copies(self._client, self._bucket, self._inside("")).able()

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        try:
            self._client.run("delete_object", **self._target(name))
        except Failure as failure:
            if failure.kind is not Kind.ABSENT:
                raise self._error(failure, "delete", name) from failure

    def unfinished(self) -> tuple[Unfinished, ...]:
        """See `Storage.unfinished`; begins an upload and ends it, to learn the service's clock."""
        with self._explained("list the unfinished uploads of", ""):
            return unfinished(self._client, self._bucket, self._inside(""))

    @contextlib.contextmanager
    def continued(self, upload: Unfinished, *, expected_size: int) -> Iterator[Sink]:
        """See `Storage.continued`."""
        with self._explained("go on with the upload of", upload.name):
            target = {**self._target(upload.name), "UploadId": upload.upload}
            work = Upload.of_parts(
                self._client,
                target,
                parts_of(self._client, target),
                expected_size=expected_size,
                condition=self._conditions.only_new,
                inside=self._inside(""),
            )
            try:
                yield S3Sink(work, self._target_of, lambda: self._explained("write", upload.name))
                work.finish()
            finally:
                work.leave()

    def give_up(self, upload: Unfinished) -> None:
        """See `Storage.give_up`."""
        with self._explained("give up the upload of", upload.name):
            abort(self._client, {**self._target(upload.name), "UploadId": upload.upload})

    def _copy(self, origin: Mapping[str, Any], name: str, head: Mapping[str, Any]) -> None:
        if head["ContentLength"] > _LARGEST_COPY:
            copy_in_parts(self._client, origin, self._target(name), head)
        else:
            self._client.run("copy_object", CopySource=origin, **self._target(name))

    def _copy_new(self, origin: Mapping[str, Any], name: str, head: Mapping[str, Any]) -> None:
        """Copy an object to a key that is free, by an upload that comes to exist on condition.

        Services that keep conditions of uploads ignore those of copies, some of them silently.
        """
        if head["ContentLength"] <= LEAST_SOURCE:
            raise UnsupportedError(f"{self._said(name)} is sent with less requests than copied")
        self._look_first(name)
        try:
            if self._conditions.creates_only is False:
                self._copy(origin, name, head)  # One writer, and it has looked.
                return
            if not self.composes():
                raise UnsupportedError(f"{self._client.endpoint} makes no uploads of copies")
            target, condition = self._target(name), self._conditions.only_new
            copy_in_parts(self._client, origin, target, head, condition=condition)
        except Failure as failure:
            if failure.lost:
                raise self._unsettled(failure, name) from failure
            if failure.kind is Kind.REFUSED and self.entry(name) is not None:
                raise self._taken(name) from failure
            if failure.kind in (Kind.REFUSED, Kind.ABSENT):
                raise NotFoundError(f"{origin['Key']!r} is no more what it was") from failure
            raise UnsupportedError(f"{self._said(name)} is not copied: {failure}") from failure

    def _target_of(self, held: Held) -> dict[str, Any]:
        place = held.storage if isinstance(held.storage, S3Storage) else self
        return place._target(held.name)

    def time(self) -> float | None:
        """See `Storage.time`; the date of the answer to a listing of one name."""
        with self._explained("list", ""):
            request = {"Bucket": self._bucket, "Prefix": self._inside(""), "MaxKeys": 1}
            return date_of(self._client.run("list_objects_v2", **request))

    def _target(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._key(name)}

    def _pages(self, prefix: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        request = {"Bucket": self._bucket, "Prefix": prefix, **parameters}
        while True:
            with self._explained("list", ""):
                page = self._client.run("list_objects_v2", **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _subfolders(self, inside: str, prefix: str) -> set[str]:
        return {
            row["Prefix"][len(inside) : -1]
            for page in self._pages(inside + prefix, Delimiter="/")
            for row in page.get("CommonPrefixes", ())
        }

    def _head(self, key: str, name: str) -> dict[str, Any] | None:
        with self._explained("look at", name):
            return self._objects.head(key)

    def _get(self, name: str, limit: int | None = None) -> tuple[bytes, str]:
        with self._explained("read", name):
            return self._objects.get(self._key(name), limit)

    def _held(self, name: str) -> bytes | None:
        """Return what a lost reply may have left; None where that cannot be told."""
        with contextlib.suppress(CkptstoreError):
            return self.read(name)
        return None

    def _need_swaps(self, name: str) -> None:
        inside = self._inside("")
        with self._explained("replace", name):
            able = self._conditions.ask_swaps(f"{inside}{TEMPORARY}{secrets.token_hex(8)}")
        if not able:
            raise UnsupportedError(
                f"{self.location} cannot replace a file on condition: {self._client.endpoint} does "
                "not keep If-Match; remove the checkpoint first (ckptstore rm)"
            )

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except Failure as failure:
            raise self._error(failure, action, name) from failure

    def _error(self, failure: Failure, action: str, name: str) -> CkptstoreError:
        return failure.error(
            action, self._said(name), bucket=self._bucket, endpoint=self._client.endpoint
        )

    def _unsettled(self, failure: Failure, name: str) -> CkptstoreError:
        if not failure.lost:
            return self._error(failure, "write", name)
        return UnknownOutcomeError(
            f"no reply came from {self._client.endpoint} to the last request for "
            f"{self._said(name)} ({failure.said}); it may still take effect",
            committed=None,
        )


def _entry(name: str, size: int, row: Mapping[str, Any]) -> Entry:
    # rclone's listings leave out the quotes that every ETag elsewhere has.
    # A HEAD tells whole seconds only.
    modified = float(int(row["LastModified"].timestamp()))
    return Entry(name, size, modified, row["ETag"].strip('"'))
