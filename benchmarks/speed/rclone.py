"""Saving to ``rclone serve s3``: real files and real signatures, so the server's time counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from typing import Any

from benchmarks.speed import raw, servers
from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted
from benchmarks.speed.s3_saves import (
    boto_from_memory,
    key,
    obstore_put,
    ours,
    save_variant,
    torch_into_fsspec,
)

__all__ = ["ROWS"]


def _raw(job: Job) -> Timed:
    """Send parts to URLs that were signed beforehand, as plainly as to the other server."""
    from benchmarks.speed.states import whole

    data, client = whole(job), servers.boto(job.place)
    target = {"Bucket": servers.BUCKET, "Key": key()}
    upload = client.create_multipart_upload(**target)["UploadId"]
    urls = [
        client.generate_presigned_url(
            "upload_part", {**target, "UploadId": upload, "PartNumber": number}
        )
        for number in range(1, -(-len(data) // raw.PART) + 1)
    ]

    def save() -> None:
        tags = raw.put_parts(urls, data)
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
        client.complete_multipart_upload(
            **target, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    return Timed(save)


def _dcp(state: Any, job: Job) -> Callable[[], object]:
    import torch.distributed.checkpoint as dcp

    # The filesystem finds endpoint and credentials in the environment.
    place = f"s3://{servers.BUCKET}/{key()}"
    return lambda: dcp.save(state, checkpoint_id=place, no_dist=True)


def _copyto(state: Any, job: Job) -> Callable[[], object]:
    """Save to a file, and have rclone copy that."""
    import torch

    scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    program = shutil.which("rclone", path=scripts) or "rclone"
    path = str(job.folder / "staged.pt")
    remote = f":s3,provider=Rclone,env_auth=true,endpoint='{job.place['url']}':"

    def save() -> None:
        torch.save(state, path)
        command = [program, "copyto", path, f"{remote}{servers.BUCKET}/{key()}", "--config", ""]
        subprocess.run([*command, "--s3-no-check-bucket"], check=True, capture_output=True)

    return save


ROWS = (
    Row(
        "save-rclone",
        "save to rclone serve s3, into a history",
        (
            Variant("plain HTTP, signed URLs, 2 connections", _raw, needs={"boto3": "boto3"}),
            Variant("Store.save", ours(), ours=True, wanted=(Wanted("time", 1.15),)),
            Variant("torch.save into fsspec", save_variant(torch_into_fsspec)),
            Variant("DCP over fsspec", save_variant(_dcp), quick=False),
            Variant(
                "BytesIO, boto3 upload_fileobj",
                save_variant(boto_from_memory()),
                needs={"boto3": "boto3"},
            ),
            Variant(
                "torch.save to disk, rclone copyto",
                save_variant(_copyto),
                quick=False,
            ),
            Variant(
                "BytesIO, obstore put",
                save_variant(obstore_put),
                needs={"obstore": "obstore"},
                quick=False,
            ),
        ),
        mib=150,
        place=servers.rclone,
        weight=0.6,
    ),
)
