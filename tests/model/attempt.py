"""Programs of one write: its files, its commit, and what an unknown outcome means.

As in `ckptstore.commit.attempt`: until the manifest is there, nothing exists for anyone.
"""

from __future__ import annotations

from .looking import Program, newest
from .world import MANIFEST, PIN, TEXT, Manifest, Op, Setting

__all__ = ["abandon", "commit", "remove_files", "replace", "write"]


def write(setting: Setting, manifest: Manifest, plain: str, replaces: bool = False) -> Program:
    """Create the files, and return the manifest that names them: `Attempt.create`.

    Args:
        plain: the plain names; ``c`` is the text, which is created whole.
        replaces: whether a step of other content is there: then not if it is pinned.
    """
    taken = None
    if manifest.folder[0] == "s":
        taken = yield from _taken(setting, manifest.folder)
        if replaces and PIN in taken:
            return None
    del replaces
    names: tuple[tuple[str, str], ...] = ()
    for name in plain:
        own = f"{name}.{manifest.wid}"
        if taken is None:
            # Others look for no such file; but the first may make the folder appear.
            path = own
            done = yield Op("create", f"{manifest.folder}/{own}", manifest.wid, "own", bool(names))
        else:
            path = own if name in taken else name
            mark = _own(manifest, path)
            done = yield Op("create", f"{manifest.folder}/{path}", manifest.wid, mark)
            del mark
        if not done and name != TEXT:
            yield from abandon(setting, manifest._replace(paths=names))
            return None
        if not done:
            path = own
            yield Op("create", f"{manifest.folder}/{path}", manifest.wid, "own")
        names = (*names, (name, path))
        del own, path, done
    return manifest._replace(paths=names)


def _own(manifest: Manifest, path: str) -> str | None:
    return "own" if manifest.wid in path else None


def _taken(setting: Setting, folder: str) -> Program:
    """Return the plain names that a step may not use: `Attempt.__init__`."""
    files = yield Op("list", folder)
    return tuple(name for name, _ in files)


def commit(setting: Setting, manifest: Manifest | None) -> Program:
    """Create the manifest, and return whether it is there: `Attempt.commit`."""
    if manifest is None:
        yield Op("end", "conflict", alone=True)
        return False
    yield Op("flush", manifest.folder, alone=True)
    yield Op("create_only", manifest.folder, alone=True)
    if not (yield from _may_commit(setting, manifest)):
        return False
    answer = yield from _create_manifest(setting, manifest)
    if answer is not True:
        answer = yield from _settle(setting, manifest, answer, replaced=None)
    if answer is not True or (yield from _whole(setting, manifest)):
        return answer is True
    ended = yield from _removed(setting, manifest)
    there = yield Op("read", f"{manifest.folder}/{MANIFEST}")
    if there is not None and there.wid == manifest.wid:
        yield Op("delete", f"{manifest.folder}/{MANIFEST}", manifest.wid)
    del there
    yield from abandon(setting, manifest)
    yield Op("end", ended, alone=True)
    return False


def replace(setting: Setting, manifest: Manifest | None, old: Manifest) -> Program:
    """Put the manifest in place of another, and return whether it is there: `Attempt.replace`."""
    if manifest is None:
        yield Op("end", "conflict", alone=True)
        return False
    yield Op("flush", manifest.folder, alone=True)
    if not (yield from _may_commit(setting, manifest)):
        return False
    name = f"{manifest.folder}/{MANIFEST}"
    there = yield Op("read", name)
    if there is None or there.wid != old.wid:
        # Gone is NotFoundError, another is ConflictError: to the files it is the same.
        yield from abandon(setting, manifest)
        yield Op("end", "conflict", alone=True)
        return False
    del there
    # ◆ One operation, conditional on the manifest that was read.
    answer = yield Op("swap", name, manifest, old.wid)
    if answer == "lost":
        held = yield Op("read_back", name)
        answer = True if held is not None and held.wid == manifest.wid else "unknown"
        del held
    if answer == "unknown":
        return (yield from _settle(setting, manifest, answer, replaced=old.wid))
    if answer is True:
        if (yield from _whole(setting, manifest)):
            return True
        ended = yield from _removed(setting, manifest)
        if (yield Op("swap", name, old, manifest.wid)) is False:
            return True  # Another has replaced or removed it since, and with it went its files.
        yield from abandon(setting, manifest)
        yield Op("end", ended, alone=True)
        return False
    yield from abandon(setting, manifest)
    yield Op("end", "conflict", alone=True)
    return False


