"""Large things between S3 and elsewhere: ranges of an object into memory, and long copies."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ckptstore.storage.s3client import Client
from ckptstore.storage.s3errand import Errand
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3parts import copied_part_size
from ckptstore.storage.s3upload import MARK, mark_of

__all__ = ["READS_AT_ONCE", "copy_in_parts", "fetch", "fetch_at_once"]

READS_AT_ONCE = 3
"""Ranges on their way at the same time."""


_T = TypeVar("_T")
UnderWay = Callable[[Errand], contextlib.AbstractContextManager[None]]
_RANGE = 16 * 2**20
_MOST_AT_ONCE = 8
_COPIED_PART = 512 * 2**20


def fetch(
    client: Client,
    target: Mapping[str, Any],
    tag: str,
    start: int,
    pieces: Sequence[memoryview],
    *,
    under_way: UnderWay,
) -> None:
    """Fill pieces of memory with the bytes of an object from ``start`` on, by one request.

    Args:
        client: sends the request; the calling thread receives the bytes.
        target: Bucket and Key.
        tag: the ETag that the object must still have.
        start: of the range.
        pieces: what to fill, one after the other.
        under_way: a block in which the errand may be interrupted.

    Raises:
        Failure: of kind REFUSED, ABSENT or RANGE where the object has changed.
    """
    size = sum(piece.nbytes for piece in pieces)
    if size:
        errand = Errand(targets=pieces, tag=tag)
        with under_way(errand):
            _get(client, target, errand, start, size)


def fetch_at_once(
    client: Client,
    target: Mapping[str, Any],
    tag: str,
    start: int,
    into: memoryview,
    *,
    under_way: UnderWay,
) -> None:
    """Fill memory as `fetch` does, by several requests at once where it is large.

    When this raises, no thread touches the memory any more.
    """
    ranges = collections.deque(range(0, len(into), _RANGE))
    errands: list[Errand] = []
    errors: list[BaseException] = []

    def work() -> None:
        while ranges and not errors:
            with contextlib.suppress(IndexError):
                place = ranges.popleft()
                piece = into[place : place + _RANGE]
                errand = Errand(targets=[piece], tag=tag)
                errands.append(errand)
                if errors:  # Whoever ends all of them may not have seen this one.
                    return
                with under_way(errand):
                    _get(client, target, errand, start + place, len(piece))

    def helper() -> None:
        try:
            work()
        except BaseException as error:  # The thread that asked raises it.
            errors.append(error)

    threads = [
        threading.Thread(target=helper, name="ckptstore-range", daemon=True)
        for _ in range(min(READS_AT_ONCE, len(ranges)) - 1)
    ]
    try:
        for thread in threads:
            thread.start()
        work()
    except BaseException as error:
        errors.append(error)
        for errand in errands:
            errand.interrupt()
        raise
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _get(client: Client, target: Mapping[str, Any], errand: Errand, start: int, size: int) -> None:
    wanted = f"bytes={start}-{start + size - 1}"
    client.move("get_object", errand, **target, IfMatch=errand.tag, Range=wanted)


def copy_in_parts(
    client: Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    head: Mapping[str, Any],
    *,
    part_size: int = _COPIED_PART,
    condition: Mapping[str, Any] | None = None,
) -> None:
    """Copy an object by an upload made of its parts, without its bytes coming here.

    So an object can be larger than one request copies, and so the copy can depend on a condition
    where a service keeps conditions of uploads, as most do, and not of copies.

    Args:
        client: sends the requests.
        source: Bucket and Key of what is copied.
        target: Bucket and Key of the copy.
        head: what is known of the source; it must not change meanwhile.
        part_size: bytes, from 5 MiB to 5 GiB; more where 10,000 parts would not do.
        condition: parameters on which the copy comes to exist.

    Raises:
        Failure: it failed, and the target is as it was; unless ``lost`` is set.
    """
    client.wait(_copy(client, source, target, head, part_size, condition or {}))


async def _copy(
    client: Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    head: Mapping[str, Any],
    part_size: int,
    condition: Mapping[str, Any],
) -> None:
    size, mark = int(head["ContentLength"]), secrets.token_hex(16)
    step = copied_part_size(size, part_size)
    started = await client.send(
        "create_multipart_upload", **target, Metadata={**head.get("Metadata", {}), MARK: mark}
    )
    upload = {**target, "UploadId": started["UploadId"]}

    async def one(number: int, first: int) -> dict[str, Any]:
        last = min(first + step, size) - 1
        answer = await client.send(
            "upload_part_copy",
            **upload,
            PartNumber=number,
            CopySource=source,
            CopySourceRange=f"bytes={first}-{last}",
            CopySourceIfMatch=head["ETag"],
        )
        result = answer["CopyPartResult"]
        kept = {name: value for name, value in result.items() if name != "LastModified"}
        return {**kept, "PartNumber": number}

    try:
        try:
            parts = await _together(one(*pair) for pair in enumerate(range(0, size, step), 1))
        except Failure as failure:
            failure.lost = False  # A part that may yet arrive makes no object.
            raise
        try:
            whole = {"MultipartUpload": {"Parts": parts}, **condition}
            await client.send("complete_multipart_upload", **upload, **whole)
        except Failure as failure:
            if not (failure.lost or failure.kind in (Kind.NO_UPLOAD, Kind.REFUSED)):
                raise
            with contextlib.suppress(Failure):
                if mark_of(await client.send("head_object", **target)) == mark:
                    return
            raise
    except BaseException:
        with contextlib.suppress(Failure):
            await client.send("abort_multipart_upload", **upload)
        raise


async def _together(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return the results of all, a few at a time; where one fails, stop the others first."""
    turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def in_turn(one: Coroutine[Any, Any, _T]) -> _T:
        async with turns:
            return await one

    tasks = [asyncio.ensure_future(in_turn(one)) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
