"""HTTP for the heavy requests: bytes between sockets and memory, with no copy and no lock held.

botocore builds and signs a request and reads its answer; here it is only carried. Sockets block,
so `send` and `recv_into` let other threads run, and what is sent or received stays where it is:
parts of a file straight from tensors, ranges straight into them.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ckptstore.storage.s3errand import Errand, InterruptedErrandError

__all__ = ["Reply", "Terms", "Wires", "terms_of"]

_AT_ONCE = 2**26
"""Bytes for one call: each return to Python waits for whatever thread runs there just now."""

_SAFE_AT_ONCE = 2**18  # Python's TLS counts its timeout from the beginning of a call.
_LONGEST_HEAD = 2**18
_LONGEST_PAGE = 2**22
_WAIT_FOR_CONTINUE = 1.0  # Seconds, as botocore has it: not every server says it.
_LONGEST_IDLE = 10.0  # Servers close what nobody uses, and a closed one costs a request.
_MOST_IDLE = 32
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_WAITALL = getattr(socket, "MSG_WAITALL", 0)


@dataclass(frozen=True)
class Terms:
    """How to connect: what the user configured.

    Attributes:
        verify: True, False, or the path of the certificates to trust.
        connect_timeout: seconds.
        read_timeout: seconds in which a byte must have moved.
        socket_options: arguments of `setsockopt`.
    """

    verify: bool | str
    connect_timeout: float
    read_timeout: float
    socket_options: tuple[tuple[Any, ...], ...]


def terms_of(session: Any, url: str) -> Terms | None:
    """Return the terms of an HTTP session of aiobotocore, or None where they cannot be kept here.

    Those are proxies, certificates of clients, connectors that somebody chose, and sessions that
    are not aiohttp's.
    """
    if type(session).__name__ != "AIOHTTPSession":
        return None
    try:
        verify, timeout = session._verify, session._timeout
        plain = (
            session._proxy_config.proxy_url_for(url) is None
            and session._cert_file is None
            and set(session._connector_args) == {"keepalive_timeout"}
        )
        options = tuple(tuple(option) for option in session._socket_options)
        limits = float(timeout.sock_connect), float(timeout.sock_read)
    except (AttributeError, TypeError):
        return None  # Another version of aiobotocore.
    return Terms(verify, *limits, options) if plain else None


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: of HTTP.
        headers: by their names in lower case.
        body: what did not go into the errand's memory.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class _Garbage(Exception):  # noqa: N818  (botocore's error is made of it)
    """What came is not HTTP."""


class _Wire:
    """One connection."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._rest = b""
        self._safe = isinstance(sock, ssl.SSLSocket)
        self._at_once = _SAFE_AT_ONCE if self._safe or os.name == "nt" else _AT_ONCE
        self.used = False  # For an answer at least: the server may close it at any time.
        self.answers = False  # Something of the present answer has come.
        self.since = time.monotonic()
        self._patience(timeout)

    def carry(self, head: bytes, errand: Errand, *, asks: bool) -> tuple[Reply, bool]:
        """Send a request and receive its answer; return it, and whether this can be used again.

        Args:
            head: the request line and the headers.
            errand: what is sent, or where the body goes.
            asks: whether the server is to agree before the body is sent.
        """
        self.answers = False
        self._send(memoryview(head))
        early = self._agreed() if asks else None
        if early is None and errand.body is not None:
            try:
                for piece in errand.body.pieces(self._at_once):
                    self._send(piece)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses may say so, and close, before it has heard all.
                with contextlib.suppress(OSError, EOFError, _Garbage):
                    return self._answer(self._head(), errand)[0], False
                raise
        reply, keeps = self._answer(early or self._head(), errand)
        self.used = True
        self.since = time.monotonic()
        return reply, keeps and early is None

    def is_fresh(self) -> bool:
        """Whether the server has neither closed this nor sent what nobody asked for."""
        if time.monotonic() > self.since + _LONGEST_IDLE:
            return False
        self._sock.setblocking(False)
        try:
            return bool(self._sock.recv(1)) and False
        except (BlockingIOError, ssl.SSLWantReadError):
            self._patience(self._timeout)
            return True
        except OSError:
            return False

    def stop(self) -> None:
        """Make what is under way in another thread fail at once."""
        with contextlib.suppress(OSError, ValueError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._sock.close()

    def _patience(self, seconds: float) -> None:
        """Have calls fail after some time in which nothing moved.

        The kernel's own limit spares a second system call for each of them, which Python's needs;
        TLS knows Python's only.
        """
        if self._safe or os.name == "nt":
            self._sock.settimeout(seconds)
            return
        self._sock.settimeout(None)
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, value)

    def _send(self, view: memoryview) -> None:
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError as error:
                raise TimeoutError("nothing was taken in time") from error

    def _recv_into(self, view: memoryview, flags: int = 0) -> int:
        try:
            got = self._sock.recv_into(view, 0, 0 if self._safe else flags)
        except BlockingIOError as error:
            raise TimeoutError("nothing came in time") from error
        if not got:
            raise EOFError("the connection was closed")
        self.answers = True
        return got

    def _more(self) -> None:
        piece = bytearray(2**16)
        self._rest += piece[: self._recv_into(memoryview(piece))]

    def _agreed(self) -> tuple[int, int, dict[str, str]] | None:
        """Wait for the server's word to go on; return the head of another answer."""
        self._patience(min(_WAIT_FOR_CONTINUE, self._timeout))
        try:
            while not self._rest:
                self._more()
        except TimeoutError:
            return None
        finally:
            self._patience(self._timeout)
        head = self._head(final=False)
        return None if head[1] == 100 else head

    def _head(self, *, final: bool = True) -> tuple[int, int, dict[str, str]]:
        """Return minor version, status and headers of an answer."""
        while True:
            while (end := self._rest.find(b"\r\n\r\n")) < 0:
                if not b"HTTP/1.".startswith(self._rest[:7]) or len(self._rest) > _LONGEST_HEAD:
                    raise _Garbage
                self._more()
            first, *lines = self._rest[:end].split(b"\r\n")
            self._rest = self._rest[end + 4 :]
            found = _STATUS.match(first)
            if not found:
                raise _Garbage
            status = int(found[2])
            if status >= 200 or not final:
                return int(found[1]), status, dict(map(_header, lines))

    def _answer(self, head: tuple[int, int, dict[str, str]], errand: Errand) -> tuple[Reply, bool]:
        minor, status, headers = head
        said = headers.get("connection", "").lower()
        keeps = "close" not in said and (minor == 1 or "keep-alive" in said)
        length = headers.get("content-length", "")
        if length and not length.isdecimal():
            raise _Garbage
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        ends = not chunked and not length  # Where the connection does.
        body = b""
        if status in (204, 304):
            ends = False
        elif errand.takes(status, headers, int(length) if length and not chunked else None):
            if chunked:
                self._chunks_into(errand.targets)
            else:
                for target in errand.targets:
                    self._fill(target)
            errand.filled = True
        elif chunked:
            body = self._chunks()
        else:
            body = self._to_the_end() if ends else self._page(int(length))
        keeps = keeps and not ends
        return Reply(status, headers, body), keeps and not self._rest

    def _fill(self, target: memoryview) -> None:
        there = min(len(target), len(self._rest))
        target[:there] = self._rest[:there]
        self._rest = self._rest[there:]
        while there < len(target):
            there += self._recv_into(target[there : there + self._at_once], _WAITALL)

    def _page(self, size: int) -> bytes:
        if size > _LONGEST_PAGE:
            raise _Garbage
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _chunks(self) -> bytes:
        data = b""
        while size := _hex(self._line()):
            if len(data) + size > _LONGEST_PAGE:
                raise _Garbage
            data += self._page(size)
            self._line()
        while self._line():
            pass
        return data

    def _chunks_into(self, targets: list[memoryview]) -> None:
        room = iter(targets)
        target = memoryview(b"")
        while size := _hex(self._line()):
            while size:
                target = target or next(room, memoryview(b""))
                if not target:
                    raise EOFError("the answer is longer than what was asked for")
                self._fill(target[:size])
                size, target = size - len(target[:size]), target[size:]
            self._line()
        if target or any(room):
            raise EOFError("the answer ended early")
        while self._line():
            pass

    def _line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > _LONGEST_HEAD:
                raise _Garbage
            self._more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _to_the_end(self) -> bytes:
        with contextlib.suppress(EOFError):
            while len(self._rest) <= _LONGEST_PAGE:
                self._more()
        return self._rest


