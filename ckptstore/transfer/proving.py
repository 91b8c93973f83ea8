"""That a conversion changed nothing but the layout, seen tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ckptstore.checkpoint import Checkpoint, batches
from ckptstore.errors import CorruptionError
from ckptstore.formats.base import Contents
from ckptstore.transfer.gathering import own_fields, part_of
from ckptstore.transfer.report import Proof
from ckptstore.vocabulary import on_this_machine

__all__ = ["left_out", "proved_same", "proved_stored"]

_AT_ONCE = 32 * 2**20  # Bytes of tensors that are loaded at a time to be compared.

_FACTS: Mapping[str, Callable[[Checkpoint], Any]] = {
    "config": lambda checkpoint: checkpoint.config,
    "tokenizer": lambda checkpoint: checkpoint.tokenizer_state,
    "the tokenizer's fingerprint": lambda checkpoint: checkpoint.fingerprint,
    "step": lambda checkpoint: checkpoint.step,
    "metrics": lambda checkpoint: checkpoint.metrics or None,
    "metrics.jsonl": lambda checkpoint: checkpoint.load_metrics_log() or None,
}


def left_out(
    before: Checkpoint, after: Checkpoint, stored: Contents | None = None
) -> tuple[str, ...]:
    """Return what a checkpoint held beside tensors and is not in the one that was made of it.

    Formats have no room for some things: a single file has none for metrics.

    Args:
        before: the source.
        after: the result.
        stored: what the format makes of the source; None where that is the source itself.
    """
    kept: dict[str, Any] = {}
    if stored is not None:
        kept = {"config": stored.config, "tokenizer": stored.tokenizer_state}
        if stored.tokenizer_state not in (None, before.tokenizer_state):
            kept["the tokenizer's fingerprint"] = after.fingerprint
    lost = []
    for name, of in _FACTS.items():
        had = of(before)
        wanted = kept.get(name, had)
        if had is not None and (wanted is None or of(after) != wanted):
            lost.append(name)
    if before.has_optimizer and not after.has_optimizer:
        lost.append("optimizer")
    lost += _files_out_of_reach(before, after)
    fields = own_fields(after)
    states, new = set(after.states()), {*after.states()} - {*before.states()}
    for name, value in own_fields(before).items():
        # What has no room among the fields becomes a state, under its name or nearly that.
        moved = {name, f"{name}_", name.removesuffix("_state_dict")} & new
        if value is not None and fields.get(name) != value and not moved:
            lost.append(f"the field {name}")
    return (*lost, *(f"the state {name}" for name in before.states() if name not in states))


def _files_out_of_reach(before: Checkpoint, after: Checkpoint) -> list[str]:
    """Return files of the tokenizer that went, and that this machine does not have either."""
    gone = [name for name in before.tokenizer_files() if name not in after.tokenizer_files()]
    here = on_this_machine(before.tokenizer_state) if gone else {}
    return [name for name in gone if name not in here]


def proved_same(
    before: Checkpoint, after: Checkpoint, parts: Iterable[str]
) -> dict[str, tuple[Proof, ...]]:
    """Return every tensor of a checkpoint that was converted, as it was and as it is, by part.

    Dtypes, shapes and the checksums of their records are compared, and the values where the
    records differ, as those of a view do that was cut out of something larger. Of an optimizer its
    groups are compared too.

    Raises:
        CorruptionError: a tensor is another one now. The conversion is committed.
    """
    found = {}
    for part in parts:
        one, two = before.tensors(part), after.tensors(part)
        if not one:
            continue  # There are none, or the format cannot say which.
        proofs = tuple(Proof(name, info, two[name]) for name, info in one.items() if name in two)
        unsure = [p.name for p in proofs if p.before != p.after or p.before.crc32 is None]
        if (
            one.keys() != two.keys()
            or (part == "optimizer" and not _same_settings(before, after))
            or (unsure and not _same_values(before, after, part, unsure))
        ):
            raise _differs(before, after, part)
        if proofs:
            found[part] = proofs
    return found


def proved_stored(
    before: Checkpoint, after: Checkpoint, contents: Contents, stored: Contents
) -> dict[str, tuple[Proof, ...]]:
    """Return the proofs of a conversion to a format that stores something else than it is given.

    Parts that it stores as they are are proved as by `proved_same`. Of the others every value is
    compared with what the format says that it makes of it, a few tensors at a time (G6).

    Args:
        before: the source.
        after: the result.
        contents: all of the source.
        stored: what the format makes of it.

    Raises:
        CorruptionError: a tensor is not what it should be. The conversion is committed.
    """
    given, wanted = _parts_of(contents), _parts_of(stored)
    found = proved_same(before, after, [n for n, mine in wanted.items() if mine is given.get(n)])
    for part, mine in wanted.items():
        if mine is given.get(part):
            continue
        there = after.tensors(part)
        same = _holds_model(after, mine) if part == "model" else _holds(after, part, mine)
        if not same:
            raise _differs(before, after, part)
        if there:
            found[part] = tuple(Proof(n, replace(i, crc32=None), i) for n, i in there.items())
    return found


def _parts_of(contents: Contents) -> dict[str, Any]:
    optimizer = {} if contents.optimizer is None else {"optimizer": contents.optimizer}
    return {"model": contents.model, **optimizer, **contents.states}


def _differs(before: Checkpoint, after: Checkpoint, part: str) -> CorruptionError:
    return CorruptionError(
        f"{after.location} was made of {before.location} and is committed, but tensors of "
        f"its {part} differ; do not use it, and tell ckptstore's authors",
        committed=True,
    )


def _same_settings(before: Checkpoint, after: Checkpoint) -> bool:
    one, two = before.structure().get("optimizer"), after.structure().get("optimizer")
    return one is None or two is None or (one.groups, one.slots) == (two.groups, two.slots)


def _same_values(before: Checkpoint, after: Checkpoint, part: str, names: list[str]) -> bool:
    from ckptstore import tensors

    if part == "model":
        one, two = _Model(before), _Model(after)
        found = batches(names, after.tensors(), _AT_ONCE)
        return all(tensors.alike(one.some(batch), two.some(batch)) for batch in found)
    # Where neither can be read in pieces, only one of them is in memory at a time. What both
    # repeat is looked at once; a format may have written out what was repeated before.
    for once in (True, False):
        both = (part_of(state, part, later=True) for state in (before, after))
        mine, theirs = (tensors.imprint(state, once=once) for state in both)
        if tensors.alike(mine, theirs):
            return True
    return False


class _Model:
    """The model of a checkpoint, of which some tensors are in memory at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._later = checkpoint.reader.model_later() or {}

    def some(self, names: list[str]) -> dict[str, Any]:
        """Return tensors by name: to be read, where the format can do that, or loaded."""
        absent = [name for name in names if name not in self._later]
        loaded = self._checkpoint.load_model(absent) if absent else {}
        return {name: loaded.pop(name, self._later.get(name)) for name in names}


def _holds_model(after: Checkpoint, wanted: Mapping[str, Any]) -> bool:
    from ckptstore import tensors

    there = after.tensors()
    if there.keys() != wanted.keys():
        return False
    model = _Model(after)
    for batch in batches(wanted, there, _AT_ONCE):
        found = model.some(batch)
        if not all(tensors.alike(wanted[name], found.pop(name)) for name in batch):
            return False
    return True


def _holds(after: Checkpoint, part: str, wanted: Any) -> bool:
    from ckptstore import tensors

    there = after.has_optimizer if part == "optimizer" else part in after.states()
    return there and tensors.alike(wanted, part_of(after, part, later=True))
