"""The checksum of a part that S3 compares with what arrived: CRC-32, which every S3 knows.

A service that refuses requests that have one is used without, for the rest of the process. What
proves a checkpoint are its own digests; this one finds damage on the way at once.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

from ckptstore.storage.s3client import Client
from ckptstore.storage.s3failure import Failure

__all__ = ["Checks"]

_ALGORITHM = "CRC32"
_NAME = f"Checksum{_ALGORITHM}"
_NOT_TAKEN = {"400", "501", "InvalidArgument", "InvalidRequest", "NotImplemented"}
_refused: set[tuple[str, str]] = set()


def _crc32() -> Callable[[memoryview, int], int]:
    try:
        from isal.isal_zlib import crc32
    except ImportError:
        from zlib import crc32
    return crc32


class Checks:
    """Adds checksums to the requests of one bucket, as long as the service takes them.

    Args:
        client: of the service.
        bucket: its bucket.
    """

    def __init__(self, client: Client, bucket: str) -> None:
        self._place = client.endpoint, bucket
        self._crc32 = _crc32()

    def announced(self) -> dict[str, Any]:
        """Return the parameters that begin an upload whose parts have checksums."""
        return {} if self._place in _refused else {"ChecksumAlgorithm": _ALGORITHM}

    def of(self, views: Iterable[memoryview]) -> dict[str, Any]:
        """Return the parameters that say the checksum of a body."""
        if self._place in _refused:
            return {}
        value = 0
        for view in views:
            value = self._crc32(view, value)
        return {_NAME: base64.b64encode(value.to_bytes(4, "big")).decode()}

    def doubtful(self, failure: Failure) -> bool:
        """Whether a request may have failed because of its checksum, not because it was wrong."""
        return failure.said.partition(":")[0] in _NOT_TAKEN and not failure.lost

    def refused(self) -> None:
        """Remember that the service takes no checksums."""
        _refused.add(self._place)
