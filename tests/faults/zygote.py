"""A process that has torch imported and one thread, and forks others that run a function each.

A test process may have threads, which a fork would leave behind with their locks held; this one
has none. It is asked by lines of JSON, and answers by lines of JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.deaths import Result, forked

__all__ = ["Zygote"]

_ROOT = Path(__file__).parents[2]


class Zygote:
    """Starts the process, and asks it; a context manager that ends it."""

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def run(self, module: str, function: str, *args: Any, **options: Any) -> Result:
        """Run a function of a module in a process of its own; return what it found."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([module, function, args, options]) + "\n")
        self._process.stdin.flush()
        status, told = json.loads(self._process.stdout.readline())
        assert status == 0, told
        return Result.loaded(told)


def serve() -> None:
    """Answer until nobody asks any more."""
    for line in sys.stdin:
        module, function, args, options = json.loads(line)

        def run(
            module: str = module, function: str = function, args: Any = args, options: Any = options
        ) -> str:
            result = getattr(importlib.import_module(module), function)(*args, **options)
            return str(result.dumped())

        print(json.dumps(forked(run)), flush=True)


if __name__ == "__main__":
    importlib.import_module("tests.faults.outages")  # And torch with it, for all.
    serve()
