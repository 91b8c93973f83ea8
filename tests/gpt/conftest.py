"""What the tests of the GPT share: the old file and its numbers, tiny models, the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from gpt.config import GPTConfig

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = {"batch_size": 4, "block_size": 16, "n_embd": 16, "n_head": 2, "n_layer": 2}
TINY_OPTIONS = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[str]"]
MakeConfig = Callable[..., GPTConfig]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep tiny models on one thread; exact equality is promised for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, as the examples of the documents do; caches included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def text() -> str:
    """Give the sample text that the old file was trained on."""
    return (FIXTURES / "inferno_1.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """Give the numbers that the old code computed from the old file."""
    return json.loads((FIXTURES / "legacy_char" / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def legacy_file(tmp_path: Path) -> Path:
    """Give the old file as ``checkpoints/dante/latest.pt``."""
    folder = tmp_path / "checkpoints" / "dante"
    folder.mkdir(parents=True)
    return Path(shutil.copy(FIXTURES / "legacy_char" / "latest.pt", folder / "latest.pt"))


@pytest.fixture
def legacy(legacy_file: Path) -> dict[str, Any]:
    """Give what the old file holds, to be changed and written again."""
    return torch.load(legacy_file, weights_only=True)


@pytest.fixture
def make_config() -> MakeConfig:
    """Give a function that makes a tiny config."""

    def make_config(**changes: Any) -> GPTConfig:
        return GPTConfig(**{**TINY, "vocab_size": 41, "device": "cpu", **changes})

    return make_config


@pytest.fixture
def run() -> Run:
    """Give a function that runs ``gpt`` in this process."""
    from gpt.__main__ import main

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Give a function that runs ``python`` with arguments as a process of its own."""

    def shell(
        *arguments: object, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    return shell
