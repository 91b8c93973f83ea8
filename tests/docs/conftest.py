"""Where the examples of the documentation run: a folder with a checkpoint, and a bucket."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import tutorial
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
    """Give a folder with ``checkpoints/dante``, the tutorial's packages and the sample text.

    The bucket ``s3://bucket`` is there and empty.
    """
    folder = tmp_path / "work"
    shutil.copytree(ready_folder, folder)
    shutil.copy(ROOT / "gpt/inferno.txt", folder / "dante.txt")
    _empty_bucket(moto_server.client())
    for package in tutorial.write(folder):
        tutorial.install(package, tmp_path / "installed")
    return Place(folder, environ(tmp_path / "installed", moto_server.environ))


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
