"""Folders that torch.distributed.checkpoint writes, and folders that it never would."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint.filesystem import _StorageInfo

from ckptstore.testing.servers import NO_CONFIGURATION, S3Server, start_server

Chunks = Sequence[tuple[Sequence[int], torch.Tensor]]


def pytest_configure(config: pytest.Config) -> None:
    """Let torch save without a process group, of which it warns each time."""
    config.addinivalue_line("filterwarnings", "ignore:torch.distributed is disabled:UserWarning")


def save(state: Mapping[str, Any], folder: Path, **options: Any) -> Path:
    """Have torch save a state dict in one process."""
    writer = dcp.FileSystemWriter(folder, sync_files=False, **options)
    dcp.save(dict(state), storage_writer=writer, no_dist=True)
    return folder


def metadata_of(folder: Path) -> Any:
    """Return torch's own object out of a folder that these tests wrote."""
    with open(folder / ".metadata", "rb") as file:
        return pickle.load(file)


def write_metadata(folder: Path, value: Any, protocol: int | None = None) -> None:
    """Put an object in the place of a folder's metadata."""
    with open(folder / ".metadata", "wb") as file:
        pickle.dump(value, file, protocol)


def craft(folder: Path, tensors: Mapping[str, tuple[Sequence[int], Chunks]]) -> Path:
    """Write tensors in chunks of any shape, each name with its whole shape and its chunks."""
    folder.mkdir()
    entries: dict[str, Any] = {}
    where: dict[Any, Any] = {}
    data = io.BytesIO()
    for name, (shape, chunks) in tensors.items():
        boxes = []
        for offsets, chunk in chunks:
            start = data.tell()
            stream = io.BytesIO()
            torch.save(chunk, stream)
            data.write(stream.getvalue())
            boxes.append(described.ChunkStorageMetadata(torch.Size(offsets), chunk.shape))
            index = described.MetadataIndex(name, offsets)
            where[index] = _StorageInfo("__0_0.distcp", start, len(stream.getvalue()))
        properties = described.TensorProperties(chunks[0][1].dtype)
        entries[name] = described.TensorStorageMetadata(properties, torch.Size(shape), boxes)
    (folder / "__0_0.distcp").write_bytes(data.getvalue())
    paths = {name: tuple(name.split(".", 1)) for name in tensors}
    write_metadata(folder, described.Metadata(entries, paths, where))
    return folder


def same_values(one: Any, other: Any) -> bool:
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_values(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same_values, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Give the function that compares nested values, tensors bit for bit."""
    return same_values


@pytest.fixture
def saved() -> Callable[..., Path]:
    """Give the function that has torch save a state dict in a folder."""
    return save


@pytest.fixture
def crafted() -> Callable[..., Path]:
    """Give the function that writes tensors in chunks of any shape."""
    return craft


@pytest.fixture
def altered() -> Callable[[Path, Callable[[Any], Any]], None]:
    """Give a function that changes the metadata object of a folder."""

    def alter(folder: Path, change: Callable[[Any], Any]) -> None:
        value = metadata_of(folder)
        write_metadata(folder, change(value) or value)

    return alter


@pytest.fixture
def state() -> dict[str, Any]:
    """Give a state dict as trainings save it: a model, its optimizer, and more."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": 3, "_last_lr": [0.01], "nested": {"factors": [1, 2]}},
        "rng": {"torch": torch.get_rng_state(), "list": [torch.ones(2), {"a": torch.zeros(1)}]},
        "step": 1500,
        "loss": 2.5,
        "config": {"n_layer": 2, "nested": {"names": ["a", None]}},
    }


@pytest.fixture
def folder(tmp_path: Path, state: dict[str, Any]) -> Path:
    """Give a folder that holds that state dict."""
    return save(state, tmp_path / "step-1500")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what two processes saved together: sharded tensors, and a model under FSDP2."""
    folder = tmp_path_factory.mktemp("two ranks")
    script = str(Path(__file__).parent / "two_ranks.py")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = subprocess.run(
        [sys.executable, *launch, script, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give an S3 server on loopback."""
    started = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield started
    started.stop()


@pytest.fixture
def uploaded(server: S3Server) -> Callable[[Path], str]:
    """Give a function that copies a folder into a new bucket, and returns its URL."""

    def upload(folder: Path) -> str:
        url = server.url("saved/dcp")
        bucket, _, name = url.removeprefix("s3://").partition("/")
        client = server.client()
        for path in folder.iterdir():
            client.upload_file(str(path), bucket, f"{name}/{path.name}")
        client.close()
        return url

    return upload


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_CONFIGURATION.items():
        monkeypatch.setenv(name, value)
