"""Carrying checkpoints over: `sync` keeps the bytes, `convert` keeps the tensors."""

from ckptstore.progress import OnProgress, Progress
from ckptstore.transfer.converting import convert
from ckptstore.transfer.copying import sync, sync_steps
from ckptstore.transfer.report import Transfer

__all__ = ["OnProgress", "Progress", "Transfer", "convert", "sync", "sync_steps"]
