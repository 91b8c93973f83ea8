"""What a failed S3 request means: for the next step of a program, and in words for people."""

from __future__ import annotations

import asyncio
import enum
import errno
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ckptstore.errors import CkptstoreError, NotFoundError, StorageError
from ckptstore.storage.clocks import apart, date_of
from ckptstore.storage.shown import Discretion

__all__ = ["Failure", "Kind", "checked", "discreet", "failure_of"]


class Kind(enum.Enum):
    """What went wrong, as far as somebody acts differently on it."""

    ABSENT = "absent"
    NO_BUCKET = "no bucket"
    NO_UPLOAD = "no upload"
    REFUSED = "a condition did not hold"
    NO_CONDITIONS = "conditions are not implemented"
    RANGE = "range"
    DENIED = "denied"
    CREDENTIALS = "credentials"
    NO_CREDENTIALS = "no credentials"
    EXPIRED = "expired"
    CLOCK = "clock"
    FULL = "full"
    BUSY = "busy"
    SLOW_DOWN = "slow down"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    OTHER = "other"


_KINDS = {
    "NoSuchKey": Kind.ABSENT,
    "404": Kind.ABSENT,
    "NoSuchBucket": Kind.NO_BUCKET,
    "NoSuchUpload": Kind.NO_UPLOAD,
    "PreconditionFailed": Kind.REFUSED,
    "412": Kind.REFUSED,
    "NotImplemented": Kind.NO_CONDITIONS,
    "501": Kind.NO_CONDITIONS,
    "InvalidRange": Kind.RANGE,
    "416": Kind.RANGE,
    "InvalidAccessKeyId": Kind.CREDENTIALS,
    "SignatureDoesNotMatch": Kind.CREDENTIALS,
    "InvalidToken": Kind.CREDENTIALS,
    "AuthorizationHeaderMalformed": Kind.CREDENTIALS,
    "ExpiredToken": Kind.EXPIRED,
    "ExpiredTokenException": Kind.EXPIRED,
    "TokenRefreshRequired": Kind.EXPIRED,
    "RequestTimeTooSkewed": Kind.CLOCK,
    "RequestExpired": Kind.CLOCK,
    "QuotaExceeded": Kind.FULL,
    "InsufficientStorage": Kind.FULL,
    "XMinioStorageFull": Kind.FULL,
    "507": Kind.FULL,
    "AccessDenied": Kind.DENIED,
    "AllAccessDisabled": Kind.DENIED,
    "403": Kind.DENIED,
    "SlowDown": Kind.SLOW_DOWN,
    "SlowDownRead": Kind.SLOW_DOWN,
    "SlowDownWrite": Kind.SLOW_DOWN,
    "Throttling": Kind.SLOW_DOWN,
    "ThrottlingException": Kind.SLOW_DOWN,
    "ServiceUnavailable": Kind.BUSY,
    "503": Kind.BUSY,
    "429": Kind.SLOW_DOWN,
    "TooManyRequests": Kind.SLOW_DOWN,
    "RequestTimeout": Kind.BUSY,
    "ConditionalRequestConflict": Kind.BUSY,
    "OperationAborted": Kind.BUSY,
    "BadDigest": Kind.BROKEN,  # The bytes were damaged on their way.
    "InternalError": Kind.BROKEN,
    "500": Kind.BROKEN,
    "502": Kind.BROKEN,
    "504": Kind.BROKEN,
}
# Some call it AccessDenied when a request comes out of the past.
_OF_TIME = re.compile("request time|request has expired", re.IGNORECASE)
_DEEPEST = 8
_TELLING = 60.0
_DENIALS = {Kind.DENIED, Kind.CREDENTIALS, Kind.NO_CREDENTIALS}
_AGAIN = {Kind.BUSY, Kind.SLOW_DOWN, Kind.UNREACHABLE, Kind.BROKEN}
# What every answer holds that is S3's own. A proxy that asks for a password answers 200 as well.
_NEEDED = {
    "complete_multipart_upload": {"ETag"},
    "copy_object": {"CopyObjectResult"},
    "create_multipart_upload": {"UploadId"},
    "get_object": {"Body", "ETag"},
    "head_object": {"ContentLength", "ETag", "LastModified"},
    "list_objects_v2": {"IsTruncated"},
    "put_object": {"ETag"},
    "upload_part": {"ETag"},
    "upload_part_copy": {"CopyPartResult"},
}


