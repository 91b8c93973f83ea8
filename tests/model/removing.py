"""Programs that remove: manifest first, then the files, each only while it is still its own."""

from __future__ import annotations

from .attempt import remove_files
from .looking import Program, committed
from .world import MANIFEST, PIN, TEXT, WORD, Manifest, Op, Setting

__all__ = ["loose", "remove_leftovers", "remove_older", "remove_state"]


def remove_older(setting: Setting, number: int) -> Program:
    """Remove the generations below one, and leftovers that no longer count."""
    found = yield from committed(setting, "g")
    for older in found:
        if older < number:
            manifest = yield Op("read", f"g{older}/{MANIFEST}")
            if manifest is not None:
                yield from remove_state(setting, manifest, False)
            del manifest
    del found, number
    yield from remove_leftovers(setting)


def remove_state(setting: Setting, state: Manifest, durable: bool = True, by: str = "W") -> Program:
    """Remove a state, manifest first, what is still its: `remove.remove_state`.

    Returns False where it is pinned.

    Args:
        state: which.
        durable: whether its manifest has to be gone for good before its files go.
        by: who removes it.
    """
    rules, folder = setting.rules, state.folder
    word = f"{folder}/{WORD}.{by}" if folder[0] == "s" else None
    alone = not setting.pins and all(state.wid in path for _, path in state.paths)
    if word is not None and rules.word_first:
        # Nobody but who pins looks at it.
        yield Op("create", word, by, "own", not setting.pins)
    before = yield Op("list", folder, alone=alone)
    if word is not None and PIN in dict(before):
        if rules.word_first:
            yield Op("delete", word, None, "own", not setting.pins)
        return False
    # Of what is under names of its own nobody asks what was there.
    before = () if alone else before
    if word is not None and not rules.word_first:
        yield Op("create", word, by, "own", not setting.pins)
    yield from _remove_saved(setting, state, durable, before, alone)
    del before
    if word is not None:
        yield Op("delete", word, None, "own", not setting.pins)
    return True


def _remove_saved(
    setting: Setting,
    state: Manifest,
    durable: bool,
    before: tuple[tuple[str, str], ...],
    alone: bool,
) -> Program:
    """Remove manifest and files, if they are still those of a write: `remove._remove`."""
    rules, folder = setting.rules, state.folder
    delete = "delete_if" if rules.delete_if else "delete"
    found = yield Op("read", f"{folder}/{MANIFEST}")
    if found is None or found.wid != state.wid:
        return
    del found
    if rules.manifest_first:
        yield Op(delete, f"{folder}/{MANIFEST}", state.wid)
        if durable:  # Else a loss of power may tear it.
            yield Op("flush", folder, alone=True)
    after = yield Op("list", folder, alone=alone)
    for plain, path in state.paths:
        same = path in dict(after) and dict(before).get(path) == dict(after)[path]
        if state.wid in path or same:
            # Nobody reads the text's own file, for the manifest has the text.
            own = "own" if state.wid in path else None
            wid = None if delete == "delete" else state.wid
            yield Op(delete, f"{folder}/{path}", wid, own, alone=bool(own) and plain == TEXT)
        del same
    if folder[0] == "s" and PIN in dict(after):
        yield Op("delete", f"{folder}/{PIN}")
    if not rules.manifest_first:
        yield Op("delete", f"{folder}/{MANIFEST}", state.wid)


def remove_leftovers(setting: Setting) -> Program:
    """Remove the folders of generations without a manifest."""
    found = yield from loose(setting)
    for number in found:
        yield from remove_files(setting, f"g{number}")


def loose(setting: Setting) -> Program:
    """Return the generations without a manifest: `remove.leftover_generations`."""
    folders = yield Op("folders", "g")
    there = yield from committed(setting, "g")
    if setting.rules.below_newest:
        # ◆ Only below or at the newest, where no commit can count any more.
        return tuple(n for n in folders if there and n not in there and n <= there[-1])
    return tuple(n for n in folders if n not in there)
