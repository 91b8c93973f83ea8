"""Looking at a checkpoint on S3: how many requests, and how many bytes, `inspect` needs."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Callable

from benchmarks.speed import servers
from benchmarks.speed.counting import Counting
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]


def _bundle(job: Job) -> str:
    """Save a bundle into the bucket, and return where: one that was put there looks replaced."""
    import ckptstore

    location = f"s3://{servers.BUCKET}/{uuid.uuid4().hex}"
    made = job.place["small" if job.small else "files"]["ckptstore"]
    ckptstore.sync(made, location, storage_options=servers.storage_options(job.place, signed=False))
    return location


def _legacy(job: Job) -> str:
    return f"s3://{servers.BUCKET}/{'small' if job.small else 'files'}/torch.pt"


def _inspect(locate: Callable[[Job], str]) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        from ckptstore.cli import main

        location = locate(job)

        def inspect() -> dict[str, float]:
            with Counting(job.place["url"]) as counting:
                os.environ["AWS_ENDPOINT_URL"] = counting.url
                with contextlib.redirect_stdout(io.StringIO()):
                    main.main(["inspect", location, "--json"], standalone_mode=False)
                return {"requests": counting.requests, "kib": counting.received / 1024}

        return Timed(inspect)

    return prepare


_WANTED = (Wanted("requests", 6), Wanted("kib", 256))

ROWS = (
    Row(
        "inspect",
        "ckptstore inspect of a checkpoint on S3",
        (
            Variant("of a bundle", _inspect(_bundle), ours=True, wanted=_WANTED),
            Variant("of a legacy file", _inspect(_legacy), ours=True, wanted=_WANTED),
        ),
        mib=500,
        has_limit=False,
        place=servers.feeding,
        warm=False,
        weight=0.2,
    ),
)
