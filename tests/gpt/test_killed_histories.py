"""G8 in histories: killed anywhere, and gone on with, a training ends as one that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore

# Trains in a fork of a program that has imported everything, once for each line that it reads:
# a name, the operation of the storage before which SIGKILL comes (0: never), and the steps in
# all. It answers with how the fork ended, and how many operations there were.
TRAININGS = """
import json, os, signal, sys
import torch
import gpt.checkpoint, gpt.data, gpt.fit, gpt.model, gpt.saver, gpt.train
from ckptstore.testing.injection import inject
from ckptstore import plugins
from gpt.__main__ import main

# What is imported late is imported once, before the forks.
plugins.formats(), plugins.tokenizers()
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.AdamW([weight]).step()

def train(name, die_at, last, options):
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def fault(operation, perform):
        if operation.number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return perform()

    with inject(fault) as seen:
        main(["train", "--model_name", name, "--max_iters", str(last), *options],
             standalone_mode=False)
    os.write(told[1], str(len(seen.operations)).encode())

for line in sys.stdin:
    told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(*json.loads(line))
            code = 0
        finally:
            os._exit(code)
    os.close(told[1])
    operations = os.read(told[0], 99)
    os.close(told[0])
    print(json.dumps([os.waitpid(child, 0)[1], int(operations or 0)]), flush=True)
"""
QUICK = ["--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 2, "--n_layer", 1,
         "--dropout", 0.2, "--eval_iters", 1, "--seed", 1, "--device", "cpu"]  # fmt: skip
HISTORY = ["--eval_interval", 4, "--save_interval", 3, "--keep_last", 2, "--keep_best"]
LAST = 14
KILLED = 9
TRIALS = 3


def _state(name: str) -> list[Any]:
    checkpoint = ckptstore.open(f"checkpoints/{name}")
    assert checkpoint.verify().sound
    assert checkpoint.step == LAST
    rows = [{**row, "time": None} for row in checkpoint.load_metrics_log()]
    return [checkpoint.load_model(), checkpoint.load_optimizer(), checkpoint.load_state("rng"),
            rows]  # fmt: skip


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("more", [[], ["--async_saves", "--keep_every", 6]], ids=["sync", "async"])
def test_killed_anywhere_and_killed_again_it_ends_as_one_that_was_not(
    started: Callable[..., Callable[..., Any]], more: list[object]
) -> None:
    options = [str(part) for part in (*QUICK, *HISTORY, *more)]
    train = started()
    status, operations = train("whole", 0, LAST, options)
    assert status == 0
    whole = _state("whole")
    choose = random.Random(str(more))

    for trial in range(TRIALS):
        name = f"trial-{trial}"
        for die_at in choose.sample(range(1, operations), 2):
            assert train(name, die_at, LAST, options)[0] in (0, KILLED)
        assert train(name, 0, LAST, options)[0] == 0
        assert _equal(whole, _state(name)), (trial, more)


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """Give a function that starts the program, and returns what has it train."""
    processes = []

    def started() -> Callable[..., Any]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TRAININGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        processes.append(process)

        def train(*line: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        return train

    yield started
    for process in processes:
        process.communicate()
