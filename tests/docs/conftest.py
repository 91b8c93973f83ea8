"""Where the examples of the documentation run: a folder with a checkpoint, and a bucket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = (
    "gpt train --model_name dante --max_iters 20 --eval_interval 10 --eval_iters 2 --seed 1 "
    "--block_size 32 --n_embd 32 --n_head 2 --n_layer 2 --batch_size 4 --dropout 0.1"
)


@dataclass(frozen=True)
class Place:
    """A folder to run examples in, and the environment to run them with."""

    folder: Path
    environ: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program here; what it prints comes back in one piece."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=240,
        )


@pytest.fixture(scope="session")
def ready_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds ``checkpoints/dante``, trained for a moment; do not change it."""
    folder = tmp_path_factory.mktemp("ready")
    done = Place(folder, _environ(folder, {})).run("sh", "-c", TRAIN)
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
    return Place(folder, _environ(tmp_path / "installed", moto_server.environ))


def _environ(extra: Path, more: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return {
        **os.environ,
        **more,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(extra), str(ROOT)]),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONWARNINGS": "error",
        "OMP_NUM_THREADS": "1",
    }


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