class Wires:
    """The connections of one process to where its heavy requests go.

    Attributes:
        watched: botocore's clients whose heavy requests come here.
    """

    def __init__(self) -> None:
        self.watched: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._idle: dict[tuple[Any, ...], list[_Wire]] = {}
        self._contexts: dict[bool | str, ssl.SSLContext] = {}

    def carry(self, request: Any, errand: Errand, terms: Terms) -> Reply:
        """Send a request that botocore has signed, and return the answer to it.

        Raises:
            BotoCoreError: what aiobotocore would raise.
            InterruptedErrandError: `Errand.interrupt` was called.
        """
        head, asks = _head_of(request)
        parts = urlsplit(request.url)
        place = parts.scheme, parts.hostname, parts.port, terms
        while True:
            wire = self._take(place) or self._new(request.url, terms)
            keeps = False
            try:
                with _translated(request), errand.on(wire):
                    reply, keeps = wire.carry(head, errand, asks=asks)
                return reply
            except Exception:
                # The server had closed it before it heard of this; nobody knows better than to ask
                # again, and what may be asked twice is.
                if not wire.used or wire.answers or not errand.repeats or errand.interrupted:
                    raise
            finally:
                self._give(place, wire, keeps)

    def _take(self, place: tuple[Any, ...]) -> _Wire | None:
        while True:
            with self._lock:
                idle = self._idle.get(place)
                wire = idle.pop() if idle else None
            if wire is None or wire.is_fresh():
                return wire
            wire.close()

    def _give(self, place: tuple[Any, ...], wire: _Wire, keeps: bool) -> None:
        with self._lock:
            idle = self._idle.setdefault(place, [])
            if keeps and len(idle) < _MOST_IDLE:
                idle.append(wire)
                return
        wire.close()

    def _new(self, url: str, terms: Terms) -> _Wire:
        from botocore import exceptions as boto

        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            sock = socket.create_connection((parts.hostname or "", port), terms.connect_timeout)
            try:
                for option in terms.socket_options:
                    sock.setsockopt(*option)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if parts.scheme == "https":
                    context = self._context(terms.verify)
                    sock = context.wrap_socket(sock, server_hostname=parts.hostname)
            except BaseException:
                sock.close()
                raise
        except ssl.SSLError as error:
            raise boto.SSLError(endpoint_url=url, error=error) from error
        except TimeoutError as error:
            raise boto.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise boto.EndpointConnectionError(endpoint_url=url, error=error) from error
        return _Wire(sock, terms.read_timeout)

    def _context(self, verify: bool | str) -> ssl.SSLContext:
        from botocore.httpsession import create_urllib3_context, get_cert_path

        with self._lock:
            context = self._contexts.get(verify)
            if context is None:
                context = create_urllib3_context()
                context.check_hostname = bool(verify)
                if verify:
                    context.load_verify_locations(get_cert_path(verify))
                else:
                    context.verify_mode = ssl.CERT_NONE
                self._contexts[verify] = context
            return context


