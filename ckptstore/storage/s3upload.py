"""One new object, sent in parts as the bytes come, and there only when it is finished."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckptstore.errors import StorageError
from ckptstore.storage.s3checks import Checks
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3copies import Copies
from ckptstore.storage.s3errand import Body, Errand
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3parts import MOST_PARTS, Gatherer, Part, Placed
from ckptstore.storage.s3senders import Senders

__all__ = ["MARK", "Upload", "mark_of"]

MARK = "ckptstore-write"
"""The metadata that says which write an object comes from; a lost reply is settled by it."""

_LONGEST_ABORT = 15  # Seconds; whoever interrupts a program does not wait for a dead server.
_log = logging.getLogger(__name__)


class Upload:
    """Takes the bytes of one object; finish it, or abort it.

    What is lent goes to the server from where it is; what is written, or lent and not in memory
    anyhow, waits in at most 64 MiB.
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
        resident: whether what is lent is in memory anyhow.
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
        resident: bool = True,
    ) -> None:
        self._client = client
        self._target: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._condition = dict(condition)
        self._mark: str | None = secrets.token_hex(16)
        self._checks = Checks(client, bucket)
        self._copies = Copies(client, bucket, inside)
        self._gatherer = Gatherer(expected_size, resident=resident)
        self._senders = Senders(self._send_part, self._gatherer.reuse)
        self._starting: concurrent.futures.Future[dict[str, Any]] | None = None
        self._there: Mapping[int, Mapping[str, Any]] = {}
        self._spared: list[int] = []

    @classmethod
    def of_parts(
        cls,
        client: Client,
        upload: Mapping[str, Any],
        parts: Mapping[int, Mapping[str, Any]],
        *,
        expected_size: int,
        condition: Mapping[str, Any],
        inside: str,
    ) -> Upload:
        """Return an upload that goes on with one whose bytes were not resident.

        Args:
            client: sends the requests.
            upload: Bucket, Key and UploadId.
            parts: those that are there already; `defer` does not ask for them.
            expected_size: as `Upload` had it.
            condition: as `Upload` had it.
            inside: as `Upload` had it.
        """
        made = cls(
            client,
            upload["Bucket"],
            upload["Key"],
            expected_size=expected_size,
            condition=condition,
            inside=inside,
            resident=False,
        )
        made._mark = None  # Whoever began it knows it; but the key is nobody else's.
        made._starting = concurrent.futures.Future()
        made._starting.set_result({"UploadId": upload["UploadId"]})
        made._there = parts
        return made

    def write(self, data: memoryview, /) -> None:
        """Take the next bytes; see `Sink.write`."""
        self._take(self._gatherer.write(memoryview(data).cast("B")))

    def lend(self, data: memoryview, /, held: Placed | None = None) -> None:
        """Take the next bytes, which stay; see `Sink.lend`.

        Args:
            data: the bytes.
            held: the object that has the same bytes, and where.
        """
        self._take(self._gatherer.lend(memoryview(data).cast("B"), held))

    @property
    def waiting(self) -> int:
        """Bytes that were taken, and that the service has not answered for yet."""
        return self._gatherer.part.size + self._senders.waiting

    @property
    def spared(self) -> int:
        """Bytes of the parts that the service copied by itself."""
        return sum(self._spared)

    @property
    def part_size(self) -> int:
        """Bytes that `defer` takes at a time."""
        return self._gatherer.part_size

    def defer(self, size: int, supply: Callable[[], memoryview], held: Placed | None) -> None:
        """Take bytes that are asked for when they are needed; see `Sink.defer`.

        Args:
            size: how many.
            supply: returns them.
            held: the object that has the same bytes, and where.
        """
        self._take(self._gatherer.defer(size, supply, held))

    def finish(self) -> None:
        """Make the object exist.

        Raises:
            Failure: it failed; where ``lost`` is set, the object may come to exist all the same.
        """
        if self._starting is None:
            part = self._gatherer.part
            self._put(part.views if part.supply is None else [part.supply()])
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

    def leave(self) -> None:
        """Stop what is under way; the server keeps the parts that it has."""
        self._senders.stop()

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
            there = self._there.get(part.number)
            if there is not None and there["Size"] == part.size:
                return _listed(there, part.number)
            if held is not None:
                made = self._copies.part(upload, part.number, held, part.size)
                if made is not None:
                    self._spared.append(part.size)
                    return made
            if part.supply is not None:
                part.views = [part.supply()]
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
        return _listed(answer, part.number)

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
        ours = found is not None and self._mark in (None, mark_of(found))
        if found is None or not ours or found["ContentLength"] != self._gatherer.size:
            raise failure


def _listed(answer: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the entry of a part in the list of all, from what the service said of it."""
    kept = {
        name: value
        for name, value in answer.items()
        if name == "ETag" or (name.startswith("Checksum") and name != "ChecksumType")
    }
    return {**kept, "PartNumber": number}


def mark_of(head: Mapping[str, Any]) -> str | None:
    """Return the mark of an object; some servers change the case of metadata's names."""
    metadata = head.get("Metadata") or {}
    return next((value for name, value in metadata.items() if name.lower() == MARK), None)
