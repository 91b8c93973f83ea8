"""Kill ranks of sharded saves: one of them, the coordinator, or all at once.

Three ranks save one state after another through torch.distributed.checkpoint over gloo, to a single
checkpoint or a history, on local disk, moto and rclone, until one is killed at a random moment. The
others end by themselves, as they would in a job. Then a process of its own opens the location: all
that it holds has to be of one step, none older than the last that was acknowledged. The next ranks
go on from there.

Ranks are forked of this process, which imports torch and touches no storage, so that a death costs
seconds and not an import.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.runs.counting import Counts

__all__ = ["DEATHS", "run"]

DEATHS = 60
RANKS = 3
_PATIENCE = 60.0
_FORK = multiprocessing.get_context("fork")
_SHAPES = {"w": (90, 4096), "b": (7,), "square": (24, 24)}


@dataclass
class _Place:
    """A location that jobs save to, one after the other.

    Attributes:
        acknowledged: the last step of which ``dcp.save`` returned on the coordinator.
        begun: the last step that any rank began to save.
        losses: of each step that was acknowledged.
    """

    name: str
    url: str
    options: dict[str, Any] | None
    history: bool
    acknowledged: int = 0
    begun: int = 0
    losses: dict[int, float] = field(default_factory=dict)


def run(deaths: int, chance: random.Random, counts: Counts, show: Callable[[str], None]) -> None:
    """Kill so many times, and prove after each what is there."""
    _prepare()
    with _places() as places:
        for number in range(deaths):
            place = places[number % len(places)]
            killed = _job(place, chance, counts)
            counts.add("deaths")
            counts.add(killed)
            counts.add(f"on {place.name}")
            _prove(place, counts)
            show(f"{killed} on {place.name}, step {place.begun}")


def _prepare() -> None:
    """Import once for all forks what each would import; and know the plugins."""
    import importlib

    for name in (
        "torch.distributed.checkpoint",
        "torch.distributed.tensor",
        "torch.distributed.device_mesh",
        "ckptstore.distributed.writer",
        "ckptstore.storage.local",
        "ckptstore.storage.s3",
        "s3fs",
    ):
        importlib.import_module(name)
    from ckptstore import plugins

    plugins.formats()


@contextlib.contextmanager
def _places() -> Iterator[list[_Place]]:
    from ckptstore.testing.servers import NO_CONFIGURATION, start_server

    os.environ.update(NO_CONFIGURATION)
    folder = Path(tempfile.mkdtemp(prefix="ckptstore-sharded-"))
    places, servers = [], []
    try:
        for kind in (False, True):
            name = "history" if kind else "single"
            places.append(_Place(f"disk, {name}", str(folder / name), None, kind))
        for server_name in ("moto", "rclone"):
            (folder / server_name).mkdir()
            server = start_server(server_name, folder / server_name)
            servers.append(server)
            for kind in (False, True):
                name = "history" if kind else "single"
                url = server.url(name)
                options = dict(server.storage_options)
                places.append(_Place(f"{server_name}, {name}", url, options, kind))
        yield places
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


# -- one job ---------------------------------------------------------------------------------


def _job(place: _Place, chance: random.Random, counts: Counts) -> str:
    """Let ranks save until some are killed; return who was."""
    meeting = Path(tempfile.mkdtemp(prefix="ckptstore-meeting-"))
    pipes = [_FORK.Pipe(duplex=False) for _ in range(RANKS)]
    first = place.begun + 1
    ranks = [
        _FORK.Process(target=_rank, args=(rank, meeting / "store", place, first, pipes[rank][1]))
        for rank in range(RANKS)
    ]
    try:
        for rank in ranks:
            rank.start()
        for _, end in pipes:
            end.close()
        readers = [reader for reader, _ in pipes]
        who = chance.choice(("a rank", "the coordinator", "all"))
        chosen = {
            "a rank": [chance.randrange(1, RANKS)],
            "the coordinator": [0],
            "all": range(RANKS),
        }
        until = None
        # In the first save of these ranks, or in one that follows another.
        first_dies = chance.random() < 0.3
        moment = chance.uniform(0.0, 1.0)
        started = time.monotonic()
        while until is None or time.monotonic() < until:
            left = 0.05 if until is None else max(0.0, until - time.monotonic())
            _hear(readers, place, counts, left)
            if until is None and (place.begun if first_dies else place.acknowledged) >= first:
                until = time.monotonic() + moment
            if time.monotonic() - started > _PATIENCE or not readers:
                raise RuntimeError(f"the ranks of {place.name} did not begin to save")
        for number in chosen[who]:
            os.kill(ranks[number].pid or 0, signal.SIGKILL)
        end = time.monotonic() + _PATIENCE
        while readers and time.monotonic() < end:
            _hear(readers, place, counts, 0.2)
        for rank in ranks:
            rank.join(max(0.1, end - time.monotonic()))
            if rank.is_alive():
                counts.add("survivors that had to be killed")
                rank.kill()
                rank.join()
    finally:
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
                rank.join()
        shutil.rmtree(meeting, ignore_errors=True)
    return f"{who} killed"


def _hear(readers: list[Connection], place: _Place, counts: Counts, seconds: float) -> None:
    """Take what ranks have said; those that have ended go."""
    for reader in wait(readers, seconds):
        assert isinstance(reader, Connection)
        try:
            what, step = reader.recv()
        except (EOFError, OSError):
            readers.remove(reader)
            reader.close()
            continue
        if what == "begun":
            place.begun = max(place.begun, step)
        elif what == "saved":
            place.acknowledged = max(place.acknowledged, step)
            place.losses[step] = _loss(step)
            counts.add("saves acknowledged")
        else:
            counts.add("errors told by survivors")


def _rank(rank: int, meeting: Path, place: _Place, step: int, said: Connection) -> None:
    """Save one state after another, until killed or told of a death."""
    warnings.simplefilter("ignore")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # What gloo says of a lost peer is what is wanted here.
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=30),
    )
    try:
        while True:
            said.send(("begun", step))
            _save(place, step)
            if rank == 0:
                said.send(("saved", step))
            step += 1
    except Exception:
        said.send(("told", step))
    os._exit(1)


def _save(place: _Place, step: int) -> None:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from ckptstore import Keep
    from ckptstore.distributed import StoreWriter

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model: dict[str, Any] = {}
    for name, shape in _SHAPES.items():
        along = 1 if name == "square" else 0
        model[name] = distribute_tensor(torch.full(shape, float(step)), mesh, [Shard(along)])
    state = {"model": model, "optimizer": {"state": {"w": {"m": model["w"]}}, "lr": step}}
    keep = Keep(last=2, best="loss") if place.history else None
    with StoreWriter(
        place.url,
        step=step,
        config={"step": step},
        metrics={"loss": _loss(step)},
        keep=keep,
        storage_options=place.options,
    ) as writer:
        dcp.save(state, storage_writer=writer)


def _loss(step: int) -> float:
    """Return a loss that no other step has, in no order."""
    return (step * 7919 % 10007) / 10007


# -- what is there ---------------------------------------------------------------------------


def _prove(place: _Place, counts: Counts) -> None:
    """Open the location in a process of its own, and count what is wrong."""
    reader, writer = _FORK.Pipe(duplex=False)
    looker = _FORK.Process(target=_look, args=(place, writer))
    looker.start()
    writer.close()
    try:
        found = json.loads(reader.recv()) if reader.poll(_PATIENCE) else {"error": "it hangs"}
    except EOFError:
        found = {"error": "the process that opened it died"}
    finally:
        reader.close()
        looker.kill()
        looker.join()
    where = f"{place.name}, after step {place.begun}: {found}"
    if "error" in found:
        if place.acknowledged or "no checkpoint" not in found["error"]:
            counts.wrong("not opened", where)
        return
    counts.add("old states opened" if found["step"] < place.begun else "new states opened")
    counts.add("leftovers seen", found["leftovers"])
    if found["mixed"]:
        counts.wrong("mixtures", where)
    if not found["sound"]:
        counts.wrong("not exact", where)
    if found["step"] < place.acknowledged:
        counts.wrong("newest removed" if place.history else "losses", where)
    if place.history and place.losses:
        best = min(place.losses, key=lambda step: place.losses[step])
        if best not in found["steps"] and min(map(_loss, found["steps"])) > place.losses[best]:
            counts.wrong("best removed", where)


def _look(place: _Place, said: Connection) -> None:
    import ckptstore
    from ckptstore.errors import CkptstoreError

    try:
        checkpoint = ckptstore.open(place.url, storage_options=place.options)
        step = checkpoint.step
        optimizer = checkpoint.load_optimizer() or {}
        values = {*(checkpoint.config or {}).values(), optimizer["lr"]}
        tensors = [*checkpoint.load_model().values(), optimizer["state"]["w"]["m"]]
        for tensor in tensors:
            values |= {float(tensor.min()), float(tensor.max())}
        shapes = {name: tuple(info.shape) for name, info in checkpoint.tensors().items()}
        store = ckptstore.Store(
            place.url,
            keep=ckptstore.Keep(last=2) if place.history else None,
            storage_options=place.options,
        )
        found = {
            "step": step,
            "mixed": values != {step} or shapes != _SHAPES,
            "sound": checkpoint.verify().sound,
            "steps": list(store.steps()) if place.history else [],
            "leftovers": _leftovers(store, checkpoint),
        }
    except CkptstoreError as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    said.send(json.dumps(found))
    os._exit(0)


def _leftovers(store: Any, checkpoint: Any) -> int:
    """Return how many files lie in folders of writes that nobody committed."""
    place = store._storage
    folders = [f for f in place.list("").folders if f.startswith("step-")]
    folders += [f".ckptstore/{name}" for name in place.list(".ckptstore").folders]
    listings = [place.list(folder).files for folder in folders]
    return sum(len(files) for files in listings if "manifest.json" not in files)
