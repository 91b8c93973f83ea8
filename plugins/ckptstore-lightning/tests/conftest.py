"""Where the tests train: on the local disk, in memory and in a bucket, each in turn."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptstore.testing.servers import NO_CONFIGURATION, S3Server, start_server

sys.path.insert(0, str(Path(__file__).parent))

# What Lightning says of every run as small as ours, and of itself.
_SAID_OF_SMALL_RUNS = (
    "ignore:The '.*_dataloader' does not have many workers:UserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create:UserWarning",
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in _SAID_OF_SMALL_RUNS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a moto server."""
    server = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _no_configuration_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "FSSPEC_", "CKPTSTORE_")):
            monkeypatch.delenv(name)
    for name, value in NO_CONFIGURATION.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give ``s3://BUCKET/run`` in a new bucket, which the environment says how to reach."""
    for name, value in moto_server.environ.items():
        monkeypatch.setenv(name, value)
    return moto_server.url("run")


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest) -> str:
    """Give an empty folder to save checkpoints in, on each kind of storage in turn."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path") / "run")
    if request.param == "s3":
        url: str = request.getfixturevalue("bucket")
        return url
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture(autouse=True)
def _nothing_left_in_memory() -> Iterator[None]:
    from fsspec.implementations.memory import MemoryFileSystem

    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def names() -> Any:
    """Give a function that lists a folder, as fsspec sees it now."""
    from fsspec.core import url_to_fs

    def look(url: str) -> list[str]:
        fs, key = url_to_fs(url)
        fs.invalidate_cache()
        found = fs.ls(key, detail=False) if fs.exists(key) else []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    return look


@pytest.fixture(scope="session")
def whole() -> dict[str, Any]:
    """Give the state after four epochs without a stop."""
    import tiny_training as tiny

    runner = tiny.trainer(None, epochs=4)
    tiny.fit(runner, tiny.module())
    return tiny.state_of(runner)
