"""Locations and the words of others as people may see them: without anything secret (G10)."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

__all__ = ["Discretion", "secrets_in", "without_secrets", "without_users"]

_HIDDEN = "***"
_VALUE = re.compile(r"([?&#])(?:([^=&#?]*)=)?[^&#?]+")
# Where a # is a letter like any other: "run #1".
_LITERAL = frozenset({"dir", "file", "local", "memory", "s3", "s3a"})
# Options that say where something is or of what kind, and are no secrets.
_HARMLESS = {"endpoint_url", "host", "port", "region_name", "path", "target_protocol", "protocol"}
_HARMLESS |= {"profile", "no_proxy", "NO_PROXY"}
# What signs a request, and how AWS's own keys look: in an answer it is the question, repeated.
_SIGNED = re.compile(
    r"AWS4-HMAC|X-Amz-(?:Security-Token|Signature|Credential)|Authorization|\bA[KS]IA[A-Z0-9]{8}",
    re.IGNORECASE,
)


def without_secrets(url: str) -> str:
    """Return a URL, or a chain of URLs, without user, password, and values of queries.

    A password may hold what it should have escaped. Where it is not sure how far it goes, more is
    left out rather than less.
    """
    return "::".join(_shown(part) for part in url.split("::"))


def without_users(url: str) -> str:
    """Return a URL without user and password; its query stays."""
    scheme, mark, rest = url.partition("://")
    return scheme + mark + _without_user(rest)


def secrets_in(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values in storage options that nobody may see."""
    found: list[str] = []
    for name, option in options.items():
        for text in _texts(option):
            found += _secrets_of_url(text)
            if name not in _HARMLESS and text:
                found.append(text)
    return tuple(dict.fromkeys(found))


class Discretion:
    """What may be told of the failures of code that was given secrets.

    It quotes URLs and options in whatever form it has made of them, so that nothing could be cut
    out for sure: a text is shown whole, or not at all.

    Args:
        secrets: texts that nobody may see.
        all_is_secret: whether no text at all is to be trusted, because the URL itself holds
            something secret.
    """

    def __init__(self, secrets: Iterable[str], *, all_is_secret: bool) -> None:
        self._secrets = frozenset(form for secret in secrets for form in _forms(secret))
        self._all = all_is_secret

    def name(self, name: str) -> str:
        """Return a file's name, which may be the end of a URL."""
        return without_secrets(name) if self._all else name

    def told(self, error: Exception) -> str:
        """Return what an exception says."""
        said = str(getattr(error, "strerror", None) or error)
        if not self._betrayed(said):
            return said or "no reason given"
        number, status = getattr(error, "errno", None), getattr(error, "status", None)
        if isinstance(number, int):
            return os.strerror(number)
        if isinstance(status, int):
            return f"status {status}"
        return "what it says is not shown, for it may hold credentials"

    def cause(self, error: Exception) -> Exception | None:
        """Return an exception as the cause of another, unless a traceback would tell a secret."""
        waiting: list[BaseException | None] = [error]
        seen: list[BaseException] = []
        while waiting:
            one = waiting.pop()
            if one is not None and not any(one is other for other in seen):
                seen.append(one)
                waiting += [one.__cause__, one.__context__]
        return None if any(self._betrayed(f"{one} {one!r}") for one in seen) else error

    def said(self, text: str) -> str:
        """Return what a server said, or only the code before the colon."""
        return text.partition(":")[0] if self._betrayed(text) else text

    def _betrayed(self, text: str) -> bool:
        signed = _SIGNED.search(text) is not None
        return self._all or signed or any(secret in text for secret in self._secrets)


def _shown(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _without_values(_without_user(url), literal=True)
    literal = scheme.lower() in _LITERAL
    return scheme + mark + _without_values(_without_user(rest), literal=literal)


def _without_user(rest: str) -> str:
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, behind = rest.rpartition("@")
    if not at or not ("@" in host or ":" in host):
        return rest
    # A slash before the last @ belongs to a password or to a path; both are hidden then.
    return behind if user.count("/") == 0 else f"{_HIDDEN}@{behind}"


def _without_values(rest: str, *, literal: bool) -> str:
    def hidden(match: re.Match[str]) -> str:
        mark, name = match[1], match[2]
        if mark == "#" and not name and literal:
            return match[0]
        return f"{mark}{name}={_HIDDEN}" if name else mark + _HIDDEN

    start = re.search(r"[?#]", rest)
    if not start:
        return rest
    return rest[: start.start()] + _VALUE.sub(hidden, rest[start.start() :])


def _secrets_of_url(text: str) -> Iterator[str]:
    if "://" not in text:
        return
    try:
        parts = urlsplit(text)
        values = [parts.username, parts.password, *(value for _, value in parse_qsl(parts.query))]
    except ValueError:
        values = [text]
    for value in values:
        if value:
            yield from {value, unquote(value)}


def _forms(secret: str) -> Iterator[str]:
    """Give the shapes in which libraries and servers show a text."""
    data = secret.encode("utf-8", "surrogatepass")
    yield from (secret, quote(data), quote(data, safe=""), quote_plus(data), repr(secret)[1:-1])
    if len(data) > 2:  # The padding depends on what follows.
        yield base64.b64encode(data).decode().rstrip("=")[:-1]


def _texts(option: object) -> Iterator[str]:
    if isinstance(option, str):
        yield option
    elif isinstance(option, bytes):
        yield option.decode("latin-1")
    elif isinstance(option, Mapping):
        yield from secrets_in(option)
    elif isinstance(option, Iterable):
        for item in option:
            yield from _texts(item)
