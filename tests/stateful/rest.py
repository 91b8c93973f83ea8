"""What has to hold when nobody does anything any more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.stateful.ledger import Ledger, State, canonical
from tests.stateful.promises import broken

if TYPE_CHECKING:
    from tests.stateful.world import World

__all__ = ["at_rest", "tidy"]

_TEMPORARY = ".tmp-"


def at_rest(world: World, *, saved: bool) -> None:
    """Check a location after one undisturbed save, or one run of doctor.

    Args:
        world: the history, in which nobody does anything any more.
        saved: whether it was a save, which leaves nothing older.
    """
    ledger = world.ledger
    ledger.look(world.place.files(), world.moment)
    top = ledger.now.newest
    if top is None or world.history:
        return
    files = {name: data for name, data in ledger.files.items() if "/" not in name}
    manifest = json.loads(files.pop("manifest.json", b"{}"))
    if manifest.get("write_id") != top.wid:
        raise broken(world, f"G1: the newest is {top.wid}, the view {manifest.get('write_id')}'s")
    for name, path in top.shown.items():
        right, held = ledger.files[f"{top.folder}/{path}"], files.pop(name, None)
        if held == right or (name == "config.json" and _edited(ledger, top, held)):
            continue
        raise broken(world, f"G1: {name} in the view is not that of {top.folder}")
    extra = sorted(name for name in files if not name.startswith(_TEMPORARY))
    if extra:
        raise broken(world, f"G1: the view of {top.folder} holds {extra} too")
    for name in ledger.files:
        folder = name.rpartition("/")[0]
        older = folder.startswith(".ckptstore/") and folder < top.folder
        if older and (saved or f"{folder}/manifest.json" not in ledger.files):
            raise broken(world, f"{name} is left over below {top.folder}")


def _edited(ledger: Ledger, top: State, held: bytes | None) -> bool:
    return held is not None and ledger.edited(top, canonical(json.loads(held)))


def tidy(world: World) -> None:
    """Check that nothing is left over, a day later and after doctor."""
    world.ledger.look(world.place.files(), world.moment)
    states = world.ledger.now.states
    for name in world.ledger.files:
        folder, _, file = name.rpartition("/")
        if file.startswith(_TEMPORARY):
            raise broken(world, f"{name} is left over after doctor")
        known = folder in states and file in {"manifest.json", *states[folder].paths}
        if folder and not known:
            raise broken(world, f"{name} is left over after doctor")
