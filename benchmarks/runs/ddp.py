"""Training by torchrun: a rank, all ranks or torchrun itself is killed at a random moment.

A run of two ranks, or of four, that nobody harms comes first and keeps all that it saves. The
others are killed again and again, and go on each time. After each death all processes have to end
by themselves, and the newest checkpoint has to be, bit for bit, what the unharmed run had at that
step, and not older than what was said to be saved. In the end the two have the same last step.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ckptstore
from benchmarks.runs.counting import Counts

__all__ = ["DEATHS", "run"]

DEATHS = 24
_DEATHS_OF_A_RUN = 4
_STEPS = 120
_EVERY = 2  # steps from one save of the unharmed run to the next: those of others are of these
_PATIENCE = 60.0  # seconds until all processes have to be gone; a process is killed in none
_RUN_OF = "BENCHMARKS_RUN"
_SAID = re.compile(r"step +(\d+)(?:/\d+:.*)? saved")
_FILES = ("model.pt", "optimizer.pt", "rng.pt")
_TINY = {
    "batch_size": 4, "block_size": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "dropout": 0.2,
    "device": "cpu", "seed": 1, "eval_interval": 30, "eval_iters": 2, "rank_timeout": 60,
    "max_iters": _STEPS,
}  # fmt: skip

Digests = dict[str, str | None]


@dataclass
class _Run:
    """A training that is killed and goes on.

    Attributes:
        name: of its model.
        ranks: how many.
        options: beside the tiny model's.
        folder: where it is started.
        saved: the last step that was said to be saved.
    """

    name: str
    ranks: int
    options: list[str]
    folder: Path
    saved: int = 0

    @property
    def location(self) -> Path:
        """Where its checkpoint is."""
        return self.folder / "checkpoints" / self.name

    def said(self, where: str) -> str:
        """Return what it printed since it was started, on ``stdout`` or ``stderr``."""
        return (self.folder / f"{self.name}.{where}").read_text(errors="replace")


def run(deaths: int, chance: random.Random, counts: Counts, show: Callable[[str], None]) -> None:
    """Do it.

    Args:
        deaths: how many.
        chance: of all choices.
        counts: to be filled.
        show: called with what just happened.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unharmed: dict[int, dict[int, Digests]] = {}
        number = 0
        while counts.rows["deaths"] < deaths:
            # Every fourth run has four ranks: their sums are rounded by where a number stands.
            ranks = 4 if number % 4 == 3 else 2
            if ranks not in unharmed:
                unharmed[ranks] = _unharmed(folder, ranks)
                show(f"{ranks} ranks, unharmed")
            options = ["--save_interval", str(_EVERY * chance.choice((1, 2, 5)))]
            options += chance.choice(([], ["--keep_last", "3"]))
            options += chance.choice(([], ["--async_saves"]))
            harmed = _Run(f"run{number}", ranks, options, folder)
            left = min(_DEATHS_OF_A_RUN, deaths - counts.rows["deaths"])
            _harm(harmed, left, chance, counts, unharmed[ranks], show)
            number += 1


def _unharmed(folder: Path, ranks: int) -> dict[int, Digests]:
    """Return the digests of all steps that a run saves which nobody harms."""
    options = ["--save_interval", str(_EVERY), "--keep_every", "1"]
    whole = _Run(f"unharmed{ranks}", ranks, options, folder)
    with _started(whole) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"the unharmed run of {ranks} ranks failed:\n{whole.said('stderr')}")
    steps = ckptstore.Store(whole.location).steps()
    return {step: _digests(ckptstore.open(whole.location, step=step)) for step in steps}


def _harm(
    harmed: _Run,
    deaths: int,
    chance: random.Random,
    counts: Counts,
    unharmed: dict[int, Digests],
    show: Callable[[str], None],
) -> None:
    """Kill a run a number of times, let it end, and compare."""
    for number in range(deaths):
        how = chance.choice(("one rank", "all ranks", "torchrun"))
        at_start = chance.random() < 0.25
        if not _killed(harmed, how, chance, counts, at_start=at_start):
            break  # It was finished before.
        what = f"{harmed.name} of {harmed.ranks}, {' '.join(harmed.options)}: {how}, {number + 1}."
        _check(harmed, what, counts, unharmed)
        show(what)
    with _started(harmed) as process:
        process.wait()
    what = f"{harmed.name} of {harmed.ranks}, {' '.join(harmed.options)}: at its end"
    if process.returncode:
        said = harmed.said("stderr")
        counts.wrong("not opened", f"{what} it exits {process.returncode}:\n{said}")
    elif _digests(ckptstore.open(harmed.location)) != unharmed[_STEPS]:
        counts.wrong("not exact", what)
    counts.add("runs ended")
    show(what)


