"""``python -m benchmarks.fuzz.worker TARGET FINDINGS [libFuzzer's arguments]``: one target.

A finding is written down once for each place in our code, and the search goes on. What ends the
process itself (a crash in native code, a hang, memory) libFuzzer writes down.
"""

from __future__ import annotations

import hashlib
import logging
import random
import shlex
import sys
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ckptstore"]):
    from benchmarks.fuzz.oracle import Finding, Target, check, kind_of
    from benchmarks.fuzz.targets import TARGETS

__all__ = ["main"]

_AFRESH = 0.05  # of the changes start from a seed again, whatever the search has come to


def main() -> None:
    """Fuzz until libFuzzer says that it is enough."""
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    # stderr is libFuzzer's.
    logging.disable(logging.CRITICAL)
    _warm_up(target)
    known: set[str] = set()

    def one_input(data: bytes) -> None:
        try:
            check(target, data)
        except Finding as finding:
            kind = kind_of(finding)
            if kind not in known:
                known.add(kind)
                _write_down(folder, kind, data, finding)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        # Most changes know what they change; the rest are libFuzzer's, guided by comparisons.
        rng = random.Random(seed)
        start = rng.choice(target.seeds()) if rng.random() < _AFRESH else bytes(data)
        changed = target.mutate(
            start, rng, lambda part: bytes(atheris.Mutate(part, len(part) + 16))
        )
        return changed if len(changed) <= longest else bytes(data)[:longest]

    # A merge starts itself again, by what it takes for its own name.
    own = shlex.join([sys.executable, "-m", "benchmarks.fuzz.worker", *sys.argv[1:3]])
    atheris.Setup([own, *sys.argv[3:]], one_input, custom_mutator=mutate)
    atheris.Fuzz()


def _warm_up(target: Target) -> None:
    """Let everything be imported that is imported at first use, which is no finding."""
    for _ in range(2):
        for data in target.seeds():
            try:
                check(target, data)
            except Finding:
                continue


def _write_down(folder: Path, kind: str, data: bytes, finding: Finding) -> None:
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    told = "".join(traceback.format_exception(finding))
    path.with_suffix(".txt").write_text(f"{kind}\n\n{told}", encoding="utf-8", errors="replace")
    print(f"FINDING {path} {kind}: {str(finding)[:200]!r}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
