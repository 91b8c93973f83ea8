"""The tables of ``docs/scale.md``: saves, loads, days, and what breaks first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.scale.engine import Engine, Plan, load, manifest_bytes, save
from benchmarks.scale.events import Outcome, computed, simulate
from benchmarks.scale.limits import S3
from ckptstore.storage.s3parts import part_size

__all__ = ["RANKS", "SIZES", "found", "shown", "tables"]

SIZES = (10e9, 100e9, 1e12, 10e12)
RANKS = (1, 64, 1024)
_CORES = 2
_TENSORS = 3000
_BUFFERS = 64 * 2**20
_HOURS = 12
_KEPT = 3
_MINUTES = 30


def found(
    calibration: Mapping[str, Any], *, ranks: Sequence[int] = RANKS
) -> dict[str, list[dict[str, Any]]]:
    """Return all rows, by table.

    Args:
        calibration: what `calibrate` returned.
        ranks: in how many processes; without the most of them nothing helps, for nothing has to.
    """
    rates = {
        what: _CORES * float(calibration["parameters"][f"s3_{what}_bytes_per_cpu_second"])
        for what in ("save", "load")
    }
    moved = {
        what: [_moved(what, size, count, rates[what]) for size in SIZES for count in ranks]
        for what in rates
    }
    return {
        **moved,
        "day": [_day(size, count) for size in SIZES for count in ranks],
        "relief": _relief(rates["save"]) if max(ranks) == max(RANKS) else [],
        "bounds": _bounds(rates["save"]),
        "calibration": list(calibration["compared"]),
    }


def tables(calibration: Mapping[str, Any]) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join(shown(calibration, found(calibration)))


def shown(calibration: Mapping[str, Any], rows: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return each table with its title, those that have rows."""
    titles = {
        "save": "One save, every rank at once, below one prefix",
        "load": "One load of everything by every rank's process",
        "day": f"A day of a save every {_MINUTES} minutes, of which the last {_KEPT} stay",
        "relief": "10 TB by 1,024 ranks: what makes a difference",
        "bounds": "Bounds of one file and one process",
        "calibration": f"Measured beside simulated ({calibration['machine']})",
    }
    return [f"**{titles[name]}**\n\n{_table(table)}" for name, table in rows.items() if table]


def _files(size: float, ranks: int) -> list[int]:
    """Return the bytes of each of a rank's files: weights, and an AdamW of twice as many."""
    return [int(size / ranks / 3), int(size / ranks * 2 / 3)]


def _moved(what: str, size: float, ranks: int, rate: float) -> dict[str, Any]:
    files = _files(size, ranks)
    plan = save(files) if what == "save" else load(files)
    counted = _all(plan, ranks)
    outcome = _simulated(plan, ranks, rate)
    of_manifest = manifest_bytes(files, max(_TENSORS // ranks, 4) * 4)
    row: dict[str, Any] = {"checkpoint": _size(size), "ranks": f"{ranks:,}"}
    if what == "save":
        row["part"] = _size(part_size(files[1]))
    row |= {
        "requests": f"{sum(counted.values()):,}",
        "by kind": ", ".join(f"{kind} {count:,}" for kind, count in sorted(counted.items())),
        "manifest of a rank": _size(of_manifest),
        "memory beside tensors": _size(_BUFFERS + 8 * of_manifest),
        **_times(outcome),
        "dollars": f"{S3().price(counted):.4f}",
    }
    return row


def _day(size: float, ranks: int) -> dict[str, Any]:
    saves = 24 * 60 // _MINUTES
    counted = _all(save(_files(size, ranks)), ranks)
    daily = Counter({kind: count * saves for kind, count in counted.items()})
    return {
        "checkpoint": _size(size),
        "ranks": f"{ranks:,}",
        "requests": f"{sum(daily.values()):,}",
        "written": _size(size * saves),
        "stored": _size(size * (_KEPT + 1)),
        "dollars for requests": f"{S3().price(daily):.2f}",
        "dollars for storage": f"{S3().storage_price(size * (_KEPT + 1)) / 30:.2f}",
    }


def _relief(rate: float) -> list[dict[str, Any]]:
    plan, ranks = save(_files(10e12, 1024)), 1024
    ways: list[tuple[str, dict[str, Any]]] = [
        ("asked 8 times only (`AWS_MAX_ATTEMPTS=8`)", {"engine": replace(Engine(), attempts=8)}),
        ("below 8 partitioned prefixes", {"prefixes": 8}),
    ]
    return [{"way": name, **_times(_simulated(plan, ranks, rate, **how))} for name, how in ways]


def _bounds(rate: float) -> list[dict[str, Any]]:
    s3, engine = S3(), Engine()
    sending = min(engine.senders * s3.connection, rate)
    reading = engine.readers * s3.connection
    ten = int(10e12)
    return [
        {"bound": "parts of a file of 10 TB, of 10,000", "is": f"{_parts(ten):,}"},
        {"bound": "the largest file of 10,000 parts of 5 GiB", "is": _size(1e4 * 5 * 2**30)},
        {"bound": "manifest of 10 TB in one file", "is": _size(manifest_bytes([ten], _TENSORS))},
        {
            "bound": "manifest of 10 TB in 1,024 files of one location",
            "is": _size(manifest_bytes([ten // 1024] * 1024, _TENSORS)),
        },
        {"bound": "one process sends, a second", "is": _size(sending)},
        {"bound": "one process reads, a second", "is": _size(min(reading, rate))},
        {
            "bound": f"one process saves before its attempt is {_HOURS} hours old",
            "is": _size(sending * _HOURS * 3600),
        },
    ]


def _simulated(plan: Plan, ranks: int, rate: float, **how: Any) -> Outcome:
    given = {"s3": S3(), "engine": Engine(), "rate": rate, **how}
    return (None if how else computed(plan, ranks, **given)) or simulate(plan, ranks, **given)


def _times(outcome: Outcome) -> dict[str, str]:
    return {
        "seconds": f"{outcome.seconds:,.0f}",
        "503": f"{outcome.slow_downs:,}",
        "ranks that give up": f"{outcome.failed:,}",
    }


def _all(plan: Plan, ranks: int) -> Counter[str]:
    return Counter({kind: count * ranks for kind, count in plan.counted().items()})


def _parts(size: int) -> int:
    return -(-size // part_size(size))


def _size(nbytes: float) -> str:
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if nbytes >= of:
            return f"{nbytes / of:.3g} {unit}"
    return f"{nbytes / 1e3:.3g} kB"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(str(value) for value in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
