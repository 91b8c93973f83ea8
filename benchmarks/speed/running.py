"""Runs the rounds of a row: every variant once in each, in random order, in a fresh process.

As many processes as there are cores make themselves ready at once, since importing takes longer
than what is measured; the work itself is done by one at a time, while the others wait.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.processes import Failed, Process, shared_memory
from benchmarks.speed.results import Found
from benchmarks.speed.rows import MIB, SMALL, Job, LeftOut, Row, Variant

__all__ = ["run"]


def run(
    row: Row, *, mib: int, rounds: int, seconds: float, folder: Path, quick: bool = False
) -> Found:
    """Measure a row.

    Args:
        row: which.
        mib: how much each variant saves or loads.
        rounds: at most so many.
        seconds: no further round begins that would end later; one is always done. Where the time
            is too short for all variants, it goes to the limit and ckptstore's.
        folder: on the disk that is measured.
        quick: leave out the variants that the quick mode has not.

    Returns:
        What was measured, and what was not, with the reasons.
    """
    found = Found(row, mib * MIB)
    variants = []
    for variant in row.variants:
        reason = variant.missing()
        if quick and not variant.quick:
            found.left_out[variant.name] = "the quick mode has it not"
        elif reason:
            found.left_out[variant.name] = reason
        else:
            variants.append(variant)
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        memory = ""
        if row.state:
            memory = stack.enter_context(shared_memory(_room(mib), folder))
        job = Job(mib * MIB, folder, memory=memory)
        try:
            place = stack.enter_context(row.place(job))
        except (LeftOut, ImportError) as reason:
            found.reason = str(reason)
            return found
        _rounds(found, variants, replace(job, place=place), rounds, end)
    return found


def _room(mib: int) -> int:
    return max(mib * MIB, SMALL) * 33 // 32


def _rounds(found: Found, variants: Sequence[Variant], job: Job, rounds: int, end: float) -> None:
    each = 0.0  # Seconds that a variant takes, by the slowest round so far.
    for number in range(rounds):
        order = [v for v in variants if v.name not in {*found.left_out, *found.failed}]
        left = end - time.monotonic()
        if number and left < each * len(order):
            order = [v for v in order if v.name in _needed(found.row)]
            if left < each * len(order):
                return
        if not order:
            return
        random.shuffle(order)
        began = time.monotonic()
        at_once = os.cpu_count() or 1
        for first in range(0, len(order), at_once):
            _batch(found, order[first : first + at_once], job, number)
        took = time.monotonic() - began
        each = max(each, took / len(order))
        _tell(f"{found.row.name}: round {number + 1} of at most {rounds}, {took:.0f} s")


def _needed(row: Row) -> set[str | None]:
    """Return the variants that what is wanted depends on; they go on where time is short."""
    ours = {variant.name for variant in row.variants if variant.ours}
    against = {wanted.against for variant in row.variants for wanted in variant.wanted}
    return {row.limit, *ours, *against}


def _batch(found: Found, variants: Sequence[Variant], job: Job, number: int) -> None:
    environ = job.place.get("environ")
    with contextlib.ExitStack() as stack:
        started = [
            (variant, stack.enter_context(Process(found.row.name, variant.name, job, environ)))
            for variant in variants
        ]
        ready = []
        for variant, process in started:
            with _noting(found, variant):
                process.wait()
                ready.append((variant, process))
        for variant, process in ready:
            with _noting(found, variant):
                sample = process.measure()
                found.samples.setdefault(variant.name, {})[number] = sample
            process.end()


@contextlib.contextmanager
def _noting(found: Found, variant: Variant) -> Iterator[None]:
    try:
        yield
    except LeftOut as reason:
        found.left_out[variant.name] = str(reason)
    except Failed as failure:
        found.failed[variant.name] = str(failure)
        _tell(f"{found.row.name}: {variant.name} failed: {failure}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
