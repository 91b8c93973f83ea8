"""Large things between S3 and elsewhere: ranges of an object into memory, and long copies."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3upload import MARK, mark_of

__all__ = ["copy_in_parts", "fetch"]

_T = TypeVar("_T")
_RANGE = 8 * 2**20
_MOST_AT_ONCE = 8
_MOST_PARTS = 10_000
_COPIED_PART = 512 * 2**20


def fetch(
    client: Client, target: Mapping[str, Any], tag: str, start: int, into: memoryview
) -> None:
    """Fill memory with the bytes of an object from ``start`` on, by several requests at once.

    Args:
        client: sends the requests.
        target: Bucket and Key.
        tag: the ETag that the object must still have.
        start: of the range.
        into: what to fill.

    Raises:
        Failure: of kind REFUSED, ABSENT or RANGE where the object has changed.
    """

    async def one(place: int) -> None:
        part = into[place : place + _RANGE]
        first = start + place
        wanted = f"bytes={first}-{first + len(part) - 1}"
        await client.send("get_object", **target, IfMatch=tag, Range=wanted, into=part)

    client.wait(_together(one(place) for place in range(0, len(into), _RANGE)))


def copy_in_parts(
    client: Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    head: Mapping[str, Any],
    *,
    part_size: int = _COPIED_PART,
) -> None:
    """Copy an object that is too large for one request, without its bytes coming here.

    Args:
        client: sends the requests.
        source: Bucket and Key of what is copied.
        target: Bucket and Key of the copy.
        head: what is known of the source; it must not change meanwhile.
        part_size: bytes, from 5 MiB to 5 GiB; more where 10,000 parts would not do.

    Raises:
        Failure: it failed, and the target is as it was.
    """
    client.wait(_copy(client, source, target, head, part_size))


async def _copy(
    client: Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    head: Mapping[str, Any],
    part_size: int,
) -> None:
    size, mark = int(head["ContentLength"]), secrets.token_hex(16)
    step = max(part_size, -(-size // _MOST_PARTS))
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
        parts = await _together(one(*pair) for pair in enumerate(range(0, size, step), 1))
        try:
            await client.send(
                "complete_multipart_upload", **upload, MultipartUpload={"Parts": parts}
            )
        except Failure as failure:
            if not (failure.lost or failure.kind is Kind.NO_UPLOAD):
                raise
            if mark_of(await client.send("head_object", **target)) != mark:
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
