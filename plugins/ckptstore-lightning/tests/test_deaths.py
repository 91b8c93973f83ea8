"""A process that dies in the middle of a save loses nothing but the steps since the last one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import torch

import ckptstore

HERE = Path(__file__).parent


def test_a_run_killed_in_a_save_goes_on_and_ends_as_one_that_was_not(tmp_path, bucket, names):
    deaths = {str(tmp_path / "run"): 6, bucket: 2}
    words = [str(word) for pair in deaths.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "killed_runs.py", str(tmp_path / "results"), *words],
        cwd=HERE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    for at, (folder, count) in enumerate(deaths.items()):
        last = ckptstore.open(f"{folder}/whole/last.ckpt")
        whole, moments = last.load_model(), last.load_optimizer()
        for number in range(count):
            state = torch.load(tmp_path / f"results/{at}/{number}.pt", weights_only=True)
            assert state["step"] == last.step
            assert all(torch.equal(state["model"][name], whole[name]) for name in whole)
            for key, values in moments["state"].items():
                found = state["optimizers"][0]["state"][key]
                assert all(torch.equal(found[name], values[name]) for name in values)
            there = names(f"{folder}/{number}")
            assert {"epoch=1.ckpt", "last.ckpt"} <= {*there}
            # What else Lightning lost sight of is a whole checkpoint or none, and no half of one.
            for name in there:
                with contextlib.suppress(ckptstore.NotFoundError):
                    assert ckptstore.open(f"{folder}/{number}/{name}").verify().sound
