"""Programs of the history: a step's save, overwriting, retention, going back, cleaning by age."""

from __future__ import annotations

from .attempt import commit, remove_files, replace, write
from .looking import Program, committed, listed, newest, newest_step
from .reading import read_all
from .removing import loose, remove_state
from .world import MANIFEST, PIN, WORD, Manifest, Op, Setting

__all__ = [
    "leave_unfinished",
    "open_step",
    "pin",
    "remove_states",
    "remove_steps",
    "rewind",
    "save_step",
    "sweep",
]


def save_step(
    setting: Setting,
    wid: str,
    step: int,
    keep: int = 0,
    overwrite: bool = False,
    same: bool = False,
    plain: str = "cm",
    opened: bool = False,
) -> Program:
    """Save a step, and remove what is not kept: `save.save_step` and `Committer.commit`.

    Args:
        wid: the write's id.
        step: which.
        keep: how many of the last steps stay; 0 for all.
        overwrite: replace what is there with other content.
        same: whether the content is that of the step that is there.
        plain: the plain names of its files.
        opened: whether the store was just opened, and looks what it could take bytes over from.
    """
    if opened:
        folders = yield Op("folders", "s")
        yield from newest_step(setting, folders)
        del folders
    del opened
    rules, folder = setting.rules, f"s{step}"
    old = yield Op("read", f"{folder}/{MANIFEST}")
    if old is not None and (same or not overwrite):
        if same:
            yield Op("flush", folder, alone=True)
        yield Op("end", "ok" if same else "conflict", alone=True)
        return
    del same, overwrite
    if old is not None and not rules.swap:
        yield from remove_state(setting, old, by=wid)
        old = None
    replaces = old is not None
    manifest = yield from write(setting, Manifest(wid, folder, (), wid), plain, replaces)
    del replaces
    if old is None:
        done = yield from commit(setting, manifest)
    else:
        done = yield from replace(setting, manifest, old)
    if not done:
        return
    yield Op("ack", folder, wid, alone=True)
    if old is not None:
        yield from _remove_replaced(setting, old, manifest)
    del done, old, manifest, rules, folder, plain
    if keep:
        yield from _retain(setting, step, keep, wid)
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


def _retain(setting: Setting, step: int, keep: int, wid: str) -> Program:
    """Remove all but the last steps, never the one just saved: `Retention.apply`."""
    found = yield from listed(setting)
    there = tuple(number for number, _ in found)
    pinned = tuple(number for number, is_pinned in found if is_pinned)
    del found
    known: tuple[Manifest, ...] = ()
    left, count = there, keep
    while left and count > 0:  # Of those that count each is read, from the top.
        some, left = left[-count:], left[:-count]
        for number in some:
            manifest = None if number == step else (yield Op("read", f"s{number}/{MANIFEST}"))
            if manifest is not None:
                known = (*known, manifest)
            elif number != step:
                there = tuple(other for other in there if other != number)
            count -= manifest is not None or number == step
            del manifest
        del some
    stays = {*there[-keep:], *pinned, step}
    goes = tuple(number for number in there if number not in stays)
    del stays, there, pinned, left, count, step, keep
    for number in goes:
        if number not in [manifest.number for manifest in known]:
            manifest = yield Op("read", f"s{number}/{MANIFEST}")
            known = known if manifest is None else (*known, manifest)
            del manifest
    gone = tuple(sorted((m for m in known if m.number in goes), key=lambda m: m.number))
    del known, goes
    for state in gone:
        yield from remove_state(setting, state, by=wid)


def open_step(setting: Setting, grows: bool = False) -> Program:
    """Open the newest step, and read all of it.

    Args:
        grows: whether nobody goes back: then what was returned before is the least.
    """
    began = yield Op("start", alone=True)
    folders = yield Op("folders", "s")
    state = yield from newest_step(setting, folders)
    del folders
    if state is None:
        yield Op("bad", "G2: a reader finds nothing where something was", alone=True)
    if grows and state.number < began:
        yield Op("bad", f"G2: opens step {state.number}, {began} was returned", alone=True)
    del began, grows
    yield from read_all(setting, state)


