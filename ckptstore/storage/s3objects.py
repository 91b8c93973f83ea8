"""Single objects of a bucket: looked at, and read whole or at their end."""

from __future__ import annotations

from typing import Any

from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure, Kind

__all__ = ["Objects"]

_TAIL = 128 * 2**10
_ABSENT = (Kind.ABSENT, Kind.NO_BUCKET)


class Objects:
    """The objects of one bucket, by their keys.

    Args:
        client: of the service.
        bucket: its bucket.
    """

    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def head(self, key: str) -> dict[str, Any] | None:
        """Return what is known of an object; None where it is absent.

        Raises:
            Failure: the service did not say.
        """
        try:
            return self._client.run("head_object", Bucket=self._bucket, Key=key)
        except Failure as failure:
            # A HEAD has no body to tell an absent bucket from an absent object.
            if failure.kind in _ABSENT:
                return None
            raise self._reason(failure, key) from failure

    def get(self, key: str, limit: int | None) -> tuple[bytes, str]:
        """Return an object's bytes, or the first of them, and its ETag.

        Raises:
            Failure: it is absent, or the service failed.
        """
        part = {} if limit is None else {"Range": f"bytes=0-{max(limit, 1) - 1}"}
        try:
            answer = self._client.run("get_object", Bucket=self._bucket, Key=key, **part)
        except Failure as failure:
            if failure.kind is Kind.RANGE:  # It is empty.
                return b"", ""
            raise
        return answer["Body"][:limit], answer["ETag"]

    def end(self, key: str) -> tuple[int, str, bytes] | None:
        """Return an object's size, its ETag, and its last bytes: where a zip has its directory.

        Returns:
            None where it is absent.

        Raises:
            Failure: the service failed.
        """
        part = {"Range": f"bytes=-{_TAIL}"}
        try:
            answer = self._client.run("get_object", Bucket=self._bucket, Key=key, **part)
        except Failure as failure:
            if failure.kind in _ABSENT:
                return None
            if failure.kind is not Kind.RANGE:
                raise
            answer = {}
        _, _, size = answer.get("ContentRange", "").rpartition("/")
        if size.isdecimal():
            return int(size), str(answer["ETag"]), answer["Body"]
        # It is empty, or the service knows no such ranges.
        head = self.head(key)
        return None if head is None else (int(head["ContentLength"]), str(head["ETag"]), b"")

    def _reason(self, failure: Failure, key: str) -> Failure:
        """Return why a HEAD failed: its answer has no body, that of a listing has one."""
        if failure.is_bare:
            try:
                self._client.run("list_objects_v2", Bucket=self._bucket, Prefix=key, MaxKeys=1)
            except Failure as told:
                return told
        return failure
