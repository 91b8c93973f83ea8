"""Where the examples of the documentation run: a folder with a checkpoint, and a bucket."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.places import ROOT, TRAIN, Place, environ


@pytest.fixture(scope="session")
def ready_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds ``checkpoints/dante``, trained for a moment; do not change it."""
    folder = tmp_path_factory.mktemp("ready")
    done = Place(folder, environ(folder, {})).run("sh", "-c", TRAIN)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def place(ready_folder: Path, tmp_path: Path, moto_server: Any) -> Place:
    """Give a folder with ``checkpoints/dante``, the tutorial's package and the sample text.

    The bucket ``s3://bucket`` is there and empty.
    """
    folder = tmp_path / "work"
    shutil.copytree(ready_folder, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins/ckptstore-bytes", folder / "ckptstore-bytes", ignore=ignore)
    shutil.copy(ROOT / "gpt/inferno.txt", folder / "dante.txt")
    _empty_bucket(moto_server.client())
    _install(folder / "ckptstore-bytes", tmp_path / "installed")
    return Place(folder, environ(tmp_path / "installed", moto_server.environ))


def _install(package: Path, target: Path) -> None:
    """Do what ``pip install`` does to a package of one module, as far as plugins see it."""
    target.mkdir()
    shutil.copy(package / "ckptstore_bytes.py", target)
    info = target / "ckptstore_bytes-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckptstore-bytes\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[ckptstore]\nbytes = ckptstore_bytes\n")


def _empty_bucket(client: Any) -> None:
    names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    if "bucket" not in names:
        client.create_bucket(Bucket="bucket")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for row in page.get("Contents", ()):
            client.delete_object(Bucket="bucket", Key=row["Key"])
    client.close()


@pytest.fixture
def python() -> str:
    """Give the Python that runs the tests."""
    return sys.executable
