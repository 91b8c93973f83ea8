"""Whole trainings of gpt in processes that are killed, or told to end, wherever it is asked for.

A program imports everything once, and trains in a fork of itself for each line that it reads, so
that hundreds of deaths do not cost hundreds of imports.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Ended", "Trainer"]

# A line says what to call the training, its options, before which operation of the storage it is
# killed (0: before none), and which signal it gets after which time (0: none).
_PROGRAM = """
import json, os, select, signal, sys
import torch
import gpt.checkpoint, gpt.data, gpt.fit, gpt.model, gpt.saver, gpt.train
from ckptstore import plugins
from ckptstore.testing.injection import inject
from gpt.__main__ import main

# What is imported late is imported once, before the forks.
plugins.formats(), plugins.tokenizers()
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.AdamW([weight]).step()

def train(name, options, operation):
    torch.set_num_threads(1)
    for number, file in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)

    def fault(found, perform):
        if found.number == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        return perform()

    with inject(fault) as seen:
        main(["train", "--model_name", name, *options], standalone_mode=False)
    os.write(told[1], str(len(seen.operations)).encode())

for line in sys.stdin:
    name, options, operation, number, after = json.loads(line)
    told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(name, options, operation)
            code = 0
        finally:
            os._exit(code)
    os.close(told[1])
    if number and not select.select([told[0]], [], [], after)[0]:
        os.kill(child, number)
    operations = os.read(told[0], 99)
    os.close(told[0])
    print(json.dumps([os.waitpid(child, 0)[1], int(operations or 0)]), flush=True)
"""
_SAVED = re.compile(r"^step +(\d+)(?: saved|/\d+: (?:.*, )?saved)$", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Attributes:
        code: its exit code; negative the signal that killed it.
        operations: how many operations of the storage it took, where it ended by itself.
        saved: the steps that it said were saved.
        said: what it printed.
        errors: what it printed on stderr.
    """

    code: int
    operations: int
    saved: tuple[int, ...]
    said: str
    errors: str


class Trainer:
    """The program, as long as the block lasts.

    Args:
        folder: where it works.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def train(
        self,
        name: str,
        options: list[str],
        *,
        operation: int = 0,
        signal: int = 0,
        after: float = 0.0,
    ) -> Ended:
        """Train, and return how that ended.

        Args:
            name: of the model.
            options: of ``gpt train``.
            operation: the number of the storage's operation before which it is killed.
            signal: which it gets.
            after: seconds until it does.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for file in ("stdout", "stderr"):
            (self.folder / file).write_text("")
        line: list[Any] = [name, options, operation, signal, after]
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        status, operations = json.loads(self._process.stdout.readline())
        said = (self.folder / "stdout").read_text()
        return Ended(
            code=os.waitstatus_to_exitcode(status),
            operations=operations,
            saved=tuple(int(step) for step in _SAVED.findall(said)),
            said=said,
            errors=(self.folder / "stderr").read_text(),
        )
