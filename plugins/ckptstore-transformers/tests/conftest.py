"""Trainings of a tiny GPT-2 in processes of their own, and a server to save to."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptstore.testing.servers import NO_CONFIGURATION, S3Server, start_server

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _no_configuration_of_the_user() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "FSSPEC_", "CKPTSTORE_", "HF_")):
                patch.delenv(name)
        for name, value in {**NO_CONFIGURATION, "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a moto server."""
    server = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., int]]:
    """Give a function that runs ``train`` or ``loop`` in a process of its own, or in several.

    It returns 0, or what says that a process was killed.
    """
    folder = tmp_path_factory.mktemp("logs")
    with subprocess.Popen(
        [sys.executable, str(HERE / "zygote.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        count = itertools.count()

        def run(module: str, *, processes: int = 1, **asked: Any) -> int:
            log = folder / f"{next(count)}.log"
            request = {"module": module, "asked": asked, "processes": processes, "log": log}
            print(json.dumps(request, default=str), file=zygote.stdin, flush=True)
            status = int(zygote.stdout.readline())
            assert status in (0, -signal.SIGKILL), log.read_text("utf-8")
            return status

        yield run


@pytest.fixture(scope="session")
def train(run: Callable[..., int]) -> Callable[..., int]:
    """Give a function that trains a tiny GPT-2 by the Trainer."""
    return functools.partial(run, "train")


@pytest.fixture(scope="session")
def whole(train: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the output of a training that nobody stopped, without a store; do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(output_dir=folder) == 0
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Give a checkpoint-4 that the Trainer wrote."""
    return Path(shutil.copytree(whole / "checkpoint-4", tmp_path / "checkpoint-4"))
