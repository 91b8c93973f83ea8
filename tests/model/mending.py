"""Programs of `doctor`: what was cut off is completed, what was left behind goes."""

from __future__ import annotations

from .attempt import remove_files
from .looking import NOTHING, Program, look, newest, shows
from .removing import loose, remove_leftovers
from .single import show
from .world import MANIFEST, TEXT, Manifest, Op, Setting

__all__ = ["cleaner", "doctor"]


def doctor(setting: Setting) -> Program:
    """Refresh a view that is behind, and remove leftovers of generations: `repair.repair`.

    What is left in steps, and by age, is for `history.sweep`; the listings made for those are
    here only for their order.
    """
    top = yield from newest(setting)
    found = yield from loose(setting)
    dropped: tuple[int, ...] = ()
    for number in found:  # An empty folder is nothing to a storage of keys.
        if (yield Op("list", f"g{number}")):
            dropped = (*dropped, number)
    del found
    dead = yield from _beside(setting, top)
    del top
    yield Op("list", "v", alone=True)
    yield from _no_steps(setting)
    if not (yield from _repair_view(setting)):
        yield Op("end", "conflict", alone=True)
        return
    for number in dropped:
        yield from remove_files(setting, f"g{number}")
    del dropped
    if dead:
        folder, files = dead
        del dead
        listed = yield Op("list", folder)
        for name, value in files:
            if (name, value) in listed:
                yield Op("delete", f"{folder}/{name}", other="own")
        del listed, folder, files
    yield from _no_steps(setting)
    yield Op("end", "ok", alone=True)


def _beside(setting: Setting, top: Manifest | None) -> Program:
    """Return the newest generation's folder, and what lies in it beside its own files."""
    dead: tuple[tuple[str, str], ...] = ()
    if top is not None:
        listed = yield Op("list", top.folder)
        own = {path for _, path in top.paths}
        dead = tuple((n, value) for n, value in listed if "." in n and n not in own)
        del listed, own
    folders = yield Op("folders", "g", alone=True)  # Above the newest it is age that counts.
    above = tuple(number for number in folders if top is None or number > top.number)
    del folders
    for number in above:
        yield Op("list", f"g{number}", alone=True)
    for number in above:
        yield Op("list", f"g{number}", alone=True)
    del above
    yield Op("list", "v", alone=True)
    if top is not None:
        yield Op("list", top.folder, alone=True)
    yield from _no_steps(setting)
    if top is not None and dead:
        again = yield Op("read", f"{top.folder}/{MANIFEST}")
        named = () if again is None else tuple(path for _, path in again.paths)
        dead = tuple(file for file in dead if file[0] not in named)
        del again, named
    return (top.folder, dead) if top is not None and dead else ()


def _no_steps(setting: Setting) -> Program:
    """Look for steps, of which a single checkpoint has none."""
    yield Op("folders" if setting.storage == "local" else "holding", "s", alone=True)
    if setting.storage == "local":
        yield Op("folders", "s", alone=True)


def _repair_view(setting: Setting) -> Program:
    """Complete the view, and return False where a person's file is in it."""
    state = yield from newest(setting)
    if state is None:
        return True
    found = yield from look(setting, state, setting.rules.doctor_compares)
    if found is None:
        found = NOTHING
    if found.replaced:
        yield Op("claim", "replaced", found.replaced, alone=True)
        return False
    if not found.late:
        right = yield from shows(setting, state)
        if right:
            return True
        del right
    yield from show(setting, state, () if found.edit is None else (TEXT,))
    return True


def cleaner(setting: Setting) -> Program:
    """Remove leftovers of generations, as `doctor` does."""
    yield from remove_leftovers(setting)
    yield Op("end", "ok", alone=True)
