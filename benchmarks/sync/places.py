"""Where is copied to: a bucket on a server that was just started, and folders."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sync.tools import unsigned
from ckptstore.testing.servers import S3Server, start_server

__all__ = ["Place", "differing", "fresh_place"]

_BLOCK = 2**20


@dataclass(frozen=True)
class Place:
    """An empty bucket and an empty folder.

    Attributes:
        server: has the bucket.
        bucket: its name.
        folder: on the disk that is measured.
        config: the AWS configuration of who copies; None is an empty one.
    """

    server: S3Server
    bucket: str
    folder: Path
    config: Path | None

    def location(self, name: str, *, remote: bool) -> str:
        """Return a location in the bucket or in the folder."""
        return f"s3://{self.bucket}/{name}" if remote else str(self.folder / name)


@contextlib.contextmanager
def fresh_place(server: str, folder: Path, *, signed: bool) -> Iterator[Place]:
    """Start a server of its own; it and all files go at the end.

    Args:
        server: ``moto`` or ``rclone``.
        folder: on the disk that is measured.
        signed: whether clients sign payloads over plain HTTP where that is what they do.
    """
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        inner = Path(name)
        for part in ("server", "copies"):
            (inner / part).mkdir()
        started = start_server(server, inner / "server")
        try:
            config = None if signed else unsigned(inner)
            yield Place(started, started.bucket(), inner / "copies", config)
        finally:
            started.stop()


def differing(files: Sequence[Path], location: str, server: S3Server) -> str:
    """Return the names of those files that are not the same in a copy, and how it has them.

    Args:
        files: what the copy has to hold, under the same names.
        location: of the copy.
        server: has it, where it is in a bucket; it is asked without the wire.
    """
    client = server.client() if location.startswith("s3://") else None
    try:
        found = {path.name: _compared(path, location, client) for path in files}
    finally:
        if client is not None:
            client.close()
    return ", ".join(f"{name} is {how}" for name, how in found.items() if how)


def _compared(path: Path, location: str, client: Any) -> str:
    try:
        with path.open("rb") as mine, _opened(f"{location}/{path.name}", client) as other:
            while block := mine.read(_BLOCK):
                if block != _read(other, len(block)):
                    return "not the same"
            return "not the same" if other.read(1) else ""
    except FileNotFoundError:
        return "absent"


@contextlib.contextmanager
def _opened(location: str, client: Any) -> Iterator[Any]:
    if client is None:
        with Path(location).open("rb") as file:
            yield file
        return
    bucket, _, key = location.removeprefix("s3://").partition("/")
    try:
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
    except client.exceptions.NoSuchKey:
        raise FileNotFoundError(location) from None
    with contextlib.closing(body):
        yield body


def _read(source: Any, size: int) -> bytes:
    """Read so many bytes, or all that there are: a reply gives what has arrived."""
    pieces = b""
    while len(pieces) < size and (piece := source.read(size - len(pieces))):
        pieces += piece
    return pieces
