"""Files to be loaded, made once for a row by a process of their own, in each library's format."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speed.rows import Job

__all__ = ["bundle_files", "files_to_load"]


@contextlib.contextmanager
def files_to_load(job: Job) -> Iterator[dict[str, Any]]:
    """Give the paths of equal tensors in all formats: ``files``, and ``small`` ones to warm up."""
    folder = Path(tempfile.mkdtemp(dir=job.folder, prefix="files-"))
    try:
        place = {}
        for name, size in (("files", job), ("small", job.warm_up())):
            (folder / name).mkdir()
            asked = {**asdict(size), "folder": str(folder / name)}
            descriptor = job.memory.rpartition("/proc/self/fd/")[2]
            subprocess.run(
                [sys.executable, "-W", "ignore", "-m", __name__],
                input=json.dumps(asked),
                text=True,
                check=True,
                pass_fds=(int(descriptor),) if descriptor.isdigit() else (),
            )
            place[name] = json.loads((folder / name / "made.json").read_text())
        yield place
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(job.folder / "small", ignore_errors=True)


def bundle_files(location: str) -> dict[str, str]:
    """Return the path of every file of a bundle, by its name there."""
    root = Path(location)
    return {
        path.relative_to(root).as_posix(): str(path)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _make() -> None:
    import torch

    import ckptstore
    from benchmarks.speed.states import flat

    asked = json.loads(sys.stdin.read())
    job = Job(**{**asked, "folder": Path(asked["folder"])})
    state, folder = flat(job), job.folder
    made = {"torch": folder / "torch.pt", "ckptstore": folder / "ckptstore"}
    torch.save(state, made["torch"])
    ckptstore.save(made["ckptstore"], model=state, config={"n_layer": 1}, step=1)
    made["model"] = next(path for path in made["ckptstore"].rglob("model*.pt"))
    if importlib.util.find_spec("safetensors"):
        from safetensors.torch import save_file

        made["safetensors"] = folder / "all.safetensors"
        save_file(state, made["safetensors"])
    text = json.dumps({name: str(path) for name, path in made.items()})
    (folder / "made.json").write_text(text)


if __name__ == "__main__":
    _make()
