"""Programs of the history: a step's save, overwriting, retention, going back, cleaning by age."""

from __future__ import annotations

from .attempt import commit, remove_files, replace, write
from .looking import Program, committed, newest
from .reading import read_all
from .removing import loose, remove_state
from .world import MANIFEST, Manifest, Op, Setting

__all__ = ["open_step", "remove_states", "remove_steps", "rewind", "save_step", "sweep"]


def save_step(
    setting: Setting,
    wid: str,
    step: int,
    keep: int = 0,
    overwrite: bool = False,
    same: bool = False,
    plain: str = "cm",
) -> Program:
    """Save a step, and remove what is not kept: `save.save_step` and `Committer.commit`.

    Args:
        wid: the write's id.
        step: which.
        keep: how many of the last steps stay; 0 for all.
        overwrite: replace what is there with other content.
        same: whether the content is that of the step that is there.
        plain: the plain names of its files.
    """
    rules, folder = setting.rules, f"s{step}"
    old = yield Op("read", f"{folder}/{MANIFEST}")
    if old is not None and (same or not overwrite):
        if same:
            yield Op("flush", folder, alone=True)
        yield Op("end", "ok" if same else "conflict", alone=True)
        return
    del same, overwrite
    if old is not None and not rules.swap:
        yield from remove_state(setting, old)
        old = None
    manifest = yield from write(setting, Manifest(wid, folder, (), wid), plain)
    if old is None:
        done = yield from commit(setting, manifest)
    else:
        done = yield from replace(setting, manifest, old)
    if not done:
        return
    yield Op("ack", folder, wid, alone=True)
    if old is not None:
        yield from _remove_replaced(setting, old, manifest)
    del done, old, manifest, rules, folder, plain, wid
    if keep:
        yield from _retain(setting, step, keep)
    yield Op("end", "ok", alone=True)


def _remove_replaced(setting: Setting, old: Manifest, new: Manifest) -> Program:
    """Remove the files of the state that was replaced: `save._remove_replaced`."""
    kept = {path for _, path in new.paths}
    gone = tuple(path for _, path in old.paths if path not in kept)
    folder, wid = old.folder, old.wid
    del kept, old, new
    kind = "delete_if" if setting.rules.delete_if else "delete"
    for path in gone:
        own = "own" if wid in path else None
        yield Op(kind, f"{folder}/{path}", wid if kind == "delete_if" else None, own)


def _retain(setting: Setting, step: int, keep: int) -> Program:
    """Remove all but the last steps, never the one just saved: `Committer.commit`."""
    found = yield from committed(setting, "s")
    states: tuple[Manifest, ...] = ()
    for number in found:
        manifest = yield Op("read", f"s{number}/{MANIFEST}")
        if manifest is not None:
            states = (*states, manifest)
        del manifest
    gone = tuple(state for state in states[:-keep] if state.number != step)
    del found, states, step, keep
    for state in gone:
        yield from remove_state(setting, state)


def open_step(setting: Setting) -> Program:
    """Open the newest step, and read all of it."""
    yield Op("start", alone=True)
    yield Op("list", "v", alone=True)  # Whether there are generations, steps, or both.
    state = yield from newest(setting, "s")
    if state is None:
        yield Op("bad", "G2: a reader finds nothing where something was", alone=True)
    yield from read_all(setting, state)


def rewind(setting: Setting, step: int) -> Program:
    """Remove the steps above one, the highest first: `Store.rewind`."""
    there = yield from committed(setting, "s")
    if step not in there:
        yield Op("end", "no such step", alone=True)
        return
    yield from newest(setting, "g")
    yield from remove_states(setting, *(number for number in reversed(there) if number > step))


def remove_steps(setting: Setting, *steps: int) -> Program:
    """Remove steps: `Store.remove`."""
    yield from committed(setting, "s")
    yield from remove_states(setting, *steps)


def remove_states(setting: Setting, *steps: int) -> Program:
    """Remove steps, one after another: `remove.remove_step`."""
    for number in steps:
        manifest = yield Op("read", f"s{number}/{MANIFEST}")
        if manifest is not None:
            yield from remove_state(setting, manifest)
        del manifest
    yield Op("end", "ok", alone=True)


def sweep(setting: Setting) -> Program:
    """Remove what killed saves left in a history, by age: `repair.repair` where steps are.

    What is looked at for the sake of generations, and of what is damaged, is here only for its
    order.
    """
    old = yield Op("sleepers", "s", setting.ages)
    yield from newest(setting)
    yield from loose(setting)
    yield Op("folders", "g", alone=True)
    yield Op("list", "v", alone=True)
    found = yield from _old_in_steps(setting, old)
    del old
    yield Op("list", "v", alone=True)
    yield from committed(setting, "s")
    yield from newest(setting)
    for folder, dead in found:
        if not setting.rules.only_old:
            yield from remove_files(setting, folder)
            continue
        listed = yield Op("list", folder)
        for name, value in dead:
            if (name, value) in listed:
                own = "own" if name == f"{name[0]}.{value}" else None
                kind, wid = ("delete_if", value) if setting.rules.delete_if else ("delete", None)
                yield Op(kind, f"{folder}/{name}", wid, own)
                del own, kind, wid
        del listed
    del found
    there = yield from committed(setting, "s")
    for number in there:
        yield Op("read", f"s{number}/{MANIFEST}", alone=True)
    yield Op("end", "ok", alone=True)


def _old_in_steps(setting: Setting, old: tuple[str, ...]) -> Program:
    """Return what is old in each step and in no manifest: `leftovers._find_in_steps`."""
    there = yield from committed(setting, "s")
    for number in reversed(there):  # Whose plain names are ours.
        if (yield Op("read", f"s{number}/{MANIFEST}", alone=True)) is not None:
            break
    found: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    if not there:
        return found
    folders = yield Op("folders", "s")
    for number in folders:
        files = yield Op("list", f"s{number}")
        listed: tuple[str, ...] = (MANIFEST,)
        if number in there:
            manifest = yield Op("read", f"s{number}/{MANIFEST}")
            # Where nobody can say what is listed, nothing goes.
            paths = () if manifest is None else tuple(path for _, path in manifest.paths)
            listed = (MANIFEST, *(paths or tuple(name for name, _ in files)))
            del manifest, paths
        elif MANIFEST in dict(files):  # It was committed meanwhile.
            listed = tuple(name for name, _ in files)
        dead = tuple((name, value) for name, value in files if name not in listed and value in old)
        if dead:
            found = (*found, (f"s{number}", dead))
        del files, listed, dead
    del folders, there, old
    left: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    for folder, dead in found:  # Less what a manifest names by now: `leftovers._unnamed`.
        manifest = yield Op("read", f"{folder}/{MANIFEST}")
        named = () if manifest is None else tuple(path for _, path in manifest.paths)
        left = (*left, (folder, tuple(file for file in dead if file[0] not in named)))
        del manifest, named
    return tuple((folder, dead) for folder, dead in left if dead)