def _killed(
    harmed: _Run, how: str, chance: random.Random, counts: Counts, *, at_start: bool
) -> bool:
    """Start a run and kill it; return whether it was still there."""
    with _started(harmed) as process:
        while not at_start and not harmed.said("stdout") and process.poll() is None:
            time.sleep(0.02)  # until it says "starting", or "going on"
        time.sleep(chance.uniform(0, 6 if at_start else 3))
        if process.poll() is not None:
            counts.add("ended before")
            return False
        killed = _kill(process, how, chance)
        took = _ended_within(process, harmed.name)
        if _processes(harmed.name) or process.poll() is None:
            counts.wrong("not ended", f"{harmed.name}: {how} ({killed}) after {_PATIENCE} s")
    counts.add("deaths")
    counts.add(f"of {how}")
    counts.add(f"with {harmed.ranks} ranks")
    counts.rows["slowest end, ms"] = max(took, counts.rows["slowest end, ms"])
    steps = [int(step) for step in _SAID.findall(harmed.said("stdout"))]
    harmed.saved = max([harmed.saved, *steps])
    said = harmed.said("stderr").splitlines()
    ours = [line for line in said if line.startswith(("error:", "rank "))]
    counts.rows["most lines of ours"] = max(len(ours), counts.rows["most lines of ours"])
    return True


def _ended_within(process: subprocess.Popen[bytes], name: str) -> int:
    """Wait until torchrun and its ranks are gone; return the milliseconds, the most at most."""
    began = time.monotonic()
    while process.poll() is None or _processes(name):
        if time.monotonic() - began > _PATIENCE:
            break
        time.sleep(0.05)
    return int(1000 * (time.monotonic() - began))


def _kill(process: subprocess.Popen[bytes], how: str, chance: random.Random) -> list[int]:
    """Kill at once what is to be killed; return the ids."""
    if how == "torchrun":
        chosen = [process.pid]
    else:
        chosen = _children(process.pid)
        if how == "one rank" and chosen:
            chosen = [chance.choice(chosen)]
    for each in chosen or [process.pid]:
        _send(each, signal.SIGKILL)
    return chosen


def _check(harmed: _Run, what: str, counts: Counts, unharmed: dict[int, Digests]) -> None:
    """Compare the newest checkpoint with what the unharmed run had at that step."""
    try:
        checkpoint = ckptstore.open(harmed.location)
    except ckptstore.NotFoundError:
        if harmed.saved:
            counts.wrong("losses", f"{what} nothing is there, saved was step {harmed.saved}")
        else:
            counts.add("nothing saved yet")
        return
    except ckptstore.CkptstoreError as error:
        counts.wrong("not opened", f"{what} {error!r}")
        return
    report = checkpoint.verify()
    if not report.sound:
        counts.wrong("mixtures", f"{what} {report}")
    step = checkpoint.step or 0
    if _digests(checkpoint) != unharmed.get(step):
        counts.wrong("mixtures", f"{what} step {step} is not that of the unharmed run")
    if step < harmed.saved:
        counts.wrong("losses", f"{what} step {step} is there, saved was step {harmed.saved}")
    counts.add("compared with the unharmed run")


def _digests(checkpoint: ckptstore.Checkpoint) -> Digests:
    files = checkpoint.files()
    return {name: files[name].sha256 for name in _FILES}


@contextmanager
def _started(training: _Run) -> Iterator[subprocess.Popen[bytes]]:
    """Start torchrun; at the end nothing of it is left."""
    options = [part for name, value in _TINY.items() for part in (f"--{name}", str(value))]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(training.ranks), "-m", "gpt.train"),
        *("--model_name", training.name, *options, *training.options),
    ]
    with (
        (training.folder / f"{training.name}.stdout").open("w") as stdout,
        (training.folder / f"{training.name}.stderr").open("w") as stderr,
    ):
        process = subprocess.Popen(
            command,
            cwd=training.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", _RUN_OF: _marked(training.name)},
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield process
    finally:
        for each in _processes(training.name):
            _send(each, signal.SIGKILL)
        process.wait()


def _processes(name: str) -> list[int]:
    """Return the processes of a run, by the variable that they were started with."""
    marker = f"{_RUN_OF}={_marked(name)}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            there = marker in (folder / "environ").read_bytes()
        except OSError:
            continue  # It is gone, or another user's.
        if there:
            found.append(int(folder.name))
    return found


def _marked(name: str) -> str:
    return f"{name} of {os.getpid()}"  # this benchmark's own, beside another one


def _children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
