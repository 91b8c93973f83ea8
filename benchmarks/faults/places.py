"""Where it happens: local disk, moto, rclone; and what is there, seen without ckptstore."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.faults.children import Child, Line
from ckptstore.testing.proxy import S3Proxy
from ckptstore.testing.servers import S3Server, start_server

__all__ = ["STORAGES", "Ground", "Place", "grounds", "proxied"]

STORAGES = ("local", "moto", "rclone")


@dataclass(frozen=True)
class Place:
    """One location.

    Attributes:
        url: a path or URL.
        options: its storage options.
        history: whether it holds one checkpoint per step.
        kept: how many steps of a history stay; None for all.
    """

    url: str
    options: dict[str, Any]
    history: bool
    kept: int | None


@dataclass
class Ground:
    """One kind of storage.

    Attributes:
        name: which.
        folder: on this machine, for everything.
        server: the one that serves it, if any.
    """

    name: str
    folder: Path
    server: S3Server | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def conditions(self) -> bool:
        """Whether it keeps several writers apart."""
        return self.name != "rclone"

    def place(self, *, history: bool, kept: int | None = 2) -> Place:
        """Return a new location, where nothing is yet."""
        name = f"{'history' if history else 'single'}-{next(self._numbers)}"
        if self.server is None:
            return Place(str(self.folder / name), {}, history, kept)
        # What a fault has broken is told soon; what is slow because all is busy has time.
        patience = {
            "config_kwargs": {
                "retries": {"total_max_attempts": 4},
                "connect_timeout": 60,
                "read_timeout": 60,
            }
        }
        options = {**self.server.storage_options, **patience}
        return Place(self.server.url(name), options, history, kept)

    def files(self, place: Place) -> set[str]:
        """Return the names of all files below a location, as the storage itself has them."""
        if self.server is not None:
            prefix = place.url.removeprefix("s3://").partition("/")[2] + "/"
            return {key.removeprefix(prefix) for key in self.server.keys(place.url + "/")}
        root = Path(place.url)
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    def uploads(self, place: Place) -> list[str]:
        """Return the keys of uploads that were never finished."""
        if self.server is None:
            return []
        with contextlib.suppress(Exception):  # rclone calls it an error that there are none.
            return self.server.uploads(place.url)
        return []


@contextlib.contextmanager
def grounds(name: str, folder: str | None) -> Iterator[Ground]:
    """Give a storage of a kind, for as long as the block runs."""
    root = Path(tempfile.mkdtemp(prefix=f"faults-{name}-", dir=folder))
    try:
        if name == "local":
            yield Ground(name, root)
            return
        server = start_server(name, root)
        try:
            yield Ground(name, root, server)
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def proxied(place: Place) -> Iterator[tuple[Place, Child]]:
    """Give the same location by way of a proxy, and the proxy's process.

    The process takes the arguments of `S3Proxy.harm`, or ``mend=True``.
    """
    with Child(_proxy, place.options["endpoint_url"]) as proxy:
        told = proxy.next("endpoint") or {}
        options = {**place.options, "endpoint_url": told["endpoint"]}
        yield replace(place, options=options), proxy


def _proxy(line: Line, endpoint: str) -> None:
    with S3Proxy(endpoint) as proxy:
        line.tell(endpoint=proxy.endpoint)
        while "quit" not in (said := line.hear(wait=None) or {}):
            if "mend" in said:
                proxy.mend()
            else:
                proxy.harm(**said)
