"""The rows: what is copied, in which order, and what each tool finds there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.sync.places import Place, differing, fresh_place
from benchmarks.sync.results import Found
from benchmarks.sync.running import Failed, Sample, run
from benchmarks.sync.states import TENSORS, Source
from benchmarks.sync.tools import OURS, Tool, environ
from benchmarks.sync.wire import Wire

__all__ = ["AGAIN", "CHANGED", "FIRST", "SECOND", "one_round"]

FIRST = "first copy"
SECOND = "nothing changed"
CHANGED = f"one tensor of {TENSORS} changed"
_SHARE = 0.6
AGAIN = f"killed at {_SHARE:.0%}, and again"


def one_round(found: Found, source: Source, tools: Sequence[Tool], folder: Path) -> None:
    """Have each tool do all rows of one direction, once.

    The tools take turns in each row, in an order by chance. Servers and folders are fresh.

    Args:
        found: gets what is measured.
        source: the checkpoint.
        tools: what copies.
        folder: on the disk that is measured.
    """
    with fresh_place(found.server, folder, signed=found.signed) as place:
        direction = _Direction(found, source, place)
        direction.show(changed=False)
        for tool in _shuffled(tools, found):
            direction.warm_up(tool)
        for row in (FIRST, SECOND, CHANGED):
            if row == CHANGED:
                direction.show(changed=True)
            for tool in _shuffled(tools, found):
                direction.measure(row, tool)
    with fresh_place(found.server, folder, signed=found.signed) as place:
        direction = _Direction(found, source, place)
        direction.show(changed=False)
        for tool in _shuffled(tools, found):
            direction.measure(AGAIN, tool)


def _shuffled(tools: Sequence[Tool], found: Found) -> Iterator[Tool]:
    order = [tool for tool in tools if tool.name not in found.left_out]
    for tool in random.sample(order, len(order)):
        if tool.name not in found.failed:
            yield tool


class _Direction:
    """Copies one way, in one place.

    Args:
        found: which way; gets what is measured.
        source: the checkpoint.
        place: where its copies are.
    """

    def __init__(self, found: Found, source: Source, place: Place) -> None:
        self._found = found
        self._source = source
        self._place = place

    def show(self, *, changed: bool) -> None:
        """Put the checkpoint in place, where the tools find it."""
        self._source.show(changed=changed)
        if not self._found.up:
            # It is written by who trains, not measured.
            self._run(OURS, str(self._source.path), self._place.location("source", remote=True))

    def warm_up(self, tool: Tool) -> None:
        """Copy a small one both ways, so that programs and their libraries have been read."""
        name = f"small-{tool.name.replace(' ', '-')}"
        remote = self._place.location(name, remote=True)
        try:
            self._run(tool, str(self._source.small), remote)
            self._run(tool, remote, self._place.location(name, remote=False))
        except Failed as reason:
            self._found.failed[tool.name] = str(reason)

    def measure(self, row: str, tool: Tool) -> None:
        """Have a tool copy, and look at what is there afterwards."""
        name = tool.name.replace(" ", "-")
        destination = self._place.location(name, remote=self._found.up)
        origin = str(self._source.path)
        if not self._found.up:
            origin = self._place.location("source", remote=True)
        try:
            if row == AGAIN:
                share = int(_SHARE * self._source.nbytes())
                before = self._run(tool, origin, destination, limit=share)
                self._found.killed.setdefault(tool.name, []).append(before)
            sample = self._run(tool, origin, destination)
        except Failed as reason:
            self._found.failed[tool.name] = f"{row}: {reason}"
            return
        wrong = differing(self._source.files(), destination, self._place.server)
        self._found.add(row, tool.name, sample.judged(wrong))

    def _run(
        self, tool: Tool, origin: str, destination: str, *, limit: int | None = None
    ) -> Sample:
        # What one tool left to be written to the disk is not paid for by the next.
        os.sync()
        server = self._place.server
        with Wire(server.endpoint, limit) as wire:
            variables = environ(server, wire.url, self._place.config)
            return run(tool.command(origin, destination), variables, wire)