def rewind(setting: Setting, step: int, by: str = "W") -> Program:
    """Remove the steps above one, the highest first: `Store.rewind`."""
    found = yield from listed(setting)
    if step not in dict(found):
        yield Op("end", "no such step", alone=True)
        return
    later = tuple(number for number, _ in reversed(found) if number > step)
    if any(dict(found)[number] for number in later):
        yield Op("end", "conflict", alone=True)
        return
    del found
    yield from newest(setting, "g")
    yield from remove_states(setting, *later, by=by)


def remove_steps(setting: Setting, *steps: int) -> Program:
    """Remove steps: `Store.remove`."""
    found = yield from listed(setting)
    if any(dict(found).get(step) for step in steps):
        yield Op("end", "conflict", alone=True)
        return
    del found
    yield from remove_states(setting, *steps)


def remove_states(setting: Setting, *steps: int, by: str = "W") -> Program:
    """Remove steps, one after another: `remove.remove_step`."""
    for number in steps:
        manifest = yield Op("read", f"s{number}/{MANIFEST}")
        if manifest is not None:
            done = yield from remove_state(setting, manifest, by=by)
            if not done:
                yield Op("end", "conflict", alone=True)
                return
            del done
        del manifest
    yield Op("end", "ok", alone=True)


def pin(setting: Setting, step: int, by: str = "P1") -> Program:
    """Pin a step: `pins.pin`, which looks a few times where this looks once."""
    folder = f"s{step}"
    if (yield Op("read", f"{folder}/{MANIFEST}")) is None:
        yield from _no_such_step(setting)
        return
    while True:
        yield Op("create", f"{folder}/{PIN}", PIN)
        there = yield Op("list", folder)
        names = tuple(name for name, _ in there)
        del there
        if setting.rules.pin_looks and any(name.startswith(WORD) for name in names):
            yield Op("end", "conflict", alone=True)
            return
        if MANIFEST not in names:
            yield from _take_back(setting, folder, by)
            yield from _no_such_step(setting)
            return
        if PIN in names:
            yield Op("ack", f"p{step}", by, alone=True)
            yield Op("end", "ok", alone=True)
            return
        del names


def _no_such_step(setting: Setting) -> Program:
    """Say which steps there are."""
    yield from committed(setting, "s")
    yield Op("end", "no such step", alone=True)


def leave_unfinished(setting: Setting) -> Program:
    """Leave a file of step 3 that nobody commits."""
    yield Op("create", "s3/m", "X")
    yield Op("end", "ok", alone=True)


def _take_back(setting: Setting, folder: str, by: str) -> Program:
    """Remove a pin that is beside no manifest: `pins._take_back`."""
    word = f"{folder}/{WORD}.{by}"
    yield Op("create", word, by, "own")
    there = yield Op("list", folder)
    if MANIFEST not in dict(there):
        yield Op("delete", f"{folder}/{PIN}")
    del there
    yield Op("delete", word, None, "own")


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
        still = yield Op("list", folder)
        for name, value in dead:
            if (name, value) in still:
                own = "own" if name == f"{name[0]}.{value}" else None
                kind, wid = ("delete_if", value) if setting.rules.delete_if else ("delete", None)
                yield Op(kind, f"{folder}/{name}", wid, own)
                del own, kind, wid
        del still
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
        ours: tuple[str, ...] = (MANIFEST,)
        if number in there:
            manifest = yield Op("read", f"s{number}/{MANIFEST}")
            # Where nobody can say what is listed, nothing goes.
            paths = () if manifest is None else tuple(path for _, path in manifest.paths)
            ours = (MANIFEST, PIN, *(paths or tuple(name for name, _ in files)))
            del manifest, paths
        elif MANIFEST in dict(files):  # It was committed meanwhile.
            ours = tuple(name for name, _ in files)
        dead = tuple((name, value) for name, value in files if name not in ours and value in old)
        if dead:
            found = (*found, (f"s{number}", dead))
        del files, ours, dead
    del folders, there, old
    left: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    for folder, dead in found:  # Less what a manifest names by now: `leftovers._unnamed`.
        manifest = yield Op("read", f"{folder}/{MANIFEST}")
        named = () if manifest is None else tuple(path for _, path in manifest.paths)
        left = (*left, (folder, tuple(file for file in dead if file[0] not in named)))
        del manifest, named
    return tuple((folder, dead) for folder, dead in left if dead)
