"""The limits: what reading, writing and sending bytes costs without anything around it."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["get_ranges", "put_object", "put_parts", "read_into", "sync_folder", "write"]

# Larger writes make the kernel take its pages in large blocks, which a virtual machine may have
# handed back to its host: the same file then took two to ten times as long.
_WRITTEN = 2**20
_READ = 8 * 2**20
PART = 32 * 2**20
CONNECTIONS = 2


def write(path: Path, data: memoryview, *, durable: bool) -> None:
    """Make a file by plain system calls; durable: with its name on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        at = 0
        while at < len(data):
            at += os.write(descriptor, data[at : at + _WRITTEN])
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_into(path: str, memory: memoryview) -> None:
    """Read a file by plain system calls into memory that is there and warm."""
    with Path(path).open("rb", buffering=0) as file:
        at = 0
        while at < len(memory):
            got = file.readinto(memory[at : at + _READ])
            if not got:
                raise EOFError(path)
            at += got


def put_object(url: str, data: memoryview, certificate: str | None = None) -> None:
    """Send one object as an upload in parts, over plain connections, unsigned."""
    host, path = _split(url)
    connection = _connection(host, certificate)
    text = _asked(connection, "POST", f"{path}?uploads").decode()
    found = re.search(r"<UploadId>(.*?)</UploadId>", text)
    if found is None:
        raise RuntimeError(f"no upload was begun: {text}")
    upload = found[1]
    count = -(-len(data) // PART)
    urls = [f"{url}?partNumber={n}&uploadId={upload}" for n in range(1, count + 1)]
    tags = put_parts(urls, data, certificate)
    parts = "".join(
        f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"
        for n, tag in enumerate(tags, 1)
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    _asked(connection, "POST", f"{path}?uploadId={upload}", body)
    connection.close()


def put_parts(urls: Sequence[str], data: memoryview, certificate: str | None = None) -> list[str]:
    """Send each part to its URL, two at a time, straight from memory; return their ETags."""
    tags = [""] * len(urls)

    def send(connection: http.client.HTTPConnection, number: int) -> None:
        body = data[number * PART : (number + 1) * PART]
        headers = {"Content-Length": str(len(body))}
        connection.request("PUT", _split(urls[number])[1], body=body, headers=headers)
        reply = connection.getresponse()
        said = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"PUT answered {reply.status}: {said[:200]!r}")
        tags[number] = reply.getheader("ETag") or ""

    _shared_out(_split(urls[0])[0], len(urls), send, certificate)
    return tags


def get_ranges(url: str, memory: memoryview, certificate: str | None = None) -> None:
    """Read one object in ranges, two at a time, straight into memory."""
    host, path = _split(url)

    def read(connection: http.client.HTTPConnection, number: int) -> None:
        part = memory[number * PART : (number + 1) * PART]
        first = number * PART
        headers = {"Range": f"bytes={first}-{first + len(part) - 1}"}
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        at = 0
        while at < len(part):
            got = reply.readinto(part[at:])
            if not got:
                raise EOFError(url)
            at += got
        reply.read()

    _shared_out(host, -(-len(memory) // PART), read, certificate)


def _shared_out(
    host: str,
    count: int,
    work: Callable[[http.client.HTTPConnection, int], None],
    certificate: str | None,
) -> None:
    """Do numbered work in as many threads as there are connections; raise what one raised."""
    left = iter(range(count))
    lock = threading.Lock()
    failed: list[BaseException] = []

    def run() -> None:
        connection = _connection(host, certificate)
        try:
            while True:
                with lock:
                    number = next(left, None)
                if number is None or failed:
                    return
                work(connection, number)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}", parts.path + query


def _connection(host: str, certificate: str | None) -> http.client.HTTPConnection:
    parts = urlsplit(host)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=certificate)
        # The server signed its certificate itself, for whatever name it is reached by.
        context.check_hostname = False
        return http.client.HTTPSConnection(parts.netloc, context=context, timeout=60)
    return http.client.HTTPConnection(parts.netloc, timeout=60)


def _asked(connection: Any, method: str, path: str, body: bytes = b"") -> bytes:
    connection.request(method, path, body=body, headers={"Content-Length": str(len(body))})
    reply = connection.getresponse()
    said: bytes = reply.read()
    if reply.status >= 300:
        raise RuntimeError(f"{method} answered {reply.status}: {said[:200]!r}")
    return said
