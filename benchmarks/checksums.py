"""``python -m benchmarks.checksums``: what a checksum of one chunk costs, against copying it.

The packages of the extra ``bench`` are measured where they are installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import zlib
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import measure, print_table

_CHUNK = 8 * 2**20
_COPY = "a copy in memory"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checksums", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chunks", type=int, default=16, help="chunks of 8 MiB in each call")
    options = parser.parse_args()

    chunks = [os.urandom(_CHUNK) for _ in range(options.chunks)]
    target = memoryview(bytearray(_CHUNK))
    calls: dict[str, Callable[[bytes], object]] = {_COPY: lambda chunk: _copy(target, chunk)}
    calls.update(_algorithms())
    variants = {name: _over(call, chunks) for name, call in calls.items()}
    found = measure(variants, baseline=_COPY, rounds=options.rounds)
    print_table(found, nbytes=_CHUNK * options.chunks, baseline=_COPY)


def _algorithms() -> dict[str, Callable[[bytes], object]]:
    found: dict[str, Callable[[bytes], object]] = {}
    for label, module, name in (
        ("XXH3-128 (xxhash)", "xxhash", "xxh3_128_digest"),
        ("CRC-32 (isal)", "isal.isal_zlib", "crc32"),
        ("CRC-32C (google-crc32c)", "google_crc32c", "value"),
        ("BLAKE3, one thread (blake3)", "blake3", "blake3"),
    ):
        try:
            call: Any = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            print(f"{label} is not installed; pip install 'ckptstore[bench]' brings it\n")
            continue
        found[label] = _digest(call) if name == "blake3" else call
    found["CRC-32 (zlib)"] = zlib.crc32
    found["SHA-256 (hashlib)"] = lambda chunk: hashlib.sha256(chunk).digest()
    return found


def _digest(call: Any) -> Callable[[bytes], object]:
    return lambda chunk: call(chunk).digest()


def _copy(target: memoryview, chunk: bytes) -> None:
    target[:] = chunk


def _over(call: Callable[[bytes], object], chunks: list[bytes]) -> Callable[[], object]:
    def run() -> None:
        for chunk in chunks:
            call(chunk)

    return run


if __name__ == "__main__":
    main()
