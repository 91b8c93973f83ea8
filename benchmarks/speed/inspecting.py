"""Looking at a checkpoint on S3: how many requests, and how many bytes, `inspect` needs."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable

from benchmarks.speed import servers
from benchmarks.speed.counting import Counting
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]


def _inspect(name: str) -> Callable[[Job], Timed]:
    def prepare(job: Job) -> Timed:
        from ckptstore.cli import main

        location = f"s3://{servers.BUCKET}/{'small' if job.small else 'files'}/{name}"

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
            Variant("of a bundle", _inspect("run"), ours=True, wanted=_WANTED),
            Variant("of a legacy file", _inspect("torch.pt"), ours=True, wanted=_WANTED),
        ),
        mib=500,
        has_limit=False,
        place=servers.feeding,
        warm=False,
        weight=0.2,
    ),
)
