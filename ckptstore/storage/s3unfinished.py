"""Multipart uploads that nobody finished: their parts are seen by nobody, and paid for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ckptstore.storage.base import Unfinished
from ckptstore.storage.clocks import date_of
from ckptstore.storage.names import TEMPORARY
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure, Kind

__all__ = ["abort", "parts_of", "unfinished"]

_PAGE = 1000
_APART = 3600.0
"""Seconds by which two of a service's own dates of one moment may differ and still be believed."""


def unfinished(client: Client, bucket: str, inside: str) -> tuple[Unfinished, ...]:
    """Return the uploads of keys that start with something, and how old they are.

    How old they are is asked of the service alone, since this machine's clock may be wrong by
    days: an upload that is begun for this purpose, and ended again, says what the service calls
    now. There are servers that give all uploads one date.

    Args:
        client: sends the requests.
        bucket: to look in.
        inside: what the keys start with; it is cut off the names.

    Raises:
        Failure: the service did not say.
    """
    if next(_uploads(client, bucket, inside), None) is None:
        return ()
    probe = {"Bucket": bucket, "Key": f"{inside}{TEMPORARY}{secrets.token_hex(8)}"}
    begun = client.run("create_multipart_upload", **probe)
    try:
        rows = list(_uploads(client, bucket, inside))
    finally:
        abort(client, {**probe, "UploadId": begun["UploadId"]})
    now = next((row["Initiated"] for row in rows if row["UploadId"] == begun["UploadId"]), None)
    now = now if now and _believable(now, begun) else None
    return tuple(
        Unfinished(
            name=row["Key"][len(inside) :],
            upload=row["UploadId"],
            age=(now - row["Initiated"]).total_seconds() if now else None,
        )
        for row in rows
        if row["UploadId"] != begun["UploadId"]
    )


def abort(client: Client, upload: Mapping[str, Any]) -> None:
    """Have the service forget an upload: Bucket, Key and UploadId.

    Raises:
        Failure: it may still be there.
    """
    try:
        client.run("abort_multipart_upload", **upload)
    except Failure as failure:
        if failure.kind is not Kind.NO_UPLOAD:
            raise


def parts_of(client: Client, upload: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the parts that an upload has by now, by number: size, ETag and checksums.

    Args:
        client: sends the requests.
        upload: Bucket, Key and UploadId.

    Raises:
        Failure: there is no such upload, or the service did not say.
    """
    found: dict[int, dict[str, Any]] = {}
    request: dict[str, Any] = dict(upload)
    while True:
        page = client.run("list_parts", **request)
        found |= {int(row["PartNumber"]): row for row in page.get("Parts", ())}
        if not page.get("IsTruncated"):
            return found
        request["PartNumberMarker"] = page["NextPartNumberMarker"]


def _uploads(client: Client, bucket: str, inside: str) -> Iterator[dict[str, Any]]:
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": inside, "MaxUploads": _PAGE}
    while True:
        try:
            page = client.run("list_multipart_uploads", **request)
        except Failure as failure:
            if failure.kind is not Kind.NO_UPLOAD:  # rclone's way to say that there are none.
                raise
            return
        # Another's key in the answer would be one that the service made up.
        yield from (row for row in page.get("Uploads", ()) if row["Key"].startswith(inside))
        if not page.get("IsTruncated"):
            return
        request["KeyMarker"] = page["NextKeyMarker"]
        request["UploadIdMarker"] = page.get("NextUploadIdMarker") or ""


def _believable(now: datetime, answer: Mapping[str, Any]) -> bool:
    """Whether the date of an upload agrees with that of the answer in which it was begun."""
    date = date_of(answer)
    return date is not None and abs(now.timestamp() - date) < _APART
