"""CRC-32, by the fastest that is installed: zlib's where isal has no wheel for the platform."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
