"""The storages that the contract is tested on, and a proxy that harms requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptstore import storage as storages
from ckptstore.testing import S3Proxy

KINDS = ["local", "memory", "moto", "rclone", "general folders", "general memory"]


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Callable[[str], storages.Storage]:
    """Give a function that connects to a folder of one place, on each kind of storage in turn."""
    from ckptstore.storage.general import GeneralStorage

    kind = request.param
    if kind == "local":
        root = request.getfixturevalue("tmp_path")
        return lambda folder: storages.connect(root / folder)
    if kind == "general folders":
        root: Path = request.getfixturevalue("tmp_path")
        (root / "shelf").mkdir()
        options = {"path": str(root), "target_protocol": "file"}
        return lambda folder: storages.connect(f"dir://shelf/{folder}", options)
    if kind in ("memory", "general memory"):
        url = request.getfixturevalue("memory_url")
        if kind == "memory":
            return lambda folder: storages.connect(f"{url}/{folder}")
        return lambda folder: GeneralStorage("memory", f"{url}/{folder}", {})
    server = request.getfixturevalue(f"{kind}_server")
    url = server.url()
    return lambda folder: storages.connect(f"{url}/{folder}", server.storage_options)


@pytest.fixture
def storage(connect: Callable[[str], storages.Storage]) -> storages.Storage:
    """Give an empty storage of each kind in turn, under a name that is hard to take literally."""
    return connect("run [a-z]* 100% #1 日本")


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[S3Proxy]:
    """Give a proxy in front of moto; through it, ckptstore gives up after four attempts."""
    server = request.getfixturevalue("moto_server")
    options = {**server.storage_options, "config_kwargs": {"retries": {"total_max_attempts": 4}}}
    with S3Proxy(server.endpoint, options) as standing:
        yield standing


@pytest.fixture
def through(proxy: S3Proxy, moto_server) -> storages.Storage:
    """Give a storage whose requests go through the proxy; it gives up after four attempts."""
    return storages.connect(moto_server.url("dante"), proxy.storage_options)
