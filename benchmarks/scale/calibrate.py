"""Real saves and loads against a server on this machine and a local disk, beside the simulation.

From a small and a large one of each, the time of a request and the bytes a second are computed;
what the simulation then says of one in between is held against what was measured of it.
"""

from __future__ import annotations

import collections
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scale.engine import Engine, load, save
from benchmarks.scale.events import simulate
from benchmarks.scale.limits import S3

__all__ = ["calibrate"]

_MIB = 2**20
_SIZES = (1, 64, 160)
"""MiB of the model; the one in the middle is what is predicted."""


def calibrate(server: str = "rclone", rounds: int = 3) -> dict[str, Any]:
    """Measure, and return machine, parameters, and measured beside simulated.

    Args:
        server: ``rclone`` or ``moto``.
        rounds: saves and loads of each size; the least counts, which other load disturbs least.
    """
    from ckptstore.testing.servers import start_server

    with tempfile.TemporaryDirectory() as folder:
        running = start_server(server, Path(folder))
        try:
            found = _measured(running.url("scale"), running.storage_options, rounds)
        finally:
            running.stop()
        disk = _measured(str(Path(folder, "disk")), None, rounds)
    parameters: dict[str, Any] = {}
    compared = []
    for what, plan_of in (("save", lambda mib: save([mib * _MIB])), ("load", _load_plan)):
        latency, rate = _fitted(found[what], plan_of)
        parameters[f"s3_{what}_request_seconds"] = latency
        parameters[f"s3_{what}_bytes_per_second"] = rate
        grown = found[f"{what} cpu"][2] - found[f"{what} cpu"][0]
        parameters[f"s3_{what}_bytes_per_cpu_second"] = (_SIZES[2] - _SIZES[0]) * _MIB / grown
        s3 = S3(writes=1e9, reads=1e9, latency=latency, connection=rate)
        engine = replace(Engine(), senders=2)  # What is fast stays at two connections.
        told = simulate(plan_of(_SIZES[1]), 1, s3=s3, engine=engine, rate=rate).seconds
        compared.append(_row(f"{what}, {server}", found[what][1], told))
        small, middle, large = disk[what]
        rate = (_SIZES[2] - _SIZES[0]) * _MIB / max(large - small, 1e-6)
        parameters[f"disk_{what}_bytes_per_second"] = rate
        told = small + (_SIZES[1] - _SIZES[0]) * _MIB / rate
        compared.append(_row(f"{what}, local disk", middle, told))
    return {"machine": _machine(), "parameters": parameters, "compared": compared}


def _load_plan(mib: int) -> Any:
    return load([mib * _MIB])


def _fitted(seconds: list[float], plan_of: Callable[[int], Any]) -> tuple[float, float]:
    """Return the seconds of a request and bytes a second, from the smallest and the largest."""
    requests = [len(plan.before) + len(plan.after) for plan in map(plan_of, _SIZES)]
    latency = max(seconds[0] / (requests[0] + 1), 1e-4)
    left = seconds[2] - latency * requests[2]
    return latency, _SIZES[2] * _MIB / max(left, 1e-3)


def _measured(location: str, options: dict[str, Any] | None, rounds: int) -> dict[str, list[float]]:
    import torch

    import ckptstore

    found: dict[str, list[float]] = collections.defaultdict(list)
    for mib in _SIZES:
        saves, loads = [], []
        where = f"{location}-{mib}"
        keep = ckptstore.Keep(last=1)
        with ckptstore.Store(where, keep=keep, storage_options=options) as store:
            for step in range(1, rounds + 3):
                model = {"w": torch.randn(mib * _MIB // 4)}
                texts = {"config": {"n": 1}, "tokenizer": {"token_kind": "gpt2"}}
                began = _now()
                store.save(model=model, step=step, **texts)
                if step > 2:  # The first asks the bucket what it keeps, and removes nothing.
                    saves.append(_since(began))
                    began = _now()
                    ckptstore.open(where, storage_options=options).load_model()
                    loads.append(_since(began))
        for what, times in (("save", saves), ("load", loads)):
            found[what].append(min(seconds for seconds, _ in times))
            found[f"{what} cpu"].append(min(cpu for _, cpu in times))
    return found


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    """Return seconds, and seconds of a processor in this process."""
    return tuple(now - then for now, then in zip(_now(), began, strict=True))  # type: ignore[return-value]


def _row(what: str, measured: float, simulated: float) -> dict[str, Any]:
    return {
        "what": f"{what}, {_SIZES[1]} MiB",
        "measured": round(measured, 4),
        "simulated": round(simulated, 4),
        "error": round(simulated / measured - 1, 3),
    }


def _machine() -> str:
    busy = os.getloadavg()[0]
    return (
        f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, a virtual machine; "
        f"its load was {busy:.1f}"
    )
