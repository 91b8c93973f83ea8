"""Saving to a local disk, until it survives a loss of power, and until the page cache has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import raw
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_SAFETENSORS = {"safetensors": "safetensors"}


def _raw(durable: bool) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        from benchmarks.speed.states import whole

        data = whole(job)
        return Timed(lambda: raw.write(job.folder / "raw", data, durable=durable), os.sync)

    return prepare


def _ours(durable: bool) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import ckptstore
        from benchmarks.speed.states import checkpoint

        state, place = checkpoint(job), job.folder / "ckptstore"
        return Timed(lambda: ckptstore.save(place, **state, step=1, durable=durable), os.sync)

    return prepare


def _torch(durable: bool) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import torch

        from benchmarks.speed.states import checkpoint

        state, path = checkpoint(job), job.folder / "torch.pt"
        return Timed(lambda: _synced(path, lambda: torch.save(state, path), durable), os.sync)

    return prepare


def _safetensors(durable: bool) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        from safetensors.torch import save_file

        from benchmarks.speed.states import checkpoint, levelled

        state, path = levelled(checkpoint(job)), job.folder / "all.safetensors"
        return Timed(lambda: _synced(path, lambda: save_file(state, path), durable), os.sync)

    return prepare


def _dcp(durable: bool) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        import torch.distributed.checkpoint as dcp

        from benchmarks.speed.states import checkpoint

        state, place = checkpoint(job), job.folder / "dcp"

        def save() -> None:
            writer = dcp.FileSystemWriter(place, sync_files=durable)
            dcp.save(state, storage_writer=writer, no_dist=True)

        return Timed(save, os.sync)

    return prepare


def _synced(path: Path, save: Callable[[], Any], durable: bool) -> None:
    """Save, and see to it that the file stays, as its makers leave to the caller."""
    save()
    if durable:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        raw.sync_folder(path.parent)


ROWS = (
    Row(
        "save-disk",
        "save to a local disk, with fsync",
        (
            Variant("write and fsync", _raw(True)),
            Variant("ckptstore.save", _ours(True), ours=True, wanted=(Wanted("time", 1.3),)),
            Variant("torch.save and fsync", _torch(True)),
            Variant("safetensors and fsync", _safetensors(True), needs=_SAFETENSORS),
            Variant("DCP", _dcp(True), quick=False),
        ),
        written=1.25,
    ),
    Row(
        "save-cache",
        "save to a local disk, into the page cache only",
        (
            Variant("write", _raw(False)),
            Variant(
                "ckptstore.save, durable=False",
                _ours(False),
                ours=True,
                wanted=(Wanted("time", 1.5),),
            ),
            Variant("torch.save", _torch(False)),
            Variant("safetensors", _safetensors(False), needs=_SAFETENSORS),
            Variant("DCP, sync_files=False", _dcp(False), quick=False),
        ),
        written=1.25,
    ),
)
