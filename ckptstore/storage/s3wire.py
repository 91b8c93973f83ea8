"""One connection for heavy requests: bytes between a socket and memory, not copied on the way.

Sockets block, so sending and receiving let other threads run, and what is sent or received stays
where it is: parts of a file straight from tensors, ranges straight into them.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass

from ckptstore.storage.s3errand import Errand

__all__ = ["NoAnswerError", "Reply", "Wire"]

_AT_ONCE = 2**26
"""Bytes for one call: each return to Python waits for whatever thread runs there just now."""

_SAFE_AT_ONCE = 2**18  # Python's TLS counts its timeout from the beginning of a call.
_LONGEST_HEAD = 2**18
_LONGEST_PAGE = 2**22
_WAIT_FOR_CONTINUE = 1.0  # Seconds, as botocore has it: not every server says it.
_LONGEST_IDLE = 10.0  # Servers close what nobody uses, and a closed one costs a request.
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_WAITALL = getattr(socket, "MSG_WAITALL", 0)


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


class NoAnswerError(Exception):
    """What came is not HTTP."""


class Wire:
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
        try:
            self._patience(timeout)
        except OSError:  # A kernel with another idea of what a time is.
            self._at_once = _SAFE_AT_ONCE
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
                with contextlib.suppress(OSError, EOFError, NoAnswerError):
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
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._patience(self._timeout)
            return True
        except OSError:
            return False
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
        self._sock.settimeout(seconds)
        if self._at_once == _AT_ONCE:
            value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._sock.setsockopt(socket.SOL_SOCKET, option, value)
            self._sock.settimeout(None)

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
                    raise NoAnswerError
                self._more()
            first, *lines = self._rest[:end].split(b"\r\n")
            self._rest = self._rest[end + 4 :]
            found = _STATUS.match(first)
            if not found:
                raise NoAnswerError
            status = int(found[2])
            if status >= 200 or not final:
                return int(found[1]), status, dict(map(_header, lines))

    def _answer(self, head: tuple[int, int, dict[str, str]], errand: Errand) -> tuple[Reply, bool]:
        minor, status, headers = head
        said = headers.get("connection", "").lower()
        keeps = "close" not in said and (minor == 1 or "keep-alive" in said)
        length = headers.get("content-length", "")
        if length and not length.isdecimal():
            raise NoAnswerError
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
            raise NoAnswerError
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _chunks(self) -> bytes:
        data = b""
        while size := _hex(self._line()):
            if len(data) + size > _LONGEST_PAGE:
                raise NoAnswerError
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
                raise NoAnswerError
            self._more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _to_the_end(self) -> bytes:
        with contextlib.suppress(EOFError):
            while len(self._rest) <= _LONGEST_PAGE:
                self._more()
        return self._rest


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise NoAnswerError
    return name.strip().lower().decode("latin-1"), value.strip().decode("utf-8", "replace")


def _hex(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
        raise NoAnswerError
    return int(digits, 16)
