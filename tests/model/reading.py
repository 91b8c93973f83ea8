"""Programs that open a single checkpoint, and read all of it."""

from __future__ import annotations

from .looking import Program, look, newest
from .world import MANIFEST, Manifest, Op, Setting

__all__ = ["open_newest", "read_all", "reader"]


def reader(setting: Setting) -> Program:
    """Open the newest, and read all of it: `checkpoint.open`, `files.CommittedFiles`."""
    began = yield Op("start", alone=True)
    state, _ = yield from open_newest(setting, began)
    del began, _
    yield from read_all(setting, state)


def open_newest(setting: Setting, began: int) -> Program:
    """Return the state that was opened, and a person's text."""
    while True:
        yield Op("list", "v", alone=True)  # Whether there are generations, steps, or both.
        state = yield from newest(setting)
        if state is None:
            yield Op("bad", "G2: a reader finds nothing where something was", alone=True)
        found = yield from look(setting, state)
        if found is None:
            del state, found
            continue
        if found.replaced:
            yield Op("claim", "replaced", found.replaced, alone=True)
        if found.edit is not None:
            yield Op("claim", "edit", found.edit, alone=True)
        if state.number < began:
            older = f"G2: opens generation {state.number}, {began} was returned"
            yield Op("bad", older, alone=True)
        return state, found.edit


def read_all(setting: Setting, state: Manifest) -> Program:
    """Read every byte of a state that was opened, in two pieces."""
    for _, path in state.data():
        name = f"{state.folder}/{path}"
        held = yield Op("open", name)
        right = held == state.wid
        if right and setting.storage == "s3":  # Elsewhere what was opened stays readable.
            right = yield Op("chunk", name, held)
        if not right:
            yield from _fault(setting, state, path)
            return
        del name, held, right
    yield Op("end", "ok", alone=True)


def _fault(setting: Setting, state: Manifest, path: str) -> Program:
    """Tell a state that is gone from damage: `CommittedFiles.superseded`."""
    if setting.rules.recheck:  # ◆ Read that manifest again.
        again = yield Op("read", f"{state.folder}/{MANIFEST}")
        if again is None or again.wid != state.wid:
            yield Op("end", "superseded", alone=True)
            return
    yield Op("bad", f"G4, G7: {path} of {state.wid} is called damaged, and was not", alone=True)
