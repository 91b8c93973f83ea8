"""Runs trainings in processes of their own that have nothing behind them but the imports.

Each line on standard input is ``{"module": ..., "asked": {...}, "processes": ..., "log": ...}``;
the answer is the exit status, that of the first process that did not end with 0. To import
transformers takes longer than to train a tiny model, so it is done once, and then forked.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback
from typing import Any


def main() -> None:
    import accelerate
    import transformers

    # Loaded at their first use otherwise.
    wanted = ("GPT2LMHeadModel", "Trainer", "TrainingArguments")
    assert all(hasattr(transformers, name) for name in wanted)
    assert accelerate.Accelerator
    modules = {name: importlib.import_module(name) for name in ("train", "loop")}
    for line in sys.stdin:
        request = json.loads(line)
        print(run(modules[request["module"]].main, request), flush=True)  # noqa: T201


def run(main: Any, request: dict[str, Any]) -> int:
    count = request["processes"]
    more = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            if count > 1:
                os.environ.update(more, RANK=str(rank), LOCAL_RANK=str(rank))
            work(main, request)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return next((status for status in statuses if status), 0)


def work(main: Any, request: dict[str, Any]) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    try:
        main(request["asked"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
