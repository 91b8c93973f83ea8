"""Gives the worker that sends hostile checkpoints through commands and functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Attack = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """Give a function that runs a group of the corpus, and returns what came of each item."""
    root = tmp_path_factory.mktemp("attacks")
    with (root / "stderr").open("w") as stderr:
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker, worker.stdin as requests, worker.stdout as answers:
        assert answers.readline() == "ready\n", (root / "stderr").read_text()

        def attack(group: str) -> list[dict[str, Any]]:
            requests.write(f"short {group}\n")
            requests.flush()
            answer = answers.readline()
            assert answer, (root / "stderr").read_text()
            found: list[dict[str, Any]] = json.loads(answer)
            return found

        yield attack
