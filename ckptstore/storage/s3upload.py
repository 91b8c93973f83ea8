"""One new object, sent in parts as the bytes come, and there only when it is finished."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import io
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from ckptstore.errors import StorageError
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure, Kind

__all__ = ["MARK", "Upload", "mark_of"]

MARK = "ckptstore-write"
"""The metadata that says which write an object comes from; a lost reply is settled by it."""

_MIB = 2**20
_SMALLEST_PART = 8 * _MIB
_LARGEST_GROWN_PART = 64 * _MIB
_GROWS_AFTER = 1000
_BUFFERS = 96 * _MIB
_MOST_AT_ONCE = 8
_MOST_PARTS = 10_000
_LONGEST_ABORT = 15  # Seconds; whoever interrupts a program does not wait for a dead server.
_log = logging.getLogger(__name__)


class Upload:
    """Takes the bytes of one object; finish it, or abort it.

    At most 96 MiB wait in memory, several parts are on their way at once, and a file that fits
    into one part is sent by a single request. All parts have one size, which some servers insist
    on, unless the size of the file was unknown. An object of more than 900 GB needs larger parts,
    and memory for one of them.

    Args:
        client: sends the requests.
        bucket: of the object.
        key: of the object.
        expected_size: bytes; 0 where unknown, which is good for 500 GB.
        condition: parameters that make the service refuse a key that is taken.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        *,
        expected_size: int,
        condition: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._target: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._condition = dict(condition)
        self._mark = secrets.token_hex(16)
        self._part_size = part_size(expected_size)
        self._grows = not expected_size
        self._size = 0
        self._buffer = io.BytesIO()
        self._spare: list[io.BytesIO] = []
        self._starting: concurrent.futures.Future[dict[str, Any]] | None = None
        self._under_way: collections.deque[tuple[io.BytesIO, concurrent.futures.Future[Any]]]
        self._under_way = collections.deque()
        self._parts: list[dict[str, Any]] = []

    def write(self, data: memoryview, /) -> None:
        """Take the next bytes; see `Sink.write`."""
        view = memoryview(data).cast("B")
        self._size += len(view)
        while view:
            room = self._part_size - self._buffer.tell()
            if not room:
                self._send_part()
                continue
            self._buffer.write(view[:room])
            view = view[room:]

    def finish(self) -> None:
        """Make the object exist.

        Raises:
            Failure: it failed; where ``lost`` is set, the object may come to exist all the same.
        """
        if self._starting is None:
            self._buffer.truncate()
            self._complete("put_object", Body=self._buffer, Metadata={MARK: self._mark})
            return
        if self._buffer.tell():
            self._send_part()
        while self._under_way:
            self._take_answer()
        parts = [{**part, "PartNumber": number} for number, part in enumerate(self._parts, 1)]
        self._complete(
            "complete_multipart_upload", UploadId=self._id, MultipartUpload={"Parts": parts}
        )

    def abort(self) -> None:
        """Stop what is under way, and have the server forget the parts; raises nothing."""
        for _, future in self._under_way:
            future.cancel()
        self._under_way.clear()
        if self._starting is None:
            return
        ending: concurrent.futures.Future[Any] | None = None
        try:
            upload = self._starting.result(_LONGEST_ABORT)["UploadId"]
            work = self._client.send("abort_multipart_upload", **self._target, UploadId=upload)
            ending = self._client.start(work)
            ending.result(_LONGEST_ABORT)
        except (Failure, concurrent.futures.TimeoutError) as failure:
            if isinstance(failure, Failure) and failure.kind is Kind.NO_UPLOAD:
                return
            (ending or self._starting).cancel()
            _log.warning(
                "parts of %r may be left in bucket %s, where only a lifecycle rule, or aborting "
                "its multipart upload, removes them: %s",
                self._target["Key"],
                self._target["Bucket"],
                failure or "no answer",
            )

    @property
    def _id(self) -> str:
        if self._starting is None:
            work = self._client.send(
                "create_multipart_upload", **self._target, Metadata={MARK: self._mark}
            )
            # This is not cancelled by an interrupt: `abort` needs to know what was begun.
            self._starting = self._client.start(work)
        return str(self._starting.result()["UploadId"])

    def _send_part(self) -> None:
        buffer, number = self._buffer, len(self._parts) + len(self._under_way) + 1
        if number > _MOST_PARTS:
            raise StorageError(
                f"{self._target['Key']!r} needs more than {_MOST_PARTS} parts of "
                f"{self._part_size} bytes; tell its size when it is opened for writing"
            )
        buffer.truncate()
        work = self._client.send(
            "upload_part", **self._target, UploadId=self._id, PartNumber=number, Body=buffer
        )
        self._under_way.append((buffer, self._client.start(work)))
        if self._grows and not number % _GROWS_AFTER:
            self._part_size = min(self._part_size * 2, _LARGEST_GROWN_PART)
        # One buffer more is being filled.
        while len(self._under_way) > self._most_at_once():
            self._take_answer()
        self._buffer = self._spare.pop() if self._spare else io.BytesIO()
        self._buffer.seek(0)

    def _most_at_once(self) -> int:
        return max(0, min(_MOST_AT_ONCE, _BUFFERS // self._part_size - 1))

    def _take_answer(self) -> None:
        buffer, future = self._under_way[0]
        try:
            answer = future.result()
        except Failure as failure:
            failure.lost = False  # A part that may yet arrive makes no object.
            raise
        self._under_way.popleft()
        self._spare.append(buffer)
        self._parts.append(
            {
                name: value
                for name, value in answer.items()
                if name == "ETag" or (name.startswith("Checksum") and name != "ChecksumType")
            }
        )

    def _complete(self, operation: str, **parameters: Any) -> None:
        request = {**self._target, **parameters}
        try:
            try:
                self._client.run(operation, **request, **self._condition)
            except Failure as failure:
                if failure.kind is not Kind.NO_CONDITIONS or not self._condition:
                    raise
                self._client.run(operation, **request)
        except Failure as failure:
            self._settle(failure)

    def _settle(self, failure: Failure) -> None:
        """Return if the object is ours after all: an earlier attempt of it had succeeded."""
        found: dict[str, Any] | None = None
        if failure.lost or failure.kind in (Kind.REFUSED, Kind.NO_UPLOAD):
            with contextlib.suppress(Failure):
                found = self._client.run("head_object", **self._target)
        if found and mark_of(found) == self._mark and found["ContentLength"] == self._size:
            return
        raise failure


def part_size(expected_size: int) -> int:
    """Return the size of parts for a file: 8 MiB, or what leaves a tenth of 10,000 parts free."""
    least = -(-expected_size * 10 // (9 * _MOST_PARTS))
    return max(_SMALLEST_PART, -(-least // _MIB) * _MIB)


def mark_of(head: Mapping[str, Any]) -> str | None:
    """Return the mark of an object; some servers change the case of metadata's names."""
    metadata = head.get("Metadata") or {}
    return next((value for name, value in metadata.items() if name.lower() == MARK), None)
