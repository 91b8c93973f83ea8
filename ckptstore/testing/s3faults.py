"""What can go wrong with a request to S3: a list, and which requests it is to befall."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["ANSWERS", "HARMS", "S3Fault"]

ANSWERS = {
    "AccessDenied": (403, "Access Denied."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "ConditionalRequestConflict": (409, "Conflicting operation in progress."),
    "ExpiredToken": (400, "The provided token has expired."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchUpload": (404, "The specified upload does not exist."),
    "NotImplemented": (501, "A header you provided is not implemented."),
    "PreconditionFailed": (412, "At least one of the preconditions did not hold."),
    "QuotaExceeded": (403, "Your storage quota is used up."),
    "RequestTimeTooSkewed": (403, "The difference between request and current time is too large."),
    "RequestTimeout": (400, "Your socket connection was not read from within the time-out."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SignatureDoesNotMatch": (403, "The request signature does not match the one you provided."),
    "SlowDown": (503, "Please reduce your request rate."),
}
"""The answers that S3 gives by itself: each code with its HTTP status and what it says."""

HARMS = {
    "lose": "the server does it, and the reply is lost",
    "drop": "the connection is closed, and the server never hears of it",
    "cut request": "the connection is closed when half of the body has gone to the server",
    "cut reply": "the connection is closed half way through the reply",
    "slow": "bodies come at ``rate`` bytes a second, both ways",
    "stall": "no answer ever comes, and the server never hears of it",
    "late": "the server hears of it when `S3Proxy.release` is called, or after ``seconds``",
    "html": "a page of HTML with status 200, as a portal of a hotel gives",
    "noise": "bytes that are not HTTP",
    "half xml": "the real reply, whole for HTTP, with the second half of its body missing",
    "flip": "the real reply, with one bit in the middle of its body turned",
    "other date": "the reply is dated ``seconds`` later than it is, as by a clock that is wrong",
    "error in 200": "status 200 with an InternalError in the body, as S3 may complete an upload",
}
"""What else can be done to a request."""


@dataclass
class S3Fault:
    """What an `S3Proxy` does to some requests.

    Attributes:
        method: of the requests, such as ``PUT``; all where it is empty.
        part: text that their path and query hold, escaped or not.
        action: a key of `HARMS`, or of `ANSWERS`.
        times: how many requests it hits; None for all that come.
        after: how many such requests pass first.
        rate: bytes a second, for ``slow``.
        seconds: at most as long, for ``late``; how much later, for ``other date``.
    """

    method: str = ""
    part: str = ""
    action: str = "lose"
    times: int | None = 1
    after: int = 0
    rate: int = 2**20
    seconds: float = 60.0

    def hits(self, method: str, path: str) -> bool:
        """Whether this harms a request that is there now; counts it where it would."""
        if self.times == 0 or self.method not in ("", method):
            return False
        if self.part not in path and self.part not in unquote(path):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
