"""Carrying checkpoints over: `sync` keeps the bytes, `convert` keeps the tensors."""

from ckptstore.progress import OnProgress, Progress
from ckptstore.transfer.converting import convert
from ckptstore.transfer.copying import sync
from ckptstore.transfer.report import Transfer

__all__ = ["OnProgress", "Progress", "Transfer", "convert", "sync"]
