"""What started this process, and where that says it stands among others."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LOOKS_EVERY", "Launched", "end_with_launcher"]

LOOKS_EVERY = 0.5
"""Seconds from one look whether the launcher is still there to the next."""


@dataclass(frozen=True)
class Launched:
    """The place of this process among those of its run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine.
        local_size: how many there are on this machine.
        by_torchrun: whether torchrun started it, and stays its parent as long as the run lasts.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    by_torchrun: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launched:
        """Return what torchrun, or whoever sets the same variables, says in the environment.

        Raises:
            ValueError: a variable is absent, or no number that it can be.
        """
        if environment.get("WORLD_SIZE", "1") == "1":
            return cls()
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if not environment.get(name):
                raise ValueError(
                    f"WORLD_SIZE is {environment['WORLD_SIZE']}, and {name} is not set; start the "
                    "ranks with torchrun, or unset WORLD_SIZE to train in one process"
                )
        size = _number(environment, "WORLD_SIZE", least=1)
        rank = _number(environment, "RANK", most=size - 1)
        # Who starts ranks by hand may leave these out: then all of them are on one machine.
        local_size = _number(environment, "LOCAL_WORLD_SIZE", size, least=1, most=size)
        local_rank = _number(environment, "LOCAL_RANK", rank % local_size, most=local_size - 1)
        return cls(rank, size, local_rank, local_size, "TORCHELASTIC_RUN_ID" in environment)


def _number(
    environment: Mapping[str, str],
    name: str,
    default: int | None = None,
    *,
    least: int = 0,
    most: int | None = None,
) -> int:
    text = environment.get(name, "" if default is None else str(default))
    found = int(text) if text.isascii() and text.isdigit() else -1
    if found < least or (most is not None and found > most):
        upto = "on" if most is None else f"to {most}"
        raise ValueError(f"{name} is {text!r} in the environment, not a number from {least} {upto}")
    return found


def end_with_launcher(launched: Launched) -> None:
    """End this process when torchrun, its parent, is gone: no rank trains on unseen.

    What is being saved then stays uncommitted, as after any death (G2): whoever begins the run
    again must not meet one that still writes.
    """
    if not launched.by_torchrun:
        return  # A shell may go while what it started is to stay.
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS_EVERY)
        if launched.local_rank == 0:
            line = "error: torchrun has ended, and its ranks with it; what was saved is whole"
            sys.stderr.write(f"{line}: give the same command again to go on from there\n")
            sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=look, name="launcher", daemon=True).start()
