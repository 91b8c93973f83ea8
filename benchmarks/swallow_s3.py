"""The S3 that `benchmarks.swallow` speaks; what it keeps and what it forgets is said there."""

from __future__ import annotations

import contextlib
import mmap
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from benchmarks.swallow_shelf import KEPT, Pieces, Shelf, Thing, Upload

__all__ = ["Connection"]

BUFFER = KEPT
_DATE = "%Y-%m-%dT%H:%M:%S.000Z"


class _Refused(Exception):  # noqa: N818  (it is an answer)
    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code


@dataclass
class _Request:
    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def metadata(self) -> dict[str, str]:
        return {name: text for name, text in self.headers.items() if name.startswith("x-amz-meta-")}


class Connection:
    """Answers one request after the other."""

    def __init__(self, sock: socket.socket, shelf: Shelf) -> None:
        self._sock = sock
        self._shelf = shelf
        self._buffer = memoryview(bytearray(BUFFER))
        self._rest = b""
        self._flags = 0 if isinstance(sock, ssl.SSLSocket) else getattr(socket, "MSG_WAITALL", 0)

    def serve(self) -> None:
        """Answer until the client goes."""
        with contextlib.suppress(OSError), self._sock:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := self._request()) is not None:
                try:
                    answer = getattr(self, f"_{request.method.lower()}")(request)
                except _Refused as refused:
                    text = f"<Error><Code>{refused.code}</Code></Error>"
                    self._send(refused.status, text.encode(), head=request.method == "HEAD")
                else:
                    if answer is not None:
                        self._send(*answer)

    # -- receiving ----------------------------------------------------------------------

    def _request(self) -> _Request | None:
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if not (more := self._sock.recv(2**16)):
                return None
            self._rest += more
        first, *lines = self._rest[:end].decode("latin-1").split("\r\n")
        self._rest = self._rest[end + 4 :]
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        query = {name: text[0] for name, text in parse_qs(parts.query, True).items()}
        headers = {
            name.strip().lower(): text.strip()
            for name, _, text in (line.partition(":") for line in lines)
        }
        if "100-continue" in headers.get("expect", "").lower():
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return _Request(method, unquote(parts.path).lstrip("/"), query, headers)

    def _body(self, request: _Request) -> tuple[int, Pieces]:
        """Return the size of a body, and its ends, or all of it where it is small."""
        chunked = "chunked" in request.headers.get("transfer-encoding", "")
        wrapped = "aws-chunked" in request.headers.get("content-encoding", "")
        if chunked or wrapped:
            length = int(request.headers.get("content-length", 0))
            data = b"".join(self._chunks()) if chunked else self._take(length)
            data = b"".join(_unwrapped(data)) if wrapped else data
            return len(data), [(0, bytearray(data))]
        size = int(request.headers.get("content-length", 0))
        if size <= KEPT:
            return size, [(0, self._kept(size))]
        pieces: Pieces = []
        rest = size
        if size >= 2 * KEPT and request.query.get("partNumber", "1") == "1":
            pieces.append((0, self._kept(KEPT)))
            rest -= KEPT
        self._swallow(rest - min(rest, KEPT))
        return size, [*pieces, (size - min(rest, KEPT), self._kept(min(rest, KEPT)))]

    def _kept(self, size: int) -> bytearray:
        buffer = self._shelf.buffer() if size == KEPT else bytearray(size)
        self._receive(memoryview(buffer))
        return buffer

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line().partition(b";")[0], 16):
            yield self._take(size)
            self._line()
        while self._line():
            pass

    def _line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._rest += self._more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _more(self) -> bytes:
        if not (more := self._sock.recv(2**16)):
            raise ConnectionError
        return more

    def _take(self, size: int) -> bytes:
        data = bytearray(size)
        self._receive(memoryview(data))
        return bytes(data)

    def _receive(self, target: memoryview) -> None:
        there = min(len(target), len(self._rest))
        target[:there] = self._rest[:there]
        self._rest = self._rest[there:]
        while there < len(target):
            # One call fills the buffer, so that little of the time is Python's own; TLS cannot.
            got = self._sock.recv_into(target[there:], 0, self._flags)
            if not got:
                raise ConnectionError
            there += got

    def _swallow(self, size: int) -> None:
        while size:
            self._receive(self._buffer[: min(size, BUFFER)])
            size -= min(size, BUFFER)

    # -- answering ----------------------------------------------------------------------

    def _send(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        head: bool = False,
    ) -> None:
        told = {"Content-Length": str(len(body)), "Date": formatdate(usegmt=True)}
        lines = [f"{name}: {value}" for name, value in {**told, **(headers or {})}.items()]
        start = "\r\n".join([f"HTTP/1.1 {status} .", *lines, "", ""]).encode("latin-1")
        self._sock.sendall(start if head else start + body)

    def _get(self, request: _Request) -> Any:
        if "/" not in request.key.rstrip("/"):
            return 200, self._listing(request)
        thing = self._thing(request.key)
        if request.headers.get("if-match", thing.tag) != thing.tag:
            raise _Refused(412, "PreconditionFailed")
        first, last, status = 0, thing.size - 1, 200
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "")):
            first = int(found[1]) if found[1] else max(0, thing.size - int(found[2]))
            last = min(int(found[2]), last) if found[1] and found[2] else last
            if first > last:
                raise _Refused(416, "InvalidRange")
            status = 206
        headers = {**_headers(thing), "Content-Length": str(last - first + 1)}
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{last}/{thing.size}"
        self._send(status, headers=headers, head=True)
        self._feed(thing, first, last - first + 1)
        return None

    def _feed(self, thing: Thing, start: int, size: int) -> None:
        if thing.path is None:
            place = 0
            for first, data in sorted(thing.range(start, size), key=lambda piece: piece[0]):
                self._zeros(first - place)
                self._sock.sendall(data)
                place = first + len(data)
            self._zeros(size - place)
        elif size:
            with thing.path.open("rb") as file:
                if not isinstance(self._sock, ssl.SSLSocket):
                    self._sock.sendfile(file, start, size)
                    return
                with (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                    memoryview(mapped) as view,
                    view[start : start + size] as wanted,
                ):
                    self._sock.sendall(wanted)

    def _zeros(self, size: int) -> None:
        while size > 0:
            self._sock.sendall(bytes(min(size, BUFFER)))
            size -= min(size, BUFFER)

    def _head(self, request: _Request) -> None:
        if "/" not in request.key.rstrip("/"):
            self._send(200)
        else:
            self._send(200, headers=_headers(self._thing(request.key)), head=True)

    def _put(self, request: _Request) -> Any:
        size, pieces = self._body(request)
        source = unquote(request.headers.get("x-amz-copy-source", "")).lstrip("/")
        thing = Thing(size, pieces, metadata=request.metadata)
        if source:
            told = request.headers.get("x-amz-copy-source-range", "")
            thing = self._copy(self._thing(source), told)
        if "partNumber" in request.query:
            with self._shelf.lock:
                upload = self._upload(request)
                number = int(request.query["partNumber"])
                self._shelf.free += upload.add(number, thing.size, thing.pieces)
            return _done("CopyPartResult" if source else "", thing.tag)
        if "/" in request.key.rstrip("/"):
            self._place(request, thing)
            return _done("CopyObjectResult" if source else "", thing.tag)
        return (200,)

    def _copy(self, source: Thing, told: str) -> Thing:
        first, last = 0, source.size - 1
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", told):
            first, last = int(found[1]), int(found[2])
        size = last - first + 1
        path = source.path if size == source.size else None
        return Thing(size, source.range(first, size), path, source.metadata)

    def _place(self, request: _Request, thing: Thing) -> None:
        with self._shelf.lock:
            there = self._shelf.things.get(request.key)
            wanted = request.headers.get("if-match")
            if (there and "if-none-match" in request.headers) or (
                wanted and (not there or there.tag != wanted)
            ):
                raise _Refused(412, "PreconditionFailed")
            self._shelf.things[request.key] = thing

    def _post(self, request: _Request) -> Any:
        self._body(request)
        if "uploads" in request.query:
            upload = secrets.token_hex(8)
            with self._shelf.lock:
                self._shelf.uploads[upload] = Upload(request.key, request.metadata)
            text = f"<UploadId>{upload}</UploadId><Key>{escape(request.key)}</Key>"
            return 200, _xml("InitiateMultipartUploadResult", text)
        with self._shelf.lock:
            thing = self._upload(request).thing()
        self._place(request, thing)
        with self._shelf.lock:
            self._shelf.uploads.pop(request.query["uploadId"], None)
        return 200, _xml("CompleteMultipartUploadResult", f"<ETag>{thing.tag}</ETag>")

    def _delete(self, request: _Request) -> Any:
        with self._shelf.lock:
            if "uploadId" in request.query:
                self._shelf.uploads.pop(request.query["uploadId"], None)
            else:
                self._shelf.things.pop(request.key, None)
        return (204,)

    def _upload(self, request: _Request) -> Upload:
        if request.query.get("uploadId") not in self._shelf.uploads:
            raise _Refused(404, "NoSuchUpload")
        return self._shelf.uploads[request.query["uploadId"]]

    def _thing(self, key: str) -> Thing:
        with self._shelf.lock:
            if key not in self._shelf.things:
                raise _Refused(404, "NoSuchKey")
            return self._shelf.things[key]

    def _listing(self, request: _Request) -> bytes:
        bucket = request.key.rstrip("/") + "/"
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter")
        if "uploads" in request.query:
            return _xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>")
        rows, folders = [], set()
        with self._shelf.lock:
            found = sorted(self._shelf.things.items())
        for key, thing in found:
            key = key.removeprefix(bucket) if key.startswith(bucket) else ""
            if not key or not key.startswith(prefix):
                continue
            inside, more, _ = key[len(prefix) :].partition(delimiter or "\0")
            if more and delimiter:
                folders.add(prefix + inside + delimiter)
                continue
            date = time.strftime(_DATE, time.gmtime(thing.modified))
            rows.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{thing.size}</Size>"
                f"<ETag>{thing.tag}</ETag><LastModified>{date}</LastModified></Contents>"
            )
        rows += [
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        ]
        count = f"<IsTruncated>false</IsTruncated><KeyCount>{len(rows)}</KeyCount>"
        return _xml("ListBucketResult", count + "".join(rows))


def _headers(thing: Thing) -> dict[str, str]:
    return {
        "Content-Length": str(thing.size),
        "ETag": thing.tag,
        "Last-Modified": formatdate(thing.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        **thing.metadata,
    }


def _done(copy: str, tag: str) -> tuple[int, bytes, dict[str, str]]:
    if not copy:
        return 200, b"", {"ETag": tag}
    date = time.strftime(_DATE, time.gmtime())
    return 200, _xml(copy, f"<ETag>{tag}</ETag><LastModified>{date}</LastModified>"), {}


def _xml(name: str, inside: str) -> bytes:
    return f"<?xml version='1.0' encoding='UTF-8'?><{name}>{inside}</{name}>".encode()


def _unwrapped(data: bytes) -> Iterator[bytes]:
    """Give the chunks of a body that botocore signed or summed up as it was sent."""
    place = 0
    while place < len(data):
        line, _, _ = data[place:].partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return
        place += len(line) + 2
        yield data[place : place + size]
        place += size + 2
