"""Which conditions an S3 service keeps: asked once per endpoint and bucket, never assumed.

Services exist that ignore If-None-Match or If-Match, or refuse requests that have them.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure, Kind

__all__ = ["ONLY_NEW", "Conditions"]

ONLY_NEW = {"IfNoneMatch": "*"}

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_creates_only: dict[tuple[str, str], bool] = {}
_swaps: dict[tuple[str, str], bool] = {}


class Conditions:
    """What this process knows of one bucket of one service.

    Args:
        client: of the service.
        bucket: whose conditions they are.
    """

    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._place = client.endpoint, bucket

    @property
    def creates_only(self) -> bool | None:
        """Whether the service refuses to create what is there; None while nobody has asked."""
        return _creates_only.get(self._place)

    @property
    def only_new(self) -> dict[str, str]:
        """The parameters of a request that must not replace anything."""
        return {} if self.creates_only is False else dict(ONLY_NEW)

    def ask_creates_only(self, key: str, data: bytes) -> bool:
        """Ask once, by creating an object again that holds ``data`` already.

        Raises:
            Failure: the service did not answer.
        """
        with _lock:
            if self._place not in _creates_only:
                request: dict[str, Any] = {"Bucket": self._bucket, "Key": key, "Body": data}
                _creates_only[self._place] = self._refuses({**request, **ONLY_NEW})
                if not _creates_only[self._place]:
                    self._warn()
            return _creates_only[self._place]

    def no_only_new(self) -> None:
        """Remember that the service refuses requests with a condition as such."""
        with _lock:
            if _creates_only.get(self._place) is not False:
                _creates_only[self._place] = False
                self._warn()

    def ask_swaps(self, scratch: str) -> bool:
        """Ask once whether If-Match is kept, with an object ``scratch`` that is removed again.

        Raises:
            Failure: the service did not answer.
        """
        with _lock:
            if self._place not in _swaps:
                request = {"Bucket": self._bucket, "Key": scratch}
                self._client.run("put_object", **request, Body=b"probe")
                try:
                    wrong = f'"{"0" * 32}"'
                    _swaps[self._place] = self._refuses(
                        {**request, "Body": b"probe again", "IfMatch": wrong}
                    )
                finally:
                    self._client.run("delete_object", **request)
            return _swaps[self._place]

    def _refuses(self, request: dict[str, Any]) -> bool:
        try:
            self._client.run("put_object", **request)
        except Failure as failure:
            if failure.kind in (Kind.REFUSED, Kind.NO_CONDITIONS):
                return failure.kind is Kind.REFUSED
            raise
        return False

    def _warn(self) -> None:
        _log.warning(
            "%s does not keep two writers apart in bucket %s (it ignores If-None-Match); "
            "let only one process at a time save there",
            self._client.endpoint,
            self._bucket,
        )
