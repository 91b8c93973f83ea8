"""The loop of docs/training.md resumes exactly, as it stands on the page, however it is killed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import ckptstore
from tests.docs.places import ROOT, Place

STEPS = 40
LOCATION = '"checkpoints/mine"'

# Runs a script, and dies for real before an operation of the storage, or before a step's loss.
KILLER = """
import os, signal, sys
from pathlib import Path

import torch

from ckptstore.testing import inject

script, name, path, count, step = sys.argv[1:]
left = {"operations": int(count), "steps": int(step)}


def count_down(what):
    left[what] -= 1
    if left[what] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def fault(operation, perform):
    if operation.name == name and path in operation.path:
        count_down("operations")
    return perform()


def loss(*arguments, real=torch.nn.functional.mse_loss):
    count_down("steps")
    return real(*arguments)


torch.nn.functional.mse_loss = loss
with inject(fault):
    exec(compile(Path(script).read_text("utf-8"), script, "exec"), {"__name__": "__main__"})
"""

# Operation, path, how many of these may pass, steps that may pass; and the steps that it leaves.
KILLS = [
    ("write", "step-00000010/model.pt", 1, 0, ()),
    ("create", "step-00000010/manifest.json", 1, 0, ()),
    ("", "", 0, 17, (10,)),
    ("finish", "step-00000020/ema", 1, 0, (10,)),
    ("delete", "step-00000010/", 1, 0, (10, 20, 30, 40)),
]


def loop() -> str:
    """Return the two fences of the section with the loop."""
    page = (ROOT / "docs/training.md").read_text("utf-8")
    section = re.search(r"^## The loop$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    fences = re.findall(r"^```python\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert len(fences) == 2
    return "\n".join(fences)


def files_of(location: str, options: object) -> dict[str, str | None]:
    """Return the digest of every file of the last step; equal states give equal bytes."""
    checkpoint = ckptstore.open(location, storage_options=options)
    assert checkpoint.step == STEPS
    return {name: info.sha256 for name, info in checkpoint.files().items()}


@pytest.fixture
def run(place: Place, python: str, tmp_path: Path):
    """Give a function that runs the loop at a location, killed or not."""

    def run(location: str, *kill: object) -> int:
        script, killer = tmp_path / "loop.py", tmp_path / "killer.py"
        script.write_text(loop().replace(LOCATION, repr(location)), "utf-8")
        killer.write_text(KILLER, "utf-8")
        words = [str(killer), str(script), *map(str, kill)] if kill else [str(script)]
        done = place.run(python, *words)
        assert done.returncode in (0, -signal.SIGKILL), done.stdout
        return done.returncode

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("storage", "kills"), [("local", KILLS[::2]), ("s3", KILLS[1:2])])
def test_the_loop_of_the_page_ends_as_one_that_nobody_killed(
    run, place, moto_server, storage, kills
):
    there = str(place.folder) if storage == "local" else "s3://bucket"
    options = None if storage == "local" else moto_server.storage_options
    killed, whole = f"{there}/killed", f"{there}/whole"

    for *kill, left in kills:
        assert run(killed, *kill) == -signal.SIGKILL, kill
        store = ckptstore.Store(killed, storage_options=options)
        assert store.steps() == left, kill
    assert run(killed) == 0
    assert run(whole) == 0

    assert len(files_of(whole, options)) == 8
    assert files_of(killed, options) == files_of(whole, options)
