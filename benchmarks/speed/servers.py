"""The servers that S3 is measured against, and what reaches them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.speed.files import bundle_files, files_to_load
from benchmarks.speed.rows import Job

__all__ = [
    "BUCKET",
    "boto",
    "connector",
    "feeding",
    "filesystem",
    "obstore_store",
    "rclone",
    "storage_options",
    "swallowing",
]

BUCKET = "bucket"
_KEY, _SECRET, _REGION = "key", "secret", "us-east-1"


def swallowing(*, tls: bool = False) -> Callable[[Job], AbstractContextManager[dict[str, Any]]]:
    """Return a place with a server that takes everything and keeps nothing."""

    @contextlib.contextmanager
    def place(job: Job) -> Iterator[dict[str, Any]]:
        from benchmarks.swallow import Swallowing

        with Swallowing(tls=tls) as server:
            yield _reached(server.url, _KEY, _SECRET, getattr(server, "certificate", None))

    return place


@contextlib.contextmanager
def feeding(job: Job) -> Iterator[dict[str, Any]]:
    """Give a place with a server that feeds files which lie in the page cache."""
    from benchmarks.swallow import Swallowing

    with files_to_load(job) as place:
        files: dict[str, str] = {}
        for size in ("files", "small"):
            made = place[size]
            files[f"{BUCKET}/{size}/torch.pt"] = made["torch"]
            for name, path in bundle_files(made["ckptstore"]).items():
                files[f"{BUCKET}/{size}/run/{name}"] = path
        with Swallowing(files) as server:
            yield {**place, **_reached(server.url, _KEY, _SECRET, None)}


@contextlib.contextmanager
def rclone(job: Job) -> Iterator[dict[str, Any]]:
    """Give a place with ``rclone serve s3``: real files, real signatures."""
    from ckptstore.testing.servers import start_server

    with tempfile.TemporaryDirectory(dir=job.folder, ignore_cleanup_errors=True) as name:
        server = start_server("rclone", Path(name))
        try:
            place = _reached(server.endpoint, server.key, server.secret, None)
            (Path(name) / "data" / BUCKET).mkdir()
            yield {**place, "data": str(Path(name) / "data" / BUCKET)}
        finally:
            server.stop()


def _reached(url: str, key: str, secret: str, certificate: str | None) -> dict[str, Any]:
    environ = {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_REGION": _REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    if certificate:
        environ["AWS_CA_BUNDLE"] = certificate
    return {"url": url, "environ": environ, "certificate": certificate}


def storage_options(place: Mapping[str, Any], *, signed: bool = False) -> dict[str, Any]:
    """Return what reaches the server by s3fs and ckptstore; credentials are in the environment.

    Args:
        place: what one of the places gave.
        signed: whether the SHA-256 of every payload is part of its signature.
    """
    inner = {"verify": place["certificate"]} if place["certificate"] else {}
    return {
        "endpoint_url": place["url"],
        "client_kwargs": {"region_name": _REGION, **inner},
        "config_kwargs": {
            "s3": {"payload_signing_enabled": signed, "addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "max_pool_connections": 32,
        },
    }


def boto(place: Mapping[str, Any], *, signed: bool = False) -> Any:
    """Return a boto3 client for the server."""
    import boto3
    from botocore.config import Config

    options = storage_options(place, signed=signed)
    return boto3.client(
        "s3",
        endpoint_url=place["url"],
        config=Config(signature_version="s3v4", **options["config_kwargs"]),
        **options["client_kwargs"],
    )


def filesystem(place: Mapping[str, Any], *, signed: bool = False) -> Any:
    """Return s3fs' filesystem for the server."""
    import s3fs

    return s3fs.S3FileSystem(
        **storage_options(place, signed=signed),
        skip_instance_cache=True,
        use_listings_cache=False,
    )


def obstore_store(place: Mapping[str, Any]) -> Any:
    """Return obstore's store for the bucket; it does not hash payloads."""
    from obstore.store import S3Store

    return S3Store(
        BUCKET,
        endpoint=place["url"],
        region=_REGION,
        access_key_id=place["environ"]["AWS_ACCESS_KEY_ID"],
        secret_access_key=place["environ"]["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        unsigned_payload=True,
        client_options={"allow_http": True},
    )


def connector(place: Mapping[str, Any]) -> Any:
    """Return the S3Checkpoint of AWS's connector."""
    from s3torchconnector import S3Checkpoint, S3ClientConfig

    config = S3ClientConfig(force_path_style=True)
    return S3Checkpoint(_REGION, endpoint=place["url"], s3client_config=config)
