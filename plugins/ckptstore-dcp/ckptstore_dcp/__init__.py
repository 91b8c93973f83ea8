"""The format ``dcp``: the folders that torch.distributed.checkpoint writes, read."""

from __future__ import annotations

from ckptstore import hookimpl
from ckptstore_dcp.format import DcpFormat

__all__ = ["DcpFormat", "ckptstore_formats"]


@hookimpl
def ckptstore_formats() -> list[type[DcpFormat]]:
    """Return the format ``dcp``."""
    return [DcpFormat]