class Failure(Exception):  # noqa: N818  (no reader of an error ever sees this one)
    """A request that failed.

    Attributes:
        kind: what went wrong.
        said: what the server said, or what happened to the connection.
        lost: whether this request, or an attempt before it, may have done its work all the same.
        date: what time the server says it is, in seconds since 1970; None where it does not.
    """

    def __init__(
        self, kind: Kind, said: str, *, lost: bool = False, date: float | None = None
    ) -> None:
        super().__init__(said)
        self.kind = kind
        self.said = said
        self.lost = lost
        self.date = date

    @property
    def again(self) -> bool:
        """Whether the same request may well succeed in a moment."""
        return self.kind in _AGAIN

    @property
    def is_bare(self) -> bool:
        """Whether nothing but a status is known, as after a HEAD, whose answers have no body."""
        return self.said[:3].isdecimal() and not self.again

    def error(self, action: str, what: str, *, bucket: str, endpoint: str) -> CkptstoreError:
        """Return the error for people; `from` the failure it keeps the cause.

        Args:
            action: a verb, such as ``read``.
            what: the file or location.
            bucket: its bucket.
            endpoint: the server's URL.
        """
        host = urlsplit(endpoint).netloc
        doing = f"cannot {action} {what}"
        if self.kind is Kind.ABSENT:
            return NotFoundError(f"{doing}: there is no such file at {host}")
        if self.kind is Kind.NO_BUCKET:
            return NotFoundError(
                f"{doing}: there is no bucket {bucket!r} at {host}; "
                "create it, or correct the location"
            )
        error = StorageError(f"{doing}: {self._reason(host)}")
        error.denied = self.kind in _DENIALS
        return error

    def _reason(self, host: str) -> str:
        if self.kind is Kind.DENIED:
            return (
                f"access denied by {host}; check the credentials and what they permit "
                "(it may also be absent, where listing is not allowed)"
            )
        if self.kind is Kind.CREDENTIALS:
            return f"access denied by {host}: it does not accept the credentials; check them"
        if self.kind is Kind.NO_CREDENTIALS:
            return (
                f"there are no credentials for {host}; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or pass storage options"
            )
        if self.kind is Kind.EXPIRED:
            return f"the credentials for {host} have expired; renew them, then try again"
        if self.kind is Kind.CLOCK:
            ahead = 0.0 if self.date is None else time.time() - self.date
            wrong = f": it is {apart(ahead)}" if abs(ahead) > _TELLING else ""
            return (
                f"{host} says that the clock of this machine is wrong{wrong}; S3 refuses requests "
                "beyond 15 minutes; set it right, then try again"
            )
        if self.kind is Kind.FULL:
            return f"no space is left at {host} ({self.said}); free some, then try again"
        if self.kind is Kind.UNREACHABLE:
            return (
                f"{host} cannot be reached ({self.said}); check the endpoint and the network, "
                "then try again"
            )
        if self.kind is Kind.NO_UPLOAD:
            return (
                f"somebody gave the upload up before it was finished ({self.said}): ckptstore "
                "doctor, or a lifecycle rule of the bucket; try again"
            )
        if self.kind in (Kind.BUSY, Kind.SLOW_DOWN):
            return f"{host} is too busy ({self.said}); try again later, or with fewer writers"
        if self.kind is Kind.BROKEN:
            return f"{host} did not answer as it should ({self.said}); try again"
        return f"{host} refused ({self.said}); look at the location and the storage options"


