"""What has to be true of every action on every hostile checkpoint, for tests and for counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["faults"]

MEMORY = 300 * 2**20
SECONDS = 5.0  # of computing, for one action
LONGEST = 5000  # letters in an error
CODES = frozenset({0, 1, 2, 3, 4, 5, 6})
# What they print may be a report that goes on: those names that would go, and what is damaged.
_REPORTS = ("verify", "doctor", "rm unasked", "gpt inspect")
# They refuse for reasons of their own as well: no text, no tokenizer, another architecture.
_GPT = ("gpt", "GPT", "load_for_inference", "initialize_for_training", "restore")


def faults(outcome: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong in the outcome of one item, a line each."""
    item = outcome["item"]
    if outcome["memory"] is None:
        last = outcome["actions"][-1]["action"] if outcome["actions"] else "nothing"
        yield f"{item}: the process did not survive what comes after {last}"
    elif outcome["memory"] > MEMORY:
        yield f"{item}: took {outcome['memory'] >> 20} MiB"
    for done in outcome["actions"]:
        for fault in _of(done, outcome):
            yield f"{item}: {done['action']}: {fault}"


def _of(done: dict[str, Any], outcome: dict[str, Any]) -> Iterator[str]:
    name, code, said = done["action"], done["code"], done["said"]
    yield from done["faults"]
    if code not in CODES:
        yield f"ended with {code}: {said[:300]}"
        return
    if done["seconds"] > SECONDS:
        yield f"took {done['seconds']} s"
    if set(done["reads"]) & set(outcome["touches"]):
        own = code != 0 and name.startswith(_GPT)
        if code not in outcome["codes"] and not own:
            yield f"ended with {code}, not with one of {outcome['codes']}: {said[:300]}"
    lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
    if code and len(lines) != 1 and not name.startswith(_REPORTS):
        yield f"said {len(lines)} lines: {lines[:3]}"
    if len(said) > LONGEST:
        yield f"said {len(said)} letters"
    if not "".join(lines).isprintable():
        yield f"commands the terminal: {ascii(said)[:300]}"
