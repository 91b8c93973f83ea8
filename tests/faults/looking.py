"""What has to hold after whatever went wrong: a whole state, and a location that goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import ckptstore
from ckptstore.commit.layout import (
    PIN,
    generation_folder,
    newest_generation,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.commit.repair import repair
from ckptstore.errors import ConflictError, NotFoundError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage import connect
from ckptstore.tiers.journal import JOURNAL
from tests.faults.acts import Act, Place

__all__ = ["NOTHING", "Expected", "expected_of", "found", "goes_on", "left_over"]

NOTHING = "nothing"
REPLACED = "a file was replaced by hand"
_NEXT = 8
_PINNED = ", pinned: "


@dataclass(frozen=True)
class Expected:
    """What may be found at the location that an act changes, and what at the other one.

    Attributes:
        old: before the act.
        new: after it.
        whole: all that may be found while it is under way.
        source: what the other location holds all the time.
    """

    old: str
    new: str
    whole: tuple[str, ...]
    source: str | None


def found(place: Place, url: str) -> str:
    """Open a location as a fresh process does, prove and load all of it, and say what it is.

    Every tensor holds the number of its state, so what is a mixture reads as none of the states.
    The other steps of a history have to be whole too.
    """
    with place.store(url) as store:
        for step in store.steps():
            _described(store.open(step))
        pinned = store.pinned()
    try:
        checkpoint = ckptstore.open(url, storage_options=place.options)
    except NotFoundError as error:
        if "no checkpoint in" in str(error):
            return NOTHING
        raise
    except ConflictError as error:
        if "was replaced by hand" in str(error):
            return REPLACED
        raise
    return _described(checkpoint) + (f"{_PINNED}{pinned}" if pinned else "")


def _described(checkpoint: ckptstore.Checkpoint) -> str:
    parts: dict[str, Any] = {"model": checkpoint.load_model()}
    if checkpoint.training_state and "optimizer_file" in checkpoint.training_state:
        parts["optimizer"] = checkpoint.load_optimizer()
    for name in checkpoint.states():
        parts[name] = checkpoint.load_state(name)
    for file in checkpoint.verify().files:
        assert file.status in ("ok", "behind", "not verified"), file
    numbers = {name: sorted(_numbers(part)) for name, part in parts.items()}
    assert all(len(values) == 1 for values in numbers.values()), f"a mixture: {numbers}"
    return json.dumps(
        {
            "format": checkpoint.format,
            "step": checkpoint.step,
            "config": checkpoint.config,
            "tokenizer": checkpoint.tokenizer_state,
            "files": {n: data.decode() for n, data in checkpoint.tokenizer_files().items()},
            "numbers": numbers,
            "edited": checkpoint.edited,
        },
        sort_keys=True,
    )


def _numbers(part: Any) -> set[float]:
    if isinstance(part, dict):
        return {number for value in part.values() for number in _numbers(value)}
    if isinstance(part, (list, tuple)):
        return {number for value in part for number in _numbers(value)}
    return {float(value) for value in part.unique()}


def expected_of(act: Act, place: Place) -> Expected:
    """Do an act without any fault, and say what was there before, between and after."""
    act.prepare(place)
    old = found(place, act.changed(place))
    source = found(place, place.url) if act.copies else None
    act.run(place)
    new = found(place, act.changed(place))
    between = tuple(_called(number) for number in act.between)
    if act.removes:
        assert new == NOTHING, new
        between += tuple(_called(number) for number in range(1, 5))
    return Expected(old, new, (old, *between, new), source)


def _called(number: int) -> str:
    """Return what `found` says of one of the numbered states."""
    return json.dumps(
        {
            "format": "bundle",
            "step": number,
            "config": {"number": number},
            "tokenizer": None,
            "files": {},
            "numbers": {"model": [float(number)]},
            "edited": [],
        },
        sort_keys=True,
    )


def goes_on(
    act: Act, place: Place, expected: Expected, number: int = 0, *, later: bool = True
) -> str:
    """Look at a location after something went wrong, mend it, save into it; return what it held.

    Args:
        act: what was under way.
        place: where.
        expected: what may be there.
        number: whether it is first saved into or mended, or the act done again.
        later: also clean up as if a day had passed.

    Raises:
        AssertionError: it is not one of the whole states, or something does not go on.
    """
    url = act.changed(place)
    before = found(place, url)
    _check_staying(act, place, url)
    assert before in expected.whole, f"found {before}, not one of {sorted(set(expected.whole))}"
    first = number % 3
    if first == 2 and before != expected.new:
        act.run(place)
        assert found(place, url) == expected.new, f"done again it is {found(place, url)}"
    elif first == 1 and before != REPLACED:
        _save(act, place)
    if found(place, url) != NOTHING:
        _mend(act, place, url)
    if first == 0:
        after = found(place, url)
        assert after == before or before == REPLACED, f"mending made {after} of {before}"
    _save(act, place)
    storage = connect(url, place.options)
    if later:
        # The day after, what nobody can commit any more is cleaned up.
        repair(storage, older_than=-1)
        assert repair(storage, older_than=-1) == (), "mending is done when it is done"
        untidy = left_over(storage)
        assert not untidy, f"left over: {untidy}"
    assert found(place, url).partition(_PINNED)[0] == _called(_NEXT), found(place, url)
    return before


def _check_staying(act: Act, place: Place, url: str) -> None:
    with place.store(url) as store:
        there = store.steps()
    assert {*act.stay} <= {*there}, f"of {act.stay} there are {there}"


def _mend(act: Act, place: Place, url: str) -> None:
    with place.store(url) as store:
        store.repair(restore=act.name in ("adopt", "restore"))


def _save(act: Act, place: Place) -> None:
    if act.history:
        place.step(_NEXT, _NEXT, act.changed(place))
    else:
        place.save(_NEXT, act.changed(place))


def left_over(storage: Any) -> list[str]:
    """Return every file and folder that no committed state accounts for."""
    top, numbers = newest_generation(storage), steps(storage)
    wanted: dict[str, Manifest] = {}
    if top is not None:
        wanted[generation_folder(top.manifest.generation or 0)] = top.manifest
    for step in numbers:
        manifest = read_manifest(storage, step_folder(step))
        assert manifest is not None
        wanted[step_folder(step)] = manifest
    extra = []
    there = storage.list("")
    shown = {MANIFEST, *top.manifest.texts, *top.manifest.files} if top is not None else set()
    extra += [name for name in there.files if name not in {*shown, "latest.pt"}]
    folders = [folder for folder in there.folders if folder != ".ckptstore"]
    folders += [f".ckptstore/{name}" for name in storage.list(".ckptstore").folders]
    extra += [f".ckptstore/{name}" for name in storage.list(".ckptstore").files]
    for folder in folders:
        if folder == JOURNAL:
            files = storage.list(folder).files
            extra += [f"{folder}/{n}" for n in files if n != "lock" and not n.endswith(".json")]
        elif folder not in wanted:
            extra.append(f"{folder}/")
        else:
            listed = {MANIFEST, PIN, *wanted[folder].paths()}
            extra += [f"{folder}/{n}" for n in storage.list(folder).files if n not in listed]
    return extra
