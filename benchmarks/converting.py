"""``python -m benchmarks.converting``: how much memory a conversion takes, beside its budget (G6).

Each conversion is a fresh process that imports, converts something small in the same way, and
notes what it has by then: the base. What it has more at its peak while it converts the large
checkpoint is held against the budget of 128 MiB; the page cache is not in it. Once more it is done
where the system refuses the process more than the base, the budget and the stacks of its threads;
and with ``--how loaded`` everything is loaded first, which is what it takes otherwise.

The model is random numbers that are made piece by piece: one tensor is a quarter of it, the others
have 64 MiB, and as much again are the moments of an optimizer. The folder of
torch.distributed.checkpoint is cut as four processes would cut it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

__all__ = ["main"]

BUDGET = 128
_MIB = 2**20
_ROW = 2**20  # bytes
_RANKS = 4
_STACKS = 128  # MiB that the stacks of threads and what the allocator keeps for them may have.
_FORMATS = ("bundle", "legacy", "safetensors", "dcp", "sharded")
_HOW = ("bounded", "limited", "loaded")
_PAIRS = (
    ("legacy", "bundle"),
    ("bundle", "legacy"),
    ("bundle", "safetensors"),
    ("safetensors", "bundle"),
    ("dcp", "bundle"),
    ("bundle", "sharded"),
    ("sharded", "bundle"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table in Markdown, and return 1 where a peak is above the budget."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converting", description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="of model and optimizer (default 1)")
    parser.add_argument("--folder", type=Path, help="where there is room for four times that")
    how = {"nargs": "+", "choices": _HOW, "default": _HOW[:2], "help": "default: the first two"}
    parser.add_argument("--how", **how)  # type: ignore[arg-type]
    parser.add_argument("--only", nargs="+", choices=_FORMATS, help="what is converted")
    parser.add_argument("--json", type=Path, help="a file for what was found")
    parser.add_argument("--convert", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.convert:
        return _convert(json.loads(options.convert))
    # So that processes and files go, however this is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found: list[dict[str, Any]] = []
    print(f"{options.gib} GiB, budget {BUDGET} MiB\n")
    print("| conversion | how | base, MiB | above it, MiB | of the budget | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ckptstore-converting-") as name:
        for source, target in _PAIRS:
            if _can(source, target) and source in (options.only or _FORMATS):
                found += _measure(Path(name), source, target, options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    bounded = [one for one in found if one["how"] != "loaded"]
    return 0 if bounded and all(one["above"] <= BUDGET for one in bounded) else 1


def _can(source: str, target: str) -> bool:
    from ckptstore import plugins

    formats = plugins.formats()
    return source in formats and target in formats and formats[target].writable


def _measure(
    folder: Path, source: str, target: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    large = _made(folder / "large", source, int(options.gib * 2**30))
    small = _made(folder / "small", source, 4 * _MIB)
    for how in options.how:
        job = {"how": how, "target": target, "large": str(large), "small": str(small)}
        job["to"] = str(folder / "to") + os.sep
        command = [sys.executable, "-m", "benchmarks.converting", "--convert", json.dumps(job)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        shutil.rmtree(folder / "to", ignore_errors=True)
        if done.returncode:
            print(f"| {source} to {target} | {how} | failed | | | |", flush=True)
            yield {"from": source, "to": target, "how": how, "above": float("inf")}
            continue
        told = {"from": source, "to": target, "how": how, **json.loads(done.stdout)}
        share = told["above"] / BUDGET
        print(
            f"| {source} to {target} | {how} | {told['base']} | {told['above']} "
            f"| {share:.2f} | {told['seconds']:.1f} |",
            flush=True,
        )
        yield told
    shutil.rmtree(folder)
    folder.mkdir()


# -- the process that is measured -----------------------------------------------------------


def _convert(job: dict[str, str]) -> int:
    import torch

    import ckptstore
    from ckptstore import plugins

    torch.set_num_threads(1)
    if job["how"] == "loaded":
        type(plugins.format_named(job["target"])).takes_later = False
    convert = partial(ckptstore.convert, format=job["target"])
    os.makedirs(job["to"])
    convert(job["small"], _destination(job, "small"))
    Path("/proc/self/clear_refs").write_text("5")  # Sets the high-water mark back.
    base = _status("VmHWM")
    if job["how"] == "limited":
        _limit(_status("VmData") + BUDGET + _STACKS)
    began = time.monotonic()
    convert(job["large"], _destination(job, "large"))
    seconds = time.monotonic() - began
    told = {"base": base, "above": _status("VmHWM") - base, "seconds": round(seconds, 2)}
    print(json.dumps(told))
    return 0


def _destination(job: dict[str, str], name: str) -> str:
    return os.path.join(job["to"], f"{name}.pt" if job["target"] == "legacy" else name)


def _status(field: str) -> int:
    """Return a line of the process's own status, in MiB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(found[1]) // 1024


