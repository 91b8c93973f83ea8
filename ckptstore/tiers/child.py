"""What runs in the process that uploads: it ends with the program, and the journal stays."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from ckptstore import storage
from ckptstore.background.child import Passing, end_with, sendable
from ckptstore.errors import CkptstoreError
from ckptstore.storage.base import Elsewhere, Storage
from ckptstore.tiers.uploader import Heard, Plan, Told, Uploader

__all__ = ["Task", "main"]

_NICE = 10


@dataclass(frozen=True)
class Task:
    """What the process is for.

    Attributes:
        local, tier: how both are reached; secrets among it.
        local_shown, tier_shown: what to call them.
        plan: how it is done.
        level: from which level on the program wants to hear what is logged.
    """

    local: Elsewhere
    local_shown: str
    tier: Elsewhere
    tier_shown: str
    plan: Plan
    level: int


def main(descriptor: int, parent: int) -> None:
    """Do what is asked through a socket, until it is closed or the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    os.nice(_NICE)
    code = 1
    try:
        _run(Connection(descriptor))
        code = 0
    except (EOFError, OSError):
        pass  # The program is gone, or has forgotten this process.
    finally:
        os._exit(code)


def _run(connection: Connection) -> None:
    task = connection.recv()
    logger = logging.getLogger("ckptstore")
    logger.addHandler(Passing(connection.send))
    logger.propagate = False
    logger.setLevel(task.level)

    def tell(told: Told) -> None:
        error = told.last_error
        if error is not None:
            sent = sendable(error)
            told = replace(told, last_error=sent if isinstance(sent, CkptstoreError) else None)
        connection.send(told)

    def pause(seconds: float) -> Heard:
        heard: Heard = None
        while connection.poll(0 if heard is not None else seconds):
            said = connection.recv()
            # Who waits counts for more than what was saved; whoever asked last stands for all.
            heard = said if heard is None or said != "look" else heard
            if heard == "end":
                break
        return heard

    local, tier = _connected(task.local, task.local_shown), _connected(task.tier, task.tier_shown)
    Uploader(local, tier, task.plan, tell, pause).run()


def _connected(where: Elsewhere, shown: str) -> Storage:
    place = storage.connect(where.location, where.options)
    with contextlib.suppress(AttributeError):
        place.location = shown
    return place
