"""The names of the files of tensors in this format; all others are a bundle's."""

from __future__ import annotations

__all__ = ["ENDING", "MODEL", "OPTIMIZER", "TREE"]

ENDING = ".safetensors"
MODEL, OPTIMIZER = f"model{ENDING}", f"optimizer{ENDING}"
TREE = "ckptstore"
"""Under this name a file's ``__metadata__`` says how its tensors are a nested state."""
