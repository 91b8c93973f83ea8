"""Saving to S3: to a server that keeps nothing, so that what is measured is the client."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.speed import raw, servers
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS", "save_variant"]

_PART = 16 * 2**20
_BOTO = {"boto3": "boto3"}
_OBSTORE = {"obstore": "obstore"}


def key() -> str:
    """Return a name that nothing was saved under."""
    return f"{uuid.uuid4().hex}/state.pt"


def _raw(job: Job) -> Timed:
    from benchmarks.speed.states import whole

    data, url = whole(job), f"{job.place['url']}/{servers.BUCKET}/{key()}"
    return Timed(lambda: raw.put_object(url, data, job.place["certificate"]))


def ours(*, signed: bool = False) -> Callable[[Job], Timed]:
    """Return how a step is saved into a history."""

    def prepare(job: Job) -> Timed:
        import ckptstore
        from benchmarks.speed.states import checkpoint

        state = checkpoint(job)
        store = ckptstore.Store(
            f"s3://{servers.BUCKET}/{uuid.uuid4().hex}",
            keep=ckptstore.Keep(last=3),
            storage_options=servers.storage_options(job.place, signed=signed),
        )
        return Timed(lambda: store.save(**state, step=1))

    return prepare


def save_variant(save: Callable[[Any, Job], Callable[[], object]]) -> Callable[[Job], Timed]:
    """Return how a variant is prepared that saves a state: ``save(state, job)`` is timed."""

    def prepare(job: Job) -> Timed:
        from benchmarks.speed.states import checkpoint

        return Timed(save(checkpoint(job), job))

    return prepare


def torch_into_fsspec(state: Any, job: Job) -> Callable[[], object]:
    """What most code does: torch.save into a file that fsspec opened."""
    import torch

    fs = servers.filesystem(job.place)

    def save() -> None:
        with fs.open(f"{servers.BUCKET}/{key()}", "wb") as file:
            torch.save(state, file)

    return save


def s3fs_from_memory(*, signed: bool = False) -> Callable[[Any, Job], Callable[[], object]]:
    """Return how s3fs uploads what was saved into memory."""

    def prepared(state: Any, job: Job) -> Callable[[], object]:
        fs = servers.filesystem(job.place, signed=signed)

        def save() -> None:
            fs.pipe_file(f"{servers.BUCKET}/{key()}", _in_memory(state).getvalue())

        return save

    return prepared


def s3fs_put(state: Any, job: Job) -> Callable[[], object]:
    """Save to a local file, and have s3fs upload that."""
    import torch

    fs, path = servers.filesystem(job.place), str(job.folder / "staged.pt")

    def save() -> None:
        torch.save(state, path)
        fs.put_file(path, f"{servers.BUCKET}/{key()}")

    return save


def boto_from_memory(*, signed: bool = False) -> Callable[[Any, Job], Callable[[], object]]:
    """Return how boto3 uploads what was saved into memory."""

    def prepared(state: Any, job: Job) -> Callable[[], object]:
        client = servers.boto(job.place, signed=signed)
        return lambda: client.upload_fileobj(_in_memory(state), servers.BUCKET, key())

    return prepared


def boto_parts(state: Any, job: Job) -> Callable[[], object]:
    """What one writes by hand: parts made of the tensors' own memory, sent by threads."""
    client = servers.boto(job.place)

    def save() -> None:
        target = {"Bucket": servers.BUCKET, "Key": key()}
        upload = client.create_multipart_upload(**target)["UploadId"]

        def send(number: int, body: bytes) -> dict[str, Any]:
            answer = client.upload_part(
                **target, UploadId=upload, PartNumber=number, Body=io.BytesIO(body)
            )
            return {"PartNumber": number, "ETag": answer["ETag"]}

        with ThreadPoolExecutor(2) as pool:
            sink = _Parts(lambda number, body: pool.submit(send, number, body))
            parts = [future.result() for future in sink.take(state)]
        client.complete_multipart_upload(
            **target, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    return save


class _Parts:
    """Takes what torch.save writes, and sends it in parts, of which three wait at most."""

    def __init__(self, send: Callable[[int, bytes], Any]) -> None:
        self._send = send
        self._part = bytearray()
        self._sent: list[Any] = []

    def take(self, state: Any) -> list[Any]:
        import torch

        torch.save(state, self)
        self._send_part()
        return self._sent

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view):
            room = _PART - len(self._part)
            self._part += view[:room]
            view = view[room:]
            if len(self._part) == _PART:
                self._send_part()
        return size

    def flush(self) -> None:
        pass

    def _send_part(self) -> None:
        if len(self._sent) >= 3:
            self._sent[-3].result()
        self._sent.append(self._send(len(self._sent) + 1, bytes(self._part)))
        self._part.clear()


