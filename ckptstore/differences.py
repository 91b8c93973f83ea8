"""`diff`: what two checkpoints do not have in common, found without reading weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptstore.checkpoint import Checkpoint, batches
from ckptstore.manifest import TensorInfo
from ckptstore.opening import Location, open
from ckptstore.progress import OnProgress, Progress
from ckptstore.statistics import Distance
from ckptstore.structure import Structure

__all__ = ["ABSENT", "Change", "Difference", "TensorChange", "compared", "diff"]


class _Absent:
    """What stands in the place of a value that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@dataclass(frozen=True)
class Change:
    """A value that differs.

    Attributes:
        path: the keys that lead to it, joined by dots.
        before, after: the values; `ABSENT` where there is none.
    """

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class TensorChange:
    """A tensor that differs.

    Attributes:
        name: of the tensor.
        before, after: what is known of it; None where there is none.
        distance: how far the values are apart; None where that was not asked for, or makes no
            sense.
    """

    name: str
    before: TensorInfo | None
    after: TensorInfo | None
    distance: Distance | None = None

    @property
    def kind(self) -> str:
        """``added``, ``removed``, ``reshaped`` (another shape or dtype) or ``changed``."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        return "changed" if _form(self.before) == _form(self.after) else "reshaped"


@dataclass(frozen=True)
class Difference:
    """What two checkpoints do not have in common.

    Attributes:
        before, after: where they are.
        json: changes by what they are in: ``checkpoint`` (step and format), ``config``,
            ``tokenizer``, ``training state``, ``metrics``, ``optimizer`` (its groups).
        tensors: tensors that differ, by part: ``model``, ``optimizer``, and names of states.
        alike: how many tensors are the same, by part.
        unsure: names of tensors whose checksums nobody recorded, by part.
    """

    before: str
    after: str
    json: Mapping[str, tuple[Change, ...]]
    tensors: Mapping[str, tuple[TensorChange, ...]]
    alike: Mapping[str, int]
    unsure: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs, as far as it could be told."""
        return not (any(self.json.values()) or any(self.tensors.values()))


def diff(
    before: Location,
    after: Location,
    *,
    statistics: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    after_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Difference:
    """Return what differs between two checkpoints, of any formats and storages.

    Tensors are compared by dtype, shape and the CRC-32 of their record, so no weights are read; two
    that differ pass for the same in one of four thousand million cases. Tensors that share a
    storage all count as changed when one of them was.

    Args:
        before, after: paths or URLs.
        statistics: also tell how far the changed tensors are apart, which reads these.
        storage_options: what fsspec's filesystem takes, for both.
        after_options: the same for the second alone, instead of those.
        progress: called with `Progress` events where weights are read.

    Raises:
        NotFoundError, CorruptionError, UnsafeError, StorageError: as `open`.
    """
    one = open(before, storage_options=storage_options)
    own = storage_options if after_options is None else after_options
    two = open(after, storage_options=own)
    return compared(one, two, statistics=statistics, progress=progress)


def compared(
    one: Checkpoint,
    two: Checkpoint,
    *,
    statistics: bool = False,
    progress: OnProgress | None = None,
) -> Difference:
    """Return what differs between two opened checkpoints; see `diff`.

    Args:
        one: what was.
        two: what is.
        statistics: as for `diff`.
        progress: as for `diff`.
    """
    tensors: dict[str, tuple[TensorChange, ...]] = {}
    alike: dict[str, int] = {}
    unsure: dict[str, tuple[str, ...]] = {}
    for part in dict.fromkeys((*one.parts(), *two.parts())):
        found = _told(one.tensors(part), two.tensors(part))
        tensors[part], alike[part], unsure[part] = found
    if statistics:
        tensors["model"] = tuple(_measured(one, two, tensors["model"], progress))
    return Difference(one.location, two.location, _json(one, two), tensors, alike, unsure)


def _json(one: Checkpoint, two: Checkpoint) -> dict[str, tuple[Change, ...]]:
    def facts(checkpoint: Checkpoint) -> dict[str, Any]:
        structure = checkpoint.structure().get("optimizer")
        return {
            "checkpoint": {
                "format": checkpoint.format,
                "step": checkpoint.step,
                "parts": list(checkpoint.parts()),
            },
            "config": checkpoint.config or {},
            "tokenizer": checkpoint.tokenizer_state or {},
            "training state": _without_step(checkpoint.training_state),
            "metrics": checkpoint.metrics,
            "optimizer": _groups(structure),
        }

    old, new = facts(one), facts(two)
    return {name: tuple(_changes((), old[name], new[name])) for name in old}


def _without_step(state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out the step and the names of files, which are told elsewhere."""
    fields = (state or {}).items()
    return {n: v for n, v in fields if n != "step" and not n.endswith("_file")}


def _groups(structure: Structure | None) -> dict[str, Any]:
    groups = structure.groups if structure is not None else None
    return {
        f"group {number}": {"parameters": group.params, **group.values}
        for number, group in enumerate(groups or ())
    }


def _changes(path: tuple[str, ...], before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from _changes((*path, key), before.get(key, ABSENT), after.get(key, ABSENT))
    elif type(before) is not type(after) or before != after:
        yield Change(".".join(path), before, after)


def _told(
    one: Mapping[str, TensorInfo], two: Mapping[str, TensorInfo]
) -> tuple[tuple[TensorChange, ...], int, tuple[str, ...]]:
    changed = [TensorChange(name, one[name], None) for name in one if name not in two]
    alike = 0
    unsure = []
    for name, info in two.items():
        old = one.get(name)
        if old == info and info.crc32 is not None:
            alike += 1
        elif old is not None and None in (old.crc32, info.crc32) and _form(old) == _form(info):
            unsure.append(name)
        else:
            changed.append(TensorChange(name, old, info))
    return tuple(changed), alike, tuple(unsure)


def _form(info: TensorInfo) -> tuple[str, tuple[int, ...]]:
    return info.dtype, info.shape


def _measured(
    one: Checkpoint,
    two: Checkpoint,
    changes: tuple[TensorChange, ...],
    progress: OnProgress | None,
) -> Iterator[TensorChange]:
    """Yield the changes with the distances of those whose shape is the same."""
    from ckptstore import tensors

    infos = two.tensors()
    same_shape = [
        change.name
        for change in changes
        if change.before is not None and change.after and change.before.shape == change.after.shape
    ]
    total = sum(infos[name].nbytes for name in same_shape)
    found: dict[str, Distance | None] = {}
    for batch in batches(same_shape, infos):
        old, new = one.load_model(batch), two.load_model(batch)
        for name in batch:
            found[name] = tensors.distance(old.pop(name), new.pop(name))
        if progress is not None:
            done = sum(infos[name].nbytes for name in found)
            progress(Progress("diff", batch[-1], done, total))
    for change in changes:
        yield TensorChange(change.name, change.before, change.after, found.get(change.name))
