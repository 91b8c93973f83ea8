"""How one request gets to the server and its reply back, or what becomes of them instead."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from ckptstore.testing.s3faults import ANSWERS, S3Fault

__all__ = ["Listener", "Traffic"]

_BLOCK = 2**16
_ENDS_HERE = {"connection", "keep-alive", "transfer-encoding"}


class Traffic:
    """What is known of the requests, and what is to be done to them.

    Args:
        target: host and port of the server.

    Attributes:
        target: host and port of the server.
        faults: what to do to requests.
        requests: method, path with query, and headers of all requests so far.
        most_at_once: of the requests for parts of an upload.
        released: set when what is held back is to go on.
        closed: set when the proxy is closed.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.faults: list[S3Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.most_at_once = 0
        self.released = threading.Event()
        self.closed = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def counted(self, method: str, path: str, headers: dict[str, str]) -> Iterator[None]:
        """Note a request, for as long as it is under way."""
        part = "partNumber" in path
        with self._lock:
            self.requests.append((method, path, headers))
            self._at_once += part
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= part

    def fault(self, method: str, path: str) -> S3Fault | None:
        """Return what is to be done to a request."""
        with self._lock:
            return next((fault for fault in self.faults if fault.hits(method, path)), None)

    def release(self) -> None:
        """Let what is held back go on, but not what comes later."""
        released, self.released = self.released, threading.Event()
        released.set()


class Listener(http.server.ThreadingHTTPServer):
    """Listens on a free port of this machine, and handles each connection in a thread.

    Args:
        traffic: what is to be done.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: that a connection breaks is what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Older ones never say 100-continue.
    server: Listener

    def do_GET(self) -> None:
        self.close_connection = True
        traffic = self.server.traffic
        with traffic.counted(self.command, self.path, dict(self.headers)):
            fault = traffic.fault(self.command, self.path) or S3Fault(action="")
            if fault.action in ANSWERS:
                self._refuse(fault.action)
            elif fault.action == "late":
                self._hold_back(fault)
            elif fault.action == "cut request" and not self._size:
                pass  # With its head the server would have all of it.
            elif fault.action in _INSTEAD:
                _INSTEAD[fault.action](self)
            else:
                self._pass_on(fault, self._body(fault))

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815  (http.server's names)

    def log_message(self, *arguments: object) -> None:
        pass

    @property
    def _size(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _body(self, fault: S3Fault) -> Iterator[bytes]:
        """Give the request's body in pieces; only half of it where that is the fault."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            return
        size = self._size
        rest = size - size // 2 if fault.action == "cut request" else size
        while rest:
            piece = self.rfile.read(min(rest, _step(fault)))
            if not piece:
                raise ConnectionResetError("the client has gone")
            yield piece
            rest -= len(piece)

    def _drain(self) -> None:
        for _ in self._body(S3Fault(action="")):
            pass

    def _refuse(self, code: str) -> None:
        self._drain()
        status, message = ANSWERS[code]
        self._send_error(status, code, message)

    def _send_error(self, status: int, code: str, message: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self._send_page(status, "application/xml", text.encode())

    def _send_page(self, status: int, kind: str, data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    def _send_html(self) -> None:
        self._drain()
        self._send_page(200, "text/html", b"<html><body>Please log in to the hotel.</body></html>")

    def _send_noise(self) -> None:
        self._drain()
        self.wfile.write(bytes(range(256)) * 4)

    def _send_hidden_error(self) -> None:
        self._drain()
        self._send_error(200, "InternalError", ANSWERS["InternalError"][1])

    def _stall(self) -> None:
        self.server.traffic.closed.wait()

    def _drop(self) -> None:
        self._drain()

    def _hold_back(self, fault: S3Fault) -> None:
        traffic = self.server.traffic
        released = traffic.released
        with tempfile.SpooledTemporaryFile(_BLOCK) as kept:
            for piece in self._body(fault):
                kept.write(piece)
            kept.seek(0)
            released.wait(fault.seconds)
            if not traffic.closed.is_set():
                self._pass_on(fault, iter(lambda: kept.read(_BLOCK), b""))

    def _pass_on(self, fault: S3Fault, body: Iterator[bytes]) -> None:
        upstream = http.client.HTTPConnection(self.server.traffic.target, timeout=60)
        with contextlib.closing(upstream):
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {*_ENDS_HERE, "expect"}:
                    upstream.putheader(name, value)
            chunked = "Content-Length" not in self.headers and "Transfer-Encoding" in self.headers
            if chunked:
                upstream.putheader("Transfer-Encoding", "chunked")
            upstream.endheaders()
            for piece in body:
                # A server may answer before it has read all, and read no more.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    upstream.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                _take_time(fault, piece)
            if fault.action == "cut request":
                return
            if chunked:
                upstream.send(b"0\r\n\r\n")
            reply = upstream.getresponse()
            if fault.action == "lose":
                reply.read()
            else:
                self._answer(fault, reply)

    def _answer(self, fault: S3Fault, reply: http.client.HTTPResponse) -> None:
        length = reply.getheader("Content-Length")
        source: IO[bytes] = reply
        if self.command != "HEAD" and (length is None or fault.action in ("half xml", "flip")):
            data = reply.read()
            if fault.action == "flip" and data:
                middle = len(data) // 2
                data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            if fault.action == "half xml":
                data = data[: len(data) // 2]
            length = str(len(data))
            source = io.BytesIO(data)
        rest = 0 if self.command == "HEAD" else int(length or 0)
        if fault.action == "cut reply":
            if not rest:
                self.wfile.write(b"HTTP/1.")  # A reply without a body breaks off in its head.
                return
            rest //= 2
        with source:
            self._send_head(reply, length, fault.seconds if fault.action == "other date" else 0)
            while rest:
                piece = source.read(min(rest, _step(fault)))
                if not piece:
                    return  # The server broke off, and so does this.
                self.wfile.write(piece)
                _take_time(fault, piece)
                rest -= len(piece)

    def _send_head(self, reply: http.client.HTTPResponse, length: str | None, later: float) -> None:
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() == "date" and later:
                self.send_header(name, self.date_time_string(time.time() + later))
            elif name.lower() not in {*_ENDS_HERE, "content-length"}:
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", length)
        self.send_header("Connection", "close")
        self.end_headers()


_INSTEAD = {
    "drop": _Handler._drop,
    "stall": _Handler._stall,
    "html": _Handler._send_html,
    "noise": _Handler._send_noise,
    "error in 200": _Handler._send_hidden_error,
}


def _step(fault: S3Fault) -> int:
    return max(1, min(_BLOCK, fault.rate // 10)) if fault.action == "slow" else _BLOCK


def _take_time(fault: S3Fault, piece: bytes) -> None:
    if fault.action == "slow":
        time.sleep(len(piece) / fault.rate)