def _may_commit(setting: Setting, manifest: Manifest) -> Program:
    """Return whether all is there, and not too old: `intact.check_files`, `Age.check`."""
    if not (yield from _whole(setting, manifest)):
        ended = yield from _removed(setting, manifest)
        yield from abandon(setting, manifest)
        yield Op("end", ended, alone=True)
        return False
    if setting.ages:
        late = yield Op("age", "", manifest.wid)
        # ◆ After half the age at which cleaners take its files for leftovers.
        if late and setting.rules.give_up:
            yield from abandon(setting, manifest)
            yield Op("end", "failed", alone=True)
            return False
    return True


def _whole(setting: Setting, manifest: Manifest) -> Program:
    """Return whether all files are there: `intact.check_files`."""
    there = yield Op("list", manifest.folder)
    return {path for _, path in manifest.paths} <= {name for name, _ in there}


def _removed(setting: Setting, manifest: Manifest) -> Program:
    """Say what it means that others have removed a part: `intact.removed`."""
    if manifest.folder[0] == "g":
        top = yield from newest(setting)
        return "conflict" if top is not None and top.number >= manifest.number else "failed"
    return "failed"


def _create_manifest(setting: Setting, manifest: Manifest) -> Program:
    """Return True, False (taken) or ``unknown``: `Storage.create`, on S3 with its read-back."""
    name = f"{manifest.folder}/{MANIFEST}"
    if not setting.rules.create_only:
        yield Op("replace", name, manifest)
        return True
    answer = yield Op("create", name, manifest)
    if answer != "lost":
        return answer
    if not setting.rules.read_back:
        return False
    held = yield Op("read_back", name)
    if held is None:
        return "unknown"
    return held.wid == manifest.wid


def _settle(
    setting: Setting, manifest: Manifest, answer: bool | str, replaced: str | None
) -> Program:
    """Find out whether the manifest that is there is ours: `Attempt._settle`."""
    unknown = answer == "unknown"
    if setting.rules.read_back:
        found = yield Op("read", f"{manifest.folder}/{MANIFEST}")
        there = None if found is None else found.wid
        del found
        if there == manifest.wid:
            return True
        # ◆ Where it cannot be settled the files stay, since the request may still land.
        if setting.rules.unknown_keeps and unknown and there in (None, replaced):
            yield Op("end", "unknown", alone=True)
            return False
        del there
    yield from abandon(setting, manifest)
    yield Op("end", "conflict", alone=True)
    return False


def abandon(setting: Setting, manifest: Manifest) -> Program:
    """Remove what the attempt wrote; nothing of it was committed: `Attempt.abandon`."""
    for _, path in manifest.paths:
        own = _own(manifest, path)
        alone = own is not None and manifest.folder[0] == "g" and setting.rules.read_back
        kind, wid = ("delete_if", manifest.wid) if setting.rules.delete_if else ("delete", None)
        yield Op(kind, f"{manifest.folder}/{path}", wid, own, alone)


def remove_files(setting: Setting, folder: str) -> Program:
    """Remove every file in a folder, and a manifest: `remove.remove_folder`."""
    files = yield Op("list", folder)
    for name, _ in files:
        yield Op("delete", f"{folder}/{name}")
        del _
    yield Op("delete", f"{folder}/{MANIFEST}")
