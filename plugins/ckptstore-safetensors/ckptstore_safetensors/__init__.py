"""The format ``safetensors`` for ckptstore: bundles with ``.safetensors`` files for tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptstore import hookimpl

if TYPE_CHECKING:
    from ckptstore.formats.base import Format

__all__ = ["ckptstore_formats"]


@hookimpl
def ckptstore_formats() -> list[type[Format]]:
    """Return the format ``safetensors``."""
    from ckptstore_safetensors.format import SafetensorsFormat

    return [SafetensorsFormat]
