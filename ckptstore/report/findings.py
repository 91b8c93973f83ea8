"""What a report is made of: everything that is known of a checkpoint, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

from ckptstore import history, opening, plugins
from ckptstore.checkpoint import Checkpoint, FileInfo
from ckptstore.differences import Difference, compared
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    PluginError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.manifest import TensorInfo
from ckptstore.opening import Location
from ckptstore.progress import OnProgress
from ckptstore.statistics import Statistics
from ckptstore.structure import Structure
from ckptstore.verify import Report

__all__ = ["Findings", "gather"]

_BINS = 48
_MOST_STEPS = 1000
_TOLD = (CorruptionError, NotFoundError, PluginError, UnsafeError, UnsupportedError)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Findings:
    """What was found of one checkpoint.

    Attributes:
        checkpoint: what the report is about; its attributes, and no more reads.
        made: when it was looked at, with a time zone.
        tensors: of the model.
        files: that it is made of.
        structure: what the pickles say, by part.
        statistics: of the tensors that were read, with histograms.
        rows: of the run's metrics.jsonl.
        steps: of a history, the metrics of its steps, the last thousand.
        vocabulary: a line about the tokenizer's.
        difference: from another checkpoint to this one.
        proof: what `verify` found, where that was asked for.
        faults: what could not be read, and why.
    """

    checkpoint: Checkpoint
    made: datetime
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    structure: Mapping[str, Structure] = field(default_factory=dict)
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    steps: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    vocabulary: str = ""
    difference: Difference | None = None
    proof: Report | None = None
    faults: tuple[CkptstoreError, ...] = ()

    @property
    def fault(self) -> CkptstoreError | None:
        """The worst of what is wrong with the checkpoint itself; None where it is sound."""
        for kind in (UnsafeError, CorruptionError):
            for error in self.faults:
                if isinstance(error, kind):
                    return error
        return None


def gather(
    location: Location,
    other: Location | None = None,
    *,
    step: int | None = None,
    fallback: bool = False,
    weights: bool = True,
    verify: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    other_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Findings:
    """Open a checkpoint and look at all of it; what cannot be read is a fault, and told.

    Args:
        location: path or URL.
        other: what it is compared with.
        step: of a history; the newest by default.
        fallback: as for `ckptstore.open`.
        weights: whether values are read, proved, for histograms and distances.
        verify: prove every file first.
        storage_options: what fsspec's filesystem takes.
        other_options: likewise, for ``other``; the same where left out.
        progress: called with `Progress` events.

    Raises:
        CkptstoreError: it cannot be opened, or the storage failed.
    """
    checkpoint = opening.open(
        location, step=step, fallback=fallback, storage_options=storage_options
    )
    own = storage_options if other_options is None else other_options
    before = None if other is None else opening.open(other, storage_options=own)
    tried = _Tried()
    proof = checkpoint.verify(progress=progress) if verify else None
    weights = weights and not tried.take(proof)
    tensors: dict[str, TensorInfo] = tried(lambda: checkpoint.tensors(), {})
    read: dict[str, Statistics] = {}
    if weights:
        read = tried(lambda: checkpoint.statistics(tensors, bins=_BINS, progress=progress), {})
    difference = None
    if before is not None:
        difference = tried(
            lambda: compared(before, checkpoint, statistics=bool(read), progress=progress), None
        )
    return Findings(
        checkpoint=checkpoint,
        made=datetime.now(timezone.utc),
        tensors=tensors,
        files=tried(checkpoint.files, {}),
        structure=tried(checkpoint.structure, {}),
        statistics=read,
        rows=tried(checkpoint.load_metrics_log, ()),
        steps=tried(lambda: _steps(location, checkpoint, storage_options), {}),
        vocabulary=tried(lambda: _vocabulary(checkpoint), ""),
        difference=difference,
        proof=proof,
        faults=tuple(tried.faults.values()),
    )


class _Tried:
    """Reads, and keeps what fails, each failure once."""

    def __init__(self) -> None:
        self.faults: dict[str, CkptstoreError] = {}

    def __call__(self, read: Callable[[], _T], otherwise: _T) -> _T:
        """Return what was read, or something else where it cannot be."""
        try:
            return read()
        except _TOLD as error:
            self.faults.setdefault(str(error), error)
            return otherwise

    def take(self, proof: Report | None) -> bool:
        """Take the faults of a saved state that is not sound, and return whether it is not."""
        if proof is None or proof.sound:
            return False
        for file in proof.files:
            if file.error is not None and file.where != "view":
                self.faults.setdefault(str(file.error), file.error)
        return True


def _vocabulary(checkpoint: Checkpoint) -> str:
    state = checkpoint.tokenizer_state
    return "" if state is None else plugins.describe(state)


def _steps(
    location: Location, checkpoint: Checkpoint, storage_options: Mapping[str, Any] | None
) -> dict[int, Mapping[str, float]]:
    """Return the metrics of the steps of the history that a checkpoint is one of."""
    if not checkpoint.proved or checkpoint.generation is not None:
        return {}
    found = history.states(location, last=_MOST_STEPS, storage_options=storage_options)
    return {state.step: state.metrics for state in found if state.step is not None}
