"""Loading from S3: from a server that feeds files out of the page cache."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import raw, servers
from benchmarks.speed.loads import touch_all
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_RANGE = 32 * 2**20


def _key(job: Job, name: str = "torch.pt") -> str:
    return f"{'small' if job.small else 'files'}/{name}"


def _size(job: Job) -> int:
    return Path(job.files()["torch"]).stat().st_size


def _ranges(size: int) -> tuple[list[int], list[int]]:
    starts = [*range(0, size, _RANGE)]
    return starts, [min(start + _RANGE, size) for start in starts]


def _raw(job: Job) -> Timed:
    memory = memoryview(bytearray(_size(job)))
    memory[::4096] = bytes(len(range(0, len(memory), 4096)))
    url = f"{job.place['url']}/{servers.BUCKET}/{_key(job)}"
    return Timed(lambda: raw.get_ranges(url, memory))


def _ours(job: Job) -> Timed:
    import ckptstore

    location = f"s3://{servers.BUCKET}/{_key(job, 'run')}"
    options = servers.storage_options(job.place)
    return Timed(lambda: ckptstore.open(location, storage_options=options).load_model())


def _fsspec(job: Job) -> Timed:
    import torch

    fs = servers.filesystem(job.place)

    def load() -> Any:
        with fs.open(f"{servers.BUCKET}/{_key(job)}", "rb") as file:
            return torch.load(file, weights_only=True)

    return Timed(load)


def _boto(job: Job) -> Timed:
    client = servers.boto(job.place)

    def load() -> Any:
        buffer = io.BytesIO()
        client.download_fileobj(servers.BUCKET, _key(job), buffer)
        return _unpickled(buffer)

    return Timed(load)


def _cat_ranges(job: Job) -> Timed:
    fs, (starts, ends) = servers.filesystem(job.place), _ranges(_size(job))
    path = f"{servers.BUCKET}/{_key(job)}"

    def load() -> Any:
        parts = fs.cat_ranges([path] * len(starts), starts, ends)
        return _unpickled(io.BytesIO(b"".join(parts)))

    return Timed(load)


def _get(job: Job) -> Timed:
    import torch

    fs, path = servers.filesystem(job.place), str(job.folder / "fetched.pt")

    def load() -> Any:
        fs.get_file(f"{servers.BUCKET}/{_key(job)}", path)
        state = torch.load(path, weights_only=True, mmap=True)
        touch_all(state)
        return state

    return Timed(load)


def _obstore(job: Job) -> Timed:
    import obstore

    store, (starts, ends) = servers.obstore_store(job.place), _ranges(_size(job))

    def load() -> Any:
        parts = obstore.get_ranges(store, _key(job), starts=starts, ends=ends)
        return _unpickled(io.BytesIO(b"".join(parts)))

    return Timed(load)


def _connector(job: Job) -> Timed:
    import torch

    checkpoint = servers.connector(job.place)

    def load() -> Any:
        with checkpoint.reader(f"s3://{servers.BUCKET}/{_key(job)}") as reader:
            return torch.load(reader, weights_only=True)

    return Timed(load)


def _unpickled(buffer: io.BytesIO) -> Any:
    import torch

    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def _peer(name: str, prepare: Callable[[Job], Timed], **options: Any) -> Variant:
    return Variant(name, prepare, memory=3.25, **options)


ROWS = (
    Row(
        "load-s3",
        "load from S3; the server feeds files out of its page cache",
        (
            Variant("plain HTTP, 2 connections", _raw),
            Variant(
                "load_model()",
                _ours,
                ours=True,
                wanted=(Wanted("time", 1.5), Wanted("peak", 1.05)),
            ),
            _peer("torch.load over fsspec", _fsspec),
            _peer("boto3 to BytesIO, torch.load", _boto, needs={"boto3": "boto3"}),
            _peer("s3fs cat_ranges, torch.load", _cat_ranges, quick=False),
            _peer("s3fs get, torch.load, mmap=True, touched", _get, quick=False),
            _peer("obstore get_ranges, torch.load", _obstore, needs={"obstore": "obstore"}),
            _peer(
                "AWS's S3Checkpoint, torch.load",
                _connector,
                needs={"s3torchconnector": "s3torchconnector"},
                quick=False,
            ),
        ),
        place=servers.feeding,
        weight=1.8,
    ),
)