# The classes are imported where they are needed, so they are known by their names here.
_SAID = {
    "EndpointConnectionError": "no connection",
    "ConnectTimeoutError": "no connection in time",
    "ProxyConnectionError": "no connection to the proxy",
    "SSLError": "no safe connection: its certificate was refused",
    "ReadTimeoutError": "no answer in time",
    "TimeoutError": "no answer in time",
    "ConnectionClosedError": "the connection was closed",
    "ClientPayloadError": "the answer broke off",
    "IncompleteReadError": "the answer broke off",
    "ResponseStreamingError": "the answer broke off",
    "EOFError": "the answer broke off",
    "ResponseParserError": "the answer is not S3's",
    "HTTPClientError": "the answer is not S3's",
}


def failure_of(error: BaseException) -> Failure:
    """Return what an exception of s3fs, botocore or aiohttp means.

    Raises:
        BaseException: it is none of those, but a mistake or an interrupt.
    """
    from botocore import exceptions as boto

    if isinstance(error, Failure):
        return error
    if isinstance(error, CkptstoreError):
        raise error
    # s3fs translates what the server says, and keeps the original as the cause.
    for found in (error, error.__cause__):
        if isinstance(found, boto.ClientError):
            failure = _refusal(found)
            break
    else:
        failure = _breakdown(error)
    failure.__cause__ = error
    return failure


def checked(operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that can be S3's.

    Raises:
        Failure: it lacks what every such answer holds, so something else has answered.
    """
    if not _NEEDED.get(operation, set()) <= answer.keys():
        raise Failure(Kind.BROKEN, "what answers there is not S3", lost=True)
    return answer


def discreet(failure: Failure, discretion: Discretion) -> Failure:
    """Return a failure whose words, and whose cause in a traceback, hold nothing secret."""
    failure.said = discretion.said(failure.said)
    failure.args = (failure.said,)
    if isinstance(failure.__cause__, Exception):
        failure.__cause__ = discretion.cause(failure.__cause__)
    return failure


def _refusal(error: Exception) -> Failure:
    response = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    kind = _KINDS.get(code) or _KINDS.get(status) or Kind.OTHER
    message = str(response.get("Error", {}).get("Message", "")).rstrip(". ")
    if kind is Kind.DENIED and _OF_TIME.search(message):
        kind = Kind.CLOCK
    said = f"{code or status}: {message}" if message and message != code else code or status
    return Failure(kind, said, lost=kind is Kind.BROKEN, date=date_of(response))


def _unreached(error: BaseException) -> str | None:
    """Return what came in the way of a connection, where the operating system says it."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "its name is not known"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, OSError) and cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return "no way leads there"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception and those behind it: botocore keeps them as arguments, aiohttp too."""
    for _ in range(_DEEPEST):
        if error is None:
            return
        yield error
        kept = getattr(error, "kwargs", {}).get("error") or getattr(error, "os_error", None)
        error = kept if isinstance(kept, BaseException) else error.__cause__ or error.__context__


def _breakdown(error: BaseException) -> Failure:
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    name = type(error).__name__
    said = next(
        (_SAID[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _SAID), name
    )
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return Failure(Kind.NO_CREDENTIALS, name)
    if isinstance(error, (boto.TokenRetrievalError, boto.UnauthorizedSSOTokenError)):
        return Failure(Kind.EXPIRED, name)
    if isinstance(
        error,
        (
            boto.EndpointConnectionError,
            boto.ConnectTimeoutError,
            boto.ProxyConnectionError,
            boto.SSLError,
        ),
    ):
        return Failure(Kind.UNREACHABLE, _unreached(error) or said)
    if isinstance(
        error,
        (
            boto.HTTPClientError,
            boto.IncompleteReadError,
            boto.ResponseStreamingError,
            ResponseParserError,
            aiohttp.ClientError,
            asyncio.TimeoutError,
            EOFError,
        ),
    ):
        return Failure(Kind.BROKEN, said, lost=True)
    if isinstance(error, boto.ParamValidationError) and "bucket name" in str(error):
        return Failure(Kind.NO_BUCKET, name)
    if isinstance(error, (boto.BotoCoreError, OSError)):
        return Failure(Kind.OTHER, f"{name}: {str(error).rstrip('. ')}")
    raise error
