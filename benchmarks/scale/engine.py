"""What ckptstore asks of S3 for one save and one load, counted as its code does it.

A step of a history, in one process; a training in several has one location for each rank. That
these are the real numbers, `tests/scale/test_requests.py` shows by counting on a server.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ckptstore.digests import Digest, chunk_size_for
from ckptstore.manifest import FileEntry, Manifest, TensorInfo
from ckptstore.storage.s3parts import part_size

__all__ = ["Engine", "Plan", "load", "manifest_bytes", "save"]

_READ = 32 * 2**20


@dataclass(frozen=True)
class Engine:
    """How ckptstore asks: see `ckptstore/storage/s3senders.py`, `s3transfer.py`, `s3client.py`.

    Attributes:
        senders: parts of a file on their way at once, where a connection is slow.
        readers: ranges on their way at once, where a connection is slow.
        first_senders: parts on their way at first.
        first_readers: ranges on their way at first.
        attempts: how often a request is sent that is answered with SlowDown.
        first_pause: seconds before it is sent again, doubled each time; half of it is random.
        longest_pause: seconds.
        patience: seconds after which such a request is given up.
        fast_sender: bytes a second of a connection that is not slow to send.
        fast_reader: of one that is not slow to read from.
    """

    senders: int = 8
    readers: int = 8
    first_senders: int = 2
    first_readers: int = 3
    attempts: float = math.inf
    first_pause: float = 0.2
    longest_pause: float = 4.0
    patience: float = 300.0
    fast_sender: float = 150e6
    fast_reader: float = 100e6


@dataclass(frozen=True)
class Plan:
    """The requests of one process, in three stages: one after the other, at once, one by one.

    Attributes:
        before: kinds of requests.
        kind: of those that carry the tensors.
        parts: bytes of each of these.
        after: kinds of requests.
    """

    before: tuple[str, ...]
    kind: str
    parts: tuple[int, ...]
    after: tuple[str, ...]

    def counted(self) -> Counter[str]:
        """Return how many requests there are of each kind."""
        return Counter([*self.before, *self.after]) + Counter({self.kind: len(self.parts)})


def save(
    sizes: Sequence[int],
    *,
    texts: int = 3,
    earlier: bool = True,
    removed: int = 1,
    first: bool = False,
) -> Plan:
    """Return the requests of a step's save into a history.

    Args:
        sizes: bytes of each ``.pt``.
        texts: JSON files: config, tokenizer and training state.
        earlier: whether there are earlier steps; of those that stay each is read once.
        removed: steps that retention removes, of as many files.
        first: whether it is the first save of a process into a new location: it looks for what is
            there, and asks the bucket what it keeps.
    """
    before = ["LIST", "HEAD"] if first else []
    before += ["GET", "LIST", "HEAD", *((["HEAD", "PUT"] if first else ["PUT"]) * texts)]
    parts: list[int] = []
    after: list[str] = []
    for size in sizes:
        cut = _cut(size, part_size(size))
        parts += cut
        before.append("HEAD")
        if len(cut) > 1:
            before.append("POST")
            after.append("POST")
    after += ["PUT"] if first else []
    after += ["LIST", "PUT", "LIST"]
    after += ["LIST", *["GET"] * earlier]
    for _ in range(removed):
        after += ["PUT", "LIST", "GET", "DELETE", "LIST"]
        after += ["DELETE"] * (texts + len(sizes) + 1)
    return Plan(tuple(before), "PUT", tuple(parts), tuple(after))


def load(sizes: Sequence[int]) -> Plan:
    """Return the requests of opening a history and loading each ``.pt``.

    The end of a file comes with its first request; its first and its last chunk are proved before
    the tensors are read.
    """
    before = ["HEAD", "LIST", "GET"]
    parts: list[int] = []
    for size in sizes:
        chunk = chunk_size_for(size)
        before += ["GET"] * (1 + min(2, -(-size // chunk)))
        parts += _cut(size, _READ)
    return Plan(tuple(before), "GET", tuple(parts), ())


def manifest_bytes(sizes: Sequence[int], tensors: int) -> int:
    """Return the size of a manifest, by making those of a few chunks and tensors.

    Args:
        sizes: bytes of each ``.pt``.
        tensors: in all of them.
    """
    empty, chunk, tensor = (len(_manifest(*counts)) for counts in ((1, 1), (2, 1), (1, 2)))
    chunks = sum(-(-size // chunk_size_for(size)) for size in sizes)
    return empty * len(sizes) + chunks * (chunk - empty) + tensors * (tensor - empty)


def _manifest(chunks: int, tensors: int) -> str:
    digest = Digest(chunks * 8 * 2**20, "0" * 64, 8 * 2**20, ("0" * 32,) * chunks)
    names = [f"model.layers.{number}.mlp.weight" for number in range(tensors)]
    index = {name: TensorInfo("float32", (4096, 4096), 2**26, 2**31) for name in names}
    files = {"model.pt": FileEntry("model.pt", digest, index)}
    made = "2026-01-01T00:00:00+00:00"
    return Manifest("0" * 12, "bundle", None, 1, made, "ckptstore", files=files).to_json()


def _cut(size: int, part: int) -> list[int]:
    whole, rest = divmod(size, part)
    return [part] * whole + ([rest] if rest or not whole else [])