@contextlib.contextmanager
def _translated(request: Any) -> Iterator[None]:
    """Raise botocore's errors instead of the system's."""
    from botocore import exceptions as boto

    try:
        yield
    except InterruptedErrandError:
        raise
    except TimeoutError as error:
        raise boto.ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except _Garbage as error:
        raise boto.HTTPClientError(error=error) from error
    except (OSError, EOFError) as error:
        raise boto.ConnectionClosedError(
            endpoint_url=request.url, request=request, error=error
        ) from error


def _head_of(request: Any) -> tuple[bytes, bool]:
    """Return the request line and headers of a request, and whether it asks before its body."""
    parts = urlsplit(request.url)
    target = parts._replace(scheme="", netloc="").geturl() or "/"
    headers = {name: _text(value) for name, value in request.headers.items()}
    names = {name.lower() for name in headers}
    if "host" not in names:
        headers["Host"] = parts.netloc.rpartition("@")[2]
    if "accept-encoding" not in names:
        headers["Accept-Encoding"] = "identity"
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header of a request holds a line break")
    asks = any(name.lower() == "expect" for name in headers)
    return "\r\n".join([*lines, "", ""]).encode("utf-8"), asks


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise _Garbage
    return name.strip().lower().decode("latin-1"), value.strip().decode("utf-8", "replace")


def _hex(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
        raise _Garbage
    return int(digits, 16)
