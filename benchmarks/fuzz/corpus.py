"""The minimised corpus: one zip of inputs for each target, kept in ``tests/fuzz/corpus``."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["KEPT", "kept_inputs", "name_of", "pack", "write_inputs"]

KEPT = Path(__file__).parents[2] / "tests" / "fuzz" / "corpus"
_MOST_BYTES = 45_000


def kept_inputs(target: str) -> list[bytes]:
    """Return the inputs that are kept for a target, in a fixed order; none where nothing is."""
    path = KEPT / f"{target}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in sorted(archive.namelist())]


def write_inputs(folder: Path, inputs: Iterable[bytes]) -> None:
    """Write inputs into a folder, each under its own digest."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / name_of(data)).write_bytes(data)


def pack(target: str, inputs: Iterable[bytes]) -> int:
    """Keep inputs of a target, the small ones first, as far as there is room; return how many."""
    chosen = sorted(set(inputs), key=lambda data: (len(data), data))
    path = KEPT / f"{target}.zip"
    KEPT.mkdir(parents=True, exist_ok=True)
    while True:
        _write(path, chosen)
        if path.stat().st_size <= _MOST_BYTES or len(chosen) < 2:
            return len(chosen)
        del chosen[max(1, len(chosen) * 9 // 10) :]


def name_of(data: bytes) -> str:
    """Return the name of an input."""
    return hashlib.sha256(data).hexdigest()[:16]


def _write(path: Path, inputs: Iterable[bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for data in inputs:
            # The date is fixed, so that the same inputs are the same bytes.
            member = zipfile.ZipInfo(name_of(data), (2026, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_LZMA
            archive.writestr(member, data)
