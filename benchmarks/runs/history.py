"""A training that keeps a history with frozen parts, killed and resumed again and again."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.faults.children import Child
from benchmarks.faults.places import Ground, grounds
from benchmarks.runs._training import POLICY, Run, clean, loss_of, prove, train
from benchmarks.runs.counting import Counts

__all__ = ["DEATHS", "run"]

DEATHS = 200
"""About five minutes on two cores."""

STORAGES = {"local": 0.7, "moto": 0.15, "rclone": 0.15}
"""The share of deaths on each; on rclone one writer is promised, and there is one."""

_PER_PLACE = 12  # Deaths at one location, before another one begins with nothing.
_NUMBERS = {"local": 250_000, "moto": 1_500_000, "rclone": 1_500_000}
"""In each frozen part; a service copies by itself what is larger than 5 MiB."""


def run(
    deaths: int,
    chance: random.Random,
    counts: Counts,
    show: Callable[[str], None],
    *,
    storages: Mapping[str, float] = STORAGES,
) -> None:
    """Kill trainings that save with `POLICY`, and have the next one go on from the newest step.

    Each saves every step: in the background or not, in a thread or in a process of its own. It is
    killed (SIGKILL) at a random moment while one of its first saves is under way. After each
    death another process proves every step that is there.

    Args:
        deaths: of trainings.
        chance: decides.
        counts: where to count.
        show: told of each death.
        storages: which, and the share of deaths that each has.
    """
    _import_everything()
    for name, share in storages.items():
        left = round(deaths * share)
        with grounds(name, None) as ground:
            while left:
                course = _Course(ground, chance, counts)
                for _ in range(min(_PER_PLACE, left)):
                    course.die()
                    show(f"a death on {name}")
                    left -= 1
                course.end()


class _Course:
    """One location, and what was acknowledged there.

    Args:
        ground: the storage.
        chance: decides.
        counts: where to count.
    """

    def __init__(self, ground: Ground, chance: random.Random, counts: Counts) -> None:
        self._chance = chance
        self._counts = counts
        place, seed = ground.place(history=True), chance.randrange(2**32)
        self._run = Run(place, seed, _NUMBERS[ground.name])
        self._name = ground.name
        self._acknowledged: set[int] = set()
        self._durations = [0.3]

    def die(self) -> None:
        """Let a training go on, kill it, and hold what it left against what it said."""
        how = self._chance.choice(("at once", "thread", "process"))
        with Child(train, self._run, how) as training:
            said: list[dict[str, Any]] = []
            wanted = self._chance.randint(1, 4)
            while sum("begun" in message for message in said) < wanted:
                message = training.next()
                if message is None:
                    break
                said.append(message)
            usual = statistics.median(self._durations[-20:])
            time.sleep(self._chance.uniform(0.0, 1.3 * usual))
            training.kill()
            said += training.rest()
        self._counts.add("deaths")
        self._counts.add(f"deaths on {self._name}")
        self._counts.add(f"deaths saving {how}")
        lately = self._hear(said)
        self._prove(f"a death (saving {how})", lately)

    def end(self) -> None:
        """Clean up as if a day had passed: nothing is left but what manifests name."""
        with Child(clean, self._run) as cleaner:
            said = cleaner.next("cleaned") or {}
        if said.get("left") != []:
            self._counts.wrong("not exact", f"left over in {self._run.place.url}: {said}")
        self._counts.add("leftovers cleaned", len(said.get("cleaned", ())))
        self._prove("a cleaning", None)

    def _hear(self, messages: list[dict[str, Any]]) -> int | None:
        """Take down what a training said, and return the last step that it had acknowledged."""
        last = None
        for message in messages:
            if "resumed" in message and message["resumed"] is not None:
                self._counts.add("resumed")
            if "crashed" in message or "failed" in message:
                self._counts.wrong("not opened", f"{self._run.place.url}: {message}")
            if "saved" in message:
                last = message["saved"]
                self._acknowledged.add(last)
                self._durations.append(message["seconds"])
                self._counts.add("saves acknowledged")
                self._counts.add("MB written", message["written"] // 10**6)
                self._counts.add("MB that were there already", message["spared"] // 10**6)
        return last

    def _prove(self, after: str, lately: int | None) -> None:
        """Have another process prove all that is there, and judge it.

        Args:
            after: what has just happened.
            lately: the last step that the training which was killed had acknowledged.
        """
        with Child(prove, self._run) as prover:
            found = prover.next("steps") or {"crashed": "it said nothing"}
        what = f"{self._run.place.url} after {after}: {found}; {sorted(self._acknowledged)[-5:]}"
        if "steps" not in found:
            mixed = "AssertionError" in found["crashed"] or "CorruptionError" in found["crashed"]
            self._counts.wrong("mixtures" if mixed else "not opened", what)
            return
        steps: list[int] = found["steps"]
        self._counts.add("steps proved", len(steps))
        if not self._acknowledged:
            return
        newest = max(self._acknowledged)
        if not steps or steps[-1] < newest:
            self._counts.wrong("newest removed", what)
            return
        seed = self._run.seed
        if min(loss_of(seed, n) for n in steps) > min(loss_of(seed, n) for n in self._acknowledged):
            self._counts.wrong("best removed", what)
        kept = {n for n in self._acknowledged if POLICY.every and n % POLICY.every == 0}
        if not kept <= {*steps}:
            self._counts.wrong("losses", f"{sorted(kept - {*steps})} of {what}")
        if lately is not None:
            self._check_retained([n for n in steps if n <= lately], what)

    def _check_retained(self, steps: list[int], what: str) -> None:
        """A save that has returned has removed what the policy does not want."""
        best = min(steps, key=lambda n: loss_of(self._run.seed, n), default=None)
        wanted = {n for n in steps if n % (POLICY.every or 1) == 0 or n == best}
        wanted |= {*steps[-(POLICY.last or 0) :]}
        if {*steps} - wanted:
            self._counts.wrong("not exact", f"{sorted({*steps} - wanted)} should be gone: {what}")


def _import_everything() -> None:
    """Import what children will need, by saving and opening once, and connect to nothing."""
    import aiobotocore.session
    import s3fs
    import torch

    import ckptstore
    import ckptstore.storage.s3

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ckptstore.save(folder, model={"a": torch.zeros(1)}, optimizer={"state": {}}, step=1)
        checkpoint = ckptstore.open(folder)
        checkpoint.load_model()
        checkpoint.verify()
    _ = aiobotocore.session, s3fs