def obstore_put(state: Any, job: Job) -> Callable[[], object]:
    """Save into memory, and have obstore upload that in parts."""
    import obstore

    store = servers.obstore_store(job.place)
    return lambda: obstore.put(store, key(), _in_memory(state).getvalue(), chunk_size=_PART)


def connector_writer(state: Any, job: Job) -> Callable[[], object]:
    """Save into the writer of AWS's connector."""
    import torch

    checkpoint = servers.connector(job.place)

    def save() -> None:
        with checkpoint.writer(f"s3://{servers.BUCKET}/{key()}") as writer:
            torch.save(state, writer)

    return save


def _in_memory(state: Any) -> io.BytesIO:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


_TIME = Wanted("time", 1.6)
_PEERS = (
    Variant("torch.save into fsspec", save_variant(torch_into_fsspec)),
    Variant("torch.save to disk, s3fs put", save_variant(s3fs_put), quick=False),
    Variant("BytesIO, s3fs pipe", save_variant(s3fs_from_memory()), memory=3.5, quick=False),
    Variant(
        "BytesIO, boto3 upload_fileobj", save_variant(boto_from_memory()), needs=_BOTO, memory=2.5
    ),
    Variant(
        "boto3 upload_part by hand, 2 threads", save_variant(boto_parts), needs=_BOTO, quick=False
    ),
    Variant("BytesIO, obstore put", save_variant(obstore_put), needs=_OBSTORE, memory=3.5),
    Variant(
        "AWS's S3Checkpoint",
        save_variant(connector_writer),
        needs={"s3torchconnector": "s3torchconnector"},
    ),
)

ROWS = (
    Row(
        "save-s3",
        "save to S3, into a history, payloads not signed; the server keeps nothing",
        (
            Variant("plain HTTP, 2 connections", _raw),
            Variant("Store.save", ours(), ours=True, wanted=(_TIME, Wanted("peak_mib", 150))),
            *_PEERS,
        ),
        place=servers.swallowing(),
        weight=1.8,
    ),
    Row(
        "save-s3-signed",
        "the same, payloads signed",
        (
            Variant("plain HTTP, 2 connections, not signed", _raw),
            Variant("Store.save", ours(signed=True), ours=True),
            Variant(
                "BytesIO, boto3 upload_fileobj",
                save_variant(boto_from_memory(signed=True)),
                needs=_BOTO,
                memory=2.5,
            ),
        ),
        place=servers.swallowing(),
        weight=0.6,
        quick=False,
    ),
    Row(
        "save-s3-tls",
        "the same over TLS, payloads not signed",
        (
            Variant("plain HTTPS, 2 connections", _raw),
            Variant("Store.save", ours(), ours=True),
            Variant(
                "BytesIO, boto3 upload_fileobj",
                save_variant(boto_from_memory()),
                needs=_BOTO,
                memory=2.5,
            ),
        ),
        place=servers.swallowing(tls=True),
        weight=0.6,
        quick=False,
    ),
)
