"""Tensors into a `.pt` and out of it; the only package of ckptstore that imports torch.

What is written is what `torch.save` writes, and plain ``torch.load(..., weights_only=True)``
reads it. What is read is first looked through without torch (`ckptstore.ptfile`), then read by
torch's weights-only loader straight into the tensors' memory; there is no other way in (G5, G6).
"""

from __future__ import annotations

from ckptstore.ptfile.names import repaired
from ckptstore.tensors.boxes import Box, BoxFile, empty, narrowed, overwritten, placed
from ckptstore.tensors.compact import is_plain
from ckptstore.tensors.filling import fill
from ckptstore.tensors.later import later, loaded
from ckptstore.tensors.loading import load
from ckptstore.tensors.memory import bytes_of
from ckptstore.tensors.modules import (
    check_model,
    fillable,
    fits,
    restore,
    restore_model,
    restore_optimizer,
    state_dict_of,
)
from ckptstore.tensors.optimizers import check_optimizer
from ckptstore.tensors.randomness import RandomStates
from ckptstore.tensors.rows import Boxed, rows_of_boxes
from ckptstore.tensors.saving import Checked, checked, save
from ckptstore.tensors.staging import cores_to_spare
from ckptstore.tensors.states import (
    check_states,
    foreign_states,
    known_states,
    restore_states,
    state_of,
)
from ckptstore.tensors.values import alike, distance, imprint, statistics

__all__ = [
    "Box",
    "BoxFile",
    "Boxed",
    "Checked",
    "RandomStates",
    "alike",
    "bytes_of",
    "check_model",
    "check_optimizer",
    "check_states",
    "checked",
    "cores_to_spare",
    "distance",
    "empty",
    "fill",
    "fillable",
    "fits",
    "foreign_states",
    "imprint",
    "is_plain",
    "known_states",
    "later",
    "load",
    "loaded",
    "narrowed",
    "overwritten",
    "placed",
    "repaired",
    "restore",
    "restore_model",
    "restore_optimizer",
    "restore_states",
    "rows_of_boxes",
    "save",
    "state_dict_of",
    "state_of",
    "statistics",
]
