"""Where the examples of the documentation run, and how."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "TRAIN", "Place", "environ"]

ROOT = Path(__file__).parents[2]
TRAIN = (
    "gpt train --model_name dante --max_iters 20 --eval_interval 10 --eval_iters 2 --seed 1 "
    "--block_size 32 --n_embd 32 --n_head 2 --n_layer 2 --batch_size 4 --dropout 0.1"
)


@dataclass(frozen=True)
class Place:
    """A folder to run examples in, and the environment to run them with."""

    folder: Path
    environ: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program here; what it prints comes back in one piece."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=240,
        )


def environ(extra: Path, more: dict[str, str]) -> dict[str, str]:
    """Return the environment to run programs with, so that they are those of this checkout.

    Args:
        extra: a folder of further packages.
        more: variables.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return {
        **os.environ,
        **more,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(extra), str(ROOT)]),
        "PYTHONIOENCODING": "utf-8",
        # torchdata 0.11 calls what torch 2.13 deprecates.
        "PYTHONWARNINGS": "error,ignore:'set_vital' is deprecated",
        "OMP_NUM_THREADS": "1",
    }
