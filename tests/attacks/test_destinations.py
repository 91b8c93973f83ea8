"""G5: a checkpoint whose author chose the names of its files replaces nobody's file by `sync`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ckptstore


@pytest.mark.parametrize("name", ["setup.py", "latest.pt", ".bashrc"])
def test_a_file_that_is_no_checkpoints_is_not_replaced(tmp_path: Path, name: str) -> None:
    source, mine = tmp_path / "source", tmp_path / "mine"
    ckptstore.save(source, model={"w": torch.ones(2)}, state={"extra": {"a": 1}})
    path = source / ".ckptstore/00000001/manifest.json"
    raw = json.loads(path.read_text())
    del raw["sha256"]
    raw["files"][name] = raw["files"]["extra.pt"]
    path.write_text(json.dumps(raw))
    mine.mkdir()
    (mine / name).write_text("mine")

    with pytest.raises(ckptstore.ConflictError, match=f"has a file '{name}' that is no checkpoint"):
        ckptstore.sync(source, mine)

    assert [(path.name, path.read_text()) for path in mine.iterdir()] == [(name, "mine")]
