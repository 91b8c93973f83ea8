"""The built-in formats, registered like those of any other plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptstore.hookspecs import hookimpl

if TYPE_CHECKING:
    from ckptstore.formats.base import Format

__all__ = ["ckptstore_formats"]


@hookimpl
def ckptstore_formats() -> list[type[Format]]:
    """Return the bundle, the shards of several processes, and the legacy single file."""
    from ckptstore.formats.bundle import BundleFormat
    from ckptstore.formats.legacy import LegacyFormat
    from ckptstore.formats.sharded import ShardedFormat

    return [BundleFormat, LegacyFormat, ShardedFormat]