def _limit(mib: int) -> None:
    import resource

    # Of private memory that can be written: what files are mapped does not count.
    resource.setrlimit(resource.RLIMIT_DATA, (mib * _MIB, mib * _MIB))


# -- what is converted -----------------------------------------------------------------------


def _made(folder: Path, format: str, size: int) -> Path:
    """Write a checkpoint of a size, without having it in memory, and return where it is."""
    from ckptstore import plugins

    folder.mkdir(parents=True)
    if format == "dcp":
        _write_dcp(folder / "dcp", _shapes(size))
        return folder / "dcp"
    _write_legacy(folder / "one.pt", _shapes(size))
    if format == "legacy":
        return folder / "one.pt"
    job = {"how": "made", "target": format, "to": str(folder) + os.sep}
    code = "import sys, ckptstore; ckptstore.convert(sys.argv[1], sys.argv[2], sys.argv[3])"
    place = os.path.join(job["to"], plugins.format_named(format).name)
    subprocess.run([sys.executable, "-c", code, folder / "one.pt", place, format], check=True)
    (folder / "one.pt").unlink()
    return Path(place)


def _shapes(size: int) -> dict[str, tuple[int, int]]:
    """Return the shapes of a model that has half of so many bytes, in float32, by name."""
    columns = _ROW // 4
    rows = size // 2 // _ROW
    shapes = {"embedding": (max(1, rows // 2), columns)}
    left = rows - shapes["embedding"][0]
    while left > 0:
        shapes[f"blocks.{len(shapes)}.weight"] = (min(left, 64), columns)
        left -= 64
    return shapes


def _tree(shapes: dict[str, tuple[int, int]], made: Any) -> dict[str, Any]:
    moments = {n: {"exp_avg": made(shape)} for n, shape in enumerate(shapes.values())}
    groups = [{"lr": 1e-3, "params": list(moments)}]
    return {
        "model_state_dict": {name: made(shape) for name, shape in shapes.items()},
        "config": {"n_layer": len(shapes)},
        "step": 1,
        "optimizer_state_dict": {"state": moments, "param_groups": groups},
    }


def _write_legacy(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    from ckptstore import tensors
    from ckptstore.later import Later
    from ckptstore.storage.base import Sink

    class File(Sink):
        def write(self, data: memoryview, /) -> None:
            file.write(data)

    def random(shape: tuple[int, int]) -> Later:
        return Later("float32", shape, 4 * prod(shape), partial(_numbers, shape))

    with open(path, "wb") as file:
        tensors.checked(_tree(shapes, random)).save(File())


def _numbers(shape: tuple[int, int]) -> Iterator[memoryview]:
    import torch

    from ckptstore import tensors

    torch.manual_seed(shape[0])
    for _ in range(shape[0]):
        yield tensors.bytes_of(torch.rand(shape[1]))


def _write_dcp(folder: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """Write what four processes write: every second tensor cut by its columns, the others by rows.

    The pickle is of torch's own classes, and the slices are what its writer makes of each chunk.
    """
    import pickle

    import torch
    from torch.distributed.checkpoint import metadata as described
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    folder.mkdir()
    entries: dict[str, Any] = {}
    places: dict[Any, Any] = {}
    files = [open(folder / f"__{rank}_0.distcp", "wb") for rank in range(_RANKS)]  # noqa: SIM115
    names = [f"{part}.{name}" for part in ("model", "optimizer") for name in shapes]
    for number, name in enumerate(names):
        shape = shapes[name.partition(".")[2]]
        cut = number % 2
        step = -(-shape[cut] // _RANKS)
        chunks = []
        for rank, start in enumerate(range(0, shape[cut], step)):
            size = min(step, shape[cut] - start)
            sizes = (size, shape[1]) if cut == 0 else (shape[0], size)
            offsets = (start, 0) if cut == 0 else (0, start)
            file = files[rank]
            begin = file.tell()
            torch.save(torch.rand(sizes), file)
            chunks.append(described.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            index = described.MetadataIndex(name, offsets)
            length = file.tell() - begin
            places[index] = _StorageInfo(f"__{rank}_0.distcp", begin, length)
        properties = described.TensorProperties(torch.float32)
        entries[name] = described.TensorStorageMetadata(properties, torch.Size(shape), chunks)
    for file in files:
        file.close()
    paths = {name: tuple(name.split(".", 1)) for name in names}
    with open(folder / ".metadata", "wb") as file:
        pickle.dump(described.Metadata(entries, paths, places), file)


if __name__ == "__main__":
    sys.exit(main())
