"""Parts of an upload that the service copies by itself from an object that has the same bytes.

Whether it does so faithfully is asked once per endpoint and bucket, and never assumed: there are
servers that ignore the range, or make nothing of such a part. Where anything is in doubt the bytes
are sent.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Any

from ckptstore.storage.names import TEMPORARY
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure
from ckptstore.storage.s3parts import Placed

__all__ = ["LEAST_SOURCE", "Copies"]

LEAST_SOURCE = 5 * 2**20
"""S3 copies a range only of an object that is larger."""

_lock = threading.Lock()
_faithful: dict[tuple[str, str], bool] = {}


class Copies:
    """Copies ranges of objects into parts of one bucket's uploads.

    Args:
        client: of the service.
        bucket: its bucket.
        inside: what the keys of the location start with; the question is asked there.
    """

    def __init__(self, client: Client, bucket: str, inside: str) -> None:
        self._client = client
        self._bucket = bucket
        self._inside = inside
        self._heads: dict[tuple[str, str], dict[str, Any] | None] = {}

    def part(
        self, upload: dict[str, Any], number: int, held: Placed, size: int
    ) -> dict[str, Any] | None:
        """Make a part of an upload from a range of an object.

        Args:
            upload: Bucket, Key and UploadId.
            number: of the part.
            held: where the range begins.
            size: of the range.

        Returns:
            The part's entry in the list of all parts; None where its bytes have to be sent.
        """
        head = self._head(held)
        if head is None or head["ContentLength"] <= LEAST_SOURCE:
            return None
        if held.start + size > head["ContentLength"] or not self.able():
            return None
        with contextlib.suppress(Failure):
            return self._copy(upload, number, held, head["ETag"], size)
        return None

    def _head(self, held: Placed) -> dict[str, Any] | None:
        place = held.bucket, held.key
        if place not in self._heads:
            try:
                self._heads[place] = self._client.run(
                    "head_object", Bucket=held.bucket, Key=held.key
                )
            except Failure:
                self._heads[place] = None
        return self._heads[place]

    def _copy(
        self, upload: dict[str, Any], number: int, held: Placed, tag: str, size: int
    ) -> dict[str, Any]:
        answer = self._client.run(
            "upload_part_copy",
            **upload,
            PartNumber=number,
            CopySource={"Bucket": held.bucket, "Key": held.key},
            CopySourceRange=f"bytes={held.start}-{held.start + size - 1}",
            CopySourceIfMatch=tag,
        )
        result: dict[str, Any] = answer["CopyPartResult"]
        kept = {name: value for name, value in result.items() if name != "LastModified"}
        return {**kept, "PartNumber": number}

    def able(self) -> bool:
        """Whether the service makes parts of ranges faithfully; asked once."""
        place = self._client.endpoint, self._bucket
        with _lock:
            if place not in _faithful:
                try:
                    _faithful[place] = self._try()
                except Failure as failure:
                    if failure.again:
                        return False  # It is busy, which says nothing of what it can do.
                    _faithful[place] = False
            return _faithful[place]

    def _try(self) -> bool:
        """Have a range of an object made into another, and read it back; remove both."""
        run = self._client.run
        old, new = (
            {"Bucket": self._bucket, "Key": f"{self._inside}{TEMPORARY}{secrets.token_hex(8)}"}
            for _ in range(2)
        )
        data = bytes(LEAST_SOURCE) + secrets.token_bytes(2**12)
        start, size = LEAST_SOURCE - 7, 2**11
        try:
            tag = run("put_object", **old, Body=data)["ETag"]
            upload = {**new, "UploadId": run("create_multipart_upload", **new)["UploadId"]}
            try:
                part = self._copy(upload, 1, Placed(self._bucket, old["Key"], start), tag, size)
                run("complete_multipart_upload", **upload, MultipartUpload={"Parts": [part]})
            except Failure:
                with contextlib.suppress(Failure):
                    run("abort_multipart_upload", **upload)
                raise
            found: bytes = run("get_object", **new)["Body"]
            return found == data[start : start + size]
        finally:
            for made in (old, new):
                with contextlib.suppress(Failure):
                    run("delete_object", **made)
