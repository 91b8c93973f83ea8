"""One new object, sent in parts as the bytes come, and there only when it is finished."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckptstore.errors import StorageError
from ckptstore.storage.base import Held
from ckptstore.storage.s3checks import Checks
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3copies import Copies
from ckptstore.storage.s3errand import Body, Errand
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3parts import MOST_PARTS, Gatherer, Part
from ckptstore.storage.s3senders import Senders

__all__ = ["MARK", "Upload", "mark_of"]

MARK = "ckptstore-write"
"""The metadata that says which write an object comes from; a lost reply is settled by it."""

_LONGEST_ABORT = 15  # Seconds; whoever interrupts a program does not wait for a dead server.
_log = logging.getLogger(__name__)


class Upload:
    """Takes the bytes of one object; finish it, or abort it.

    What is lent goes to the server from where it is; what is written waits in at most 64 MiB.
    Several parts are on their way at once, and a file that fits into one part is sent by a single
    request. An object of more than 900 GB needs larger parts, and memory for one of them where its
    bytes are written and not lent.

    Args:
        client: sends the requests.
        bucket: of the object.
        key: of the object.
        expected_size: bytes; 0 where unknown.
        condition: parameters that make the service refuse a key that is taken.
        inside: what the keys of the location start with.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        *,
        expected_size: int,
        condition: Mapping[str, Any],
        inside: str,
    ) -> None:
        self._client = client
        self._target: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._condition = dict(condition)
        self._mark = secrets.token_hex(16)
        self._checks = Checks(client, bucket)
        self._copies = Copies(client, bucket, inside)
        self._gatherer = Gatherer(expected_size)
        self._senders = Senders(self._send_part, self._gatherer.reuse)
        self._starting: concurrent.futures.Future[dict[str, Any]] | None = None

    def write(self, data: memoryview, /) -> None:
        """Take the next bytes; see `Sink.write`."""
        self._take(self._gatherer.write(memoryview(data).cast("B")))

    def lend(self, data: memoryview, /, held: Held | None = None) -> None:
        """Take the next bytes, which stay; see `Sink.lend`.

        Args:
            data: the bytes.
            held: the key that has the same bytes, and where.
        """
        self._take(self._gatherer.lend(memoryview(data).cast("B"), held))

    def finish(self) -> None:
        """Make the object exist.

        Raises:
            Failure: it failed; where ``lost`` is set, the object may come to exist all the same.
        """
        if self._starting is None:
            self._put(self._gatherer.part.views)
            return
        if self._gatherer.part.size:
            self._begin(self._gatherer.next())
        parts = self._senders.finish()
        self._complete(
            lambda condition: self._client.run(
                "complete_multipart_upload",
                **self._upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        )

    def abort(self) -> None:
        """Stop what is under way, and have the server forget the parts; raises nothing."""
        self._senders.stop()
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

    # -- parts ------------------------------------------------------------------------------

    def _take(self, full: Iterator[Part]) -> None:
        for part in full:
            self._begin(part)

    def _begin(self, part: Part) -> None:
        if part.number > MOST_PARTS:
            raise StorageError(
                f"{self._target['Key']!r} needs more than {MOST_PARTS} parts of "
                f"{self._gatherer.part_size} bytes; tell its size when it is opened for writing"
            )
        if self._starting is None:
            # This is not cancelled by an interrupt: `abort` needs to know what was begun.
            self._starting = self._client.start(self._create())
            self._starting.result()  # Here, since an interrupt reaches no other thread.
        self._senders.put(part)

    async def _create(self) -> dict[str, Any]:
        request = {**self._target, "Metadata": {MARK: self._mark}}
        announced = self._checks.announced()
        try:
            return await self._client.send("create_multipart_upload", **request, **announced)
        except Failure as failure:
            if not announced or not self._checks.doubtful(failure):
                raise
        answer = await self._client.send("create_multipart_upload", **request)
        self._checks.refused()
        return answer

    @property
    def _upload(self) -> dict[str, Any]:
        if self._starting is None:
            raise ValueError("no part was begun")
        return {**self._target, "UploadId": str(self._starting.result()["UploadId"])}

    def _send_part(self, part: Part, known: Callable[[Errand], Errand]) -> dict[str, Any]:
        """Send a part from a thread of its own, and return its entry in the list of all."""
        try:
            held, upload = part.held, self._upload
            if held is not None:
                made = self._copies.part(upload, part.number, held.name, held.start, part.size)
                if made is not None:
                    return made
            answer = self._checked(
                part.views,
                lambda check: self._client.move(
                    "upload_part",
                    known(Errand(body=Body(part.views))),
                    **upload,
                    PartNumber=part.number,
                    **check,
                ),
            )
        except Failure as failure:
            failure.lost = False  # A part that may yet arrive makes no object.
            raise
        kept = {
            name: value
            for name, value in answer.items()
            if name == "ETag" or (name.startswith("Checksum") and name != "ChecksumType")
        }
        return {**kept, "PartNumber": part.number}

    def _put(self, views: list[memoryview]) -> None:
        # A connection that turns out to be closed may have carried it; only `send`, which knows
        # of lost answers, repeats it.
        self._complete(
            lambda condition: self._checked(
                views,
                lambda check: self._client.move(
                    "put_object",
                    Errand(body=Body(views), repeats=False),
                    **self._target,
                    Metadata={MARK: self._mark},
                    **check,
                    **condition,
                ),
            )
        )

    def _checked(
        self, views: list[memoryview], send: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Send a body with its checksum, or without where the service does not take it."""
        check = self._checks.of(views)
        try:
            return send(check)
        except Failure as failure:
            if not check or not self._checks.doubtful(failure):
                raise
        answer = send({})
        self._checks.refused()
        return answer

    # -- the end ----------------------------------------------------------------------------

    def _complete(self, send: Callable[[dict[str, Any]], object]) -> None:
        try:
            try:
                send(self._condition)
            except Failure as failure:
                if failure.kind is not Kind.NO_CONDITIONS or not self._condition:
                    raise
                send({})
        except Failure as failure:
            self._settle(failure)

    def _settle(self, failure: Failure) -> None:
        """Return if the object is ours after all: an earlier attempt of it had succeeded."""
        found: dict[str, Any] | None = None
        if failure.lost or failure.kind in (Kind.REFUSED, Kind.NO_UPLOAD):
            with contextlib.suppress(Failure):
                found = self._client.run("head_object", **self._target)
        if found and mark_of(found) == self._mark and found["ContentLength"] == self._gatherer.size:
            return
        raise failure


def mark_of(head: Mapping[str, Any]) -> str | None:
    """Return the mark of an object; some servers change the case of metadata's names."""
    metadata = head.get("Metadata") or {}
    return next((value for name, value in metadata.items() if name.lower() == MARK), None)
