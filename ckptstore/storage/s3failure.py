"""What a failed S3 request means: for the next step of a program, and in words for people."""

from __future__ import annotations

import asyncio
import enum
from urllib.parse import urlsplit

from ckptstore.errors import CkptstoreError, NotFoundError, StorageError

__all__ = ["Failure", "Kind", "failure_of"]


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
    BUSY = "busy"
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
    "AccessDenied": Kind.DENIED,
    "AllAccessDisabled": Kind.DENIED,
    "403": Kind.DENIED,
    "SlowDown": Kind.BUSY,
    "ServiceUnavailable": Kind.BUSY,
    "503": Kind.BUSY,
    "429": Kind.BUSY,
    "TooManyRequests": Kind.BUSY,
    "RequestTimeout": Kind.BUSY,
    "ConditionalRequestConflict": Kind.BUSY,
    "OperationAborted": Kind.BUSY,
    "InternalError": Kind.BROKEN,
    "500": Kind.BROKEN,
    "502": Kind.BROKEN,
    "504": Kind.BROKEN,
}
_AGAIN = {Kind.BUSY, Kind.UNREACHABLE, Kind.BROKEN}


class Failure(Exception):  # noqa: N818  (no reader of an error ever sees this one)
    """A request that failed.

    Attributes:
        kind: what went wrong.
        said: what the server or the library said.
        lost: whether this request, or an attempt before it, may have done its work all the same.
    """

    def __init__(self, kind: Kind, said: str, *, lost: bool = False) -> None:
        super().__init__(said)
        self.kind = kind
        self.said = said
        self.lost = lost

    @property
    def again(self) -> bool:
        """Whether the same request may well succeed in a moment."""
        return self.kind in _AGAIN

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
        return StorageError(f"{doing}: {self._reason(host)}")

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
        if self.kind is Kind.UNREACHABLE:
            return (
                f"{host} cannot be reached ({self.said}); check the endpoint and the network, "
                "then try again"
            )
        if self.kind is Kind.BUSY:
            return f"{host} is too busy ({self.said}); try again later, or with fewer writers"
        if self.kind is Kind.BROKEN:
            return f"{host} did not answer as it should ({self.said}); try again"
        return f"{host} refused ({self.said}); look at the location and the storage options"


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


def _refusal(error: Exception) -> Failure:
    response = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    kind = _KINDS.get(code) or _KINDS.get(status) or Kind.OTHER
    message = str(response.get("Error", {}).get("Message", "")).rstrip(". ")
    said = f"{code or status}: {message}" if message and message != code else code or status
    return Failure(kind, said, lost=kind is Kind.BROKEN)


def _breakdown(error: BaseException) -> Failure:
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    name = type(error).__name__
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
        return Failure(Kind.UNREACHABLE, name)
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
        return Failure(Kind.BROKEN, name, lost=True)
    if isinstance(error, boto.ParamValidationError) and "bucket name" in str(error):
        return Failure(Kind.NO_BUCKET, name)
    if isinstance(error, (boto.BotoCoreError, OSError)):
        return Failure(Kind.OTHER, f"{name}: {str(error).rstrip('. ')}")
    raise error
