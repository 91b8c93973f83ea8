"""Deaths of a training that saves to a local folder, and of all that copies to a tier beside it.

A training saves a step after the other into a folder, whose tier is a bucket of ``rclone serve
s3``. The training, the process that uploads, the server, or all three are killed at random
moments; the server comes back after a while, the training is started again and goes on from what
it opens. After each death of the training another process opens the folder. At last one more
start is given the time to upload what waits: then everything that was acknowledged is in the tier,
as far as the tier's policy keeps it, whole and not mixed.

Every state is made of its step's number, so that a mixture shows.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.children import Child, Line
from benchmarks.runs.counting import Counts

__all__ = ["DEATHS", "run"]

DEATHS = 80
_LIVES = 4
_VICTIMS = ("training", "training", "uploader", "server", "all")
_LOCAL = {"last": 2, "best": "loss"}
_TIER = {"last": 1, "every": 5, "best": "loss"}


@dataclass
class _World:
    """One run: where it saves, and what it was told.

    Attributes:
        local: the folder.
        url, options: the tier, and how it is reached.
        history: whether it keeps steps, or else a single checkpoint.
        policy: whether the tier keeps less than all.
        seed: of the losses.
        acknowledged: the steps whose save returned.
    """

    local: Path
    url: str
    options: dict[str, Any]
    history: bool
    policy: bool
    seed: int
    acknowledged: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        kind = "history" if self.history else "single"
        return f"{self.local.name} ({kind}, {'policy' if self.policy else 'all'})"

    def loss(self, step: int) -> float:
        return random.Random(f"{self.seed} {step}").random()

    def store(self, **options: Any) -> Any:
        import ckptstore

        tier = ckptstore.Tier(
            self.url,
            keep=ckptstore.Keep(**_TIER) if self.history and self.policy else None,
            storage_options=self.options,
            retry_after=0.05,
            retry_at_most=0.5,
        )
        keep = ckptstore.Keep(**_LOCAL) if self.history else None
        return ckptstore.Store(self.local, keep=keep, tier=tier, **options)


def run(deaths: int, chance: random.Random, counts: Counts, show: Callable[[str], None]) -> None:
    """Kill so often; see the module."""
    from ckptstore.testing.servers import start_server

    _import_all()
    root = Path(tempfile.mkdtemp(prefix="ckptstore-runs-"))
    (root / "server/data/bucket").mkdir(parents=True)
    server = start_server("rclone", root / "server")
    try:
        number = 0
        while counts.rows["deaths"] < deaths:
            number += 1
            world = _World(
                root / f"run-{number}",
                f"s3://bucket/run-{number}",
                # A dead server is to be noticed in a moment, not in a minute.
                {
                    **server.storage_options,
                    "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2},
                },
                history=chance.random() < 0.7,
                policy=chance.random() < 0.5,
                seed=chance.randrange(2**32),
            )
            counts.add("runs")
            for _ in range(_LIVES):
                _life(world, server, chance, counts)
                _look(world, counts)
                show(str(world))
            _finish(world, counts)
            shutil.rmtree(world.local, ignore_errors=True)
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)


def _import_all() -> None:
    """Import what the forked processes need, and compute on one thread, before there are any."""
    import torch

    import ckptstore.store
    import ckptstore.transfer  # noqa: F401

    torch.set_num_threads(1)


# -- one life of the training --------------------------------------------------------------------


def _life(world: _World, server: Any, chance: random.Random, counts: Counts) -> None:
    """Let it train, and kill this and that, itself at last."""
    with Child(_train, world) as child:
        first = child.next(seconds=60)
        if first is None or "crashed" in first:
            raise RuntimeError(f"the training ended by itself: {first}")
        world.acknowledged.add(first["step"])
        while True:
            time.sleep(chance.uniform(0.0, 0.6))
            victim = chance.choice(_VICTIMS)
            counts.add("deaths")
            counts.add(f"of {victim}")
            if victim in ("uploader", "all"):
                _kill_uploader(child.pid)
            if victim in ("server", "all"):
                server.stop()
            if victim in ("training", "all"):
                child.kill()
            if victim in ("server", "all"):
                time.sleep(chance.uniform(0.0, 0.5))
                server.restart()
            if victim in ("training", "all"):
                break
        for message in child.rest():
            if "crashed" in message:
                raise RuntimeError(f"the training failed: {message['crashed']}")
            world.acknowledged.add(message["step"])


def _train(line: Line, world: _World) -> None:
    import torch

    store = world.store()
    first = max(world.acknowledged, default=0) + 1
    with contextlib.suppress(FileNotFoundError):
        first = max(first, (store.open().step or 0) + 1)
    for step in range(first, first + 10_000):
        state = {
            "model": {"w": torch.full((20_000,), float(step)), "b": torch.full((3,), float(step))},
            "config": {"step": step},
            "metrics": {"loss": world.loss(step)},
            "step": step,
        }
        if step % 3 == 0:
            store.save_async(**state).result()
        else:
            store.save(**state)
        line.tell(step=step)
        time.sleep(0.02)


def _kill_uploader(training: int) -> None:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{training}/task").iterdir():
            for pid in map(int, (task / "children").read_text().split()):
                if b"ckptstore.tiers.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


# -- what is there afterwards --------------------------------------------------------------------


def _look(world: _World, counts: Counts) -> None:
    """Have another process prove what is in the folder."""
    _take(_asked(_seen_here, world), world, counts, "folder")


def _finish(world: _World, counts: Counts) -> None:
    """Give one more start the time to upload what waits, and prove both."""
    counts.add("acknowledged saves", len(world.acknowledged))
    done = _asked(_upload, world)
    if not done.get("uploaded"):
        counts.wrong("losses", f"{world}: not uploaded: {done}")
        return
    counts.add("states in the tiers", done["count"])
    _take(_asked(_seen_here, world), world, counts, "folder")
    _take(_asked(_seen_there, world), world, counts, "tier")


def _take(found: dict[str, Any], world: _World, counts: Counts, where: str) -> None:
    for row, what in found.get("wrong", [["not opened", str(found)]]):
        counts.wrong(row, f"{world}, {where}: {what}")


def _asked(work: Callable[..., None], world: _World) -> dict[str, Any]:
    with Child(work, world) as child:
        message = child.next(seconds=170)
        return {"ended": True} if message is None else message


def _upload(line: Line, world: _World) -> None:
    import ckptstore

    with world.store() as store:
        done = store.wait_for_uploads(150)
        said = str(store.uploads())
    journal = world.local / ".ckptstore-uploads"
    left = sorted(path.name for path in journal.glob("*.json"))
    there = ckptstore.Store(world.url, storage_options=world.options)
    count = len(there.steps()) + len(there.generations())
    line.tell(uploaded=done and not left, count=count, left=left, said=said)


def _seen_here(line: Line, world: _World) -> None:
    import ckptstore

    line.tell(wrong=_wrong(world, ckptstore.Store(world.local), _LOCAL))


def _seen_there(line: Line, world: _World) -> None:
    import ckptstore

    policy = _TIER if world.policy else None
    store = ckptstore.Store(world.url, storage_options=world.options)
    line.tell(wrong=_wrong(world, store, policy))


def _wrong(world: _World, store: Any, policy: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return what must not be, of one of the two places."""
    import ckptstore

    wrong = []
    steps = store.steps() if world.history else (None,)
    found = set()
    for step in steps:
        try:
            checkpoint = store.open(step)
            if not checkpoint.verify().sound:
                wrong.append(("mixtures", f"{step} is damaged"))
            values = {float(v) for t in checkpoint.load_model().values() for v in t.unique()}
            values |= {float(checkpoint.config["step"]), float(checkpoint.step)}
            if len(values) != 1 or (step is not None and values != {float(step)}):
                wrong.append(("mixtures", f"{step} holds {sorted(values)}"))
            found.add(checkpoint.step)
        except ckptstore.CkptstoreError as error:
            wrong.append(("not opened", f"{step}: {error}"))
    told = world.acknowledged
    if not found or max(found) < max(told):
        wrong.append(("newest removed", f"{max(told)} was acknowledged; there are {sorted(found)}"))
    if world.history:
        lost = _to_be_kept(told, policy) - found
        wrong += [("losses", f"step {step} was acknowledged") for step in sorted(lost)]
        best = min(told, key=world.loss)
        if not any(world.loss(step) <= world.loss(best) for step in found):
            wrong.append(("best removed", f"step {best}; there are {sorted(found)}"))
    return wrong


def _to_be_kept(told: set[int], policy: dict[str, Any] | None) -> set[int]:
    """Return the acknowledged steps that a policy keeps whatever else was committed."""
    if policy is None:
        return set(told)
    every = policy.get("every")
    return {step for step in told if every and step % every == 0}
