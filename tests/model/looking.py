"""Programs that look: which states are committed, what the view holds, what a person edited.

A program is a generator that yields one `Op` at a time and is sent its answer. What it does next
may depend on nothing but where it stands and what its variables hold: the search takes two
programs for the same where these agree. So what a loop goes through, and what it is at, are
variables; and whatever is not needed any more is deleted or belongs to a function that has
returned.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from .world import MANIFEST, PIN, TEXT, Manifest, Op, Setting

__all__ = [
    "NOTHING",
    "Look",
    "Program",
    "committed",
    "listed",
    "look",
    "newest",
    "newest_step",
    "shows",
]

Program = Generator[Op, Any, Any]


class Look(NamedTuple):
    """What was found in the view: a person's text, a person's files, a forerunner's files."""

    edit: str | None = None
    replaced: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


NOTHING = Look()


def committed(setting: Setting, where: str) -> Program:
    """Return the committed generations (``g``) or steps (``s``), ascending: `Storage.holding`."""
    if setting.storage != "local":
        return (yield Op("holding", where))
    before = yield Op("folders", where)
    while True:
        found: tuple[int, ...] = ()
        for number in before if setting.rules.rescan else reversed(before):
            if (yield Op("entry", f"{where}{number}/{MANIFEST}")) is not None:
                found = (*found, number)
        if not setting.rules.rescan:
            return found[::-1]
        # ◆ Ascending, and believed only if the set of folders is the same afterwards.
        after = yield Op("folders", where)
        if after == before:
            return found
        before = after
        del after, found


def listed(setting: Setting) -> Program:
    """Return the committed steps, each with whether it is pinned: `layout.listed_steps`."""
    if setting.storage != "local":
        return (yield Op("held", "s"))
    before = yield Op("folders", "s")
    while True:
        found: tuple[tuple[int, bool], ...] = ()
        for number in before:
            if (yield Op("entry", f"s{number}/{MANIFEST}")) is not None:
                pin = yield Op("entry", f"s{number}/{PIN}")
                found = (*found, (number, pin is not None))
                del pin
        after = yield Op("folders", "s")
        if after == before:
            return found
        before = after
        del after, found


def newest_step(setting: Setting, folders: tuple[int, ...]) -> Program:
    """Return the manifest of the newest step, or None: `layout._newest_step`."""
    while True:
        manifest = None
        for number in reversed(folders):
            manifest = yield Op("read", f"s{number}/{MANIFEST}")
            if manifest is not None:
                break
        if manifest is None:
            return (yield from newest(setting, "s"))
        if setting.storage != "local" and manifest.number == folders[-1]:
            return manifest
        if not setting.rules.top_again:
            return manifest
        # ◆ Believed only if after that nothing is committed above it.
        folders = yield Op("folders", "s")
        more = yield from _any_above(setting, folders, manifest.number)
        if not more:
            return manifest
        del number, more, manifest


def _any_above(setting: Setting, folders: tuple[int, ...], step: int) -> Program:
    """Return whether any step above one is committed, or may be: `layout._any_above`."""
    above = tuple(number for number in folders if number > step)
    del folders
    for number in above:
        if (yield Op("entry", f"s{number}/{MANIFEST}")) is not None:
            return True
    if not above:
        return False
    again = yield Op("folders", "s")
    return above != tuple(number for number in again if number > step)


def newest(setting: Setting, where: str = "g") -> Program:
    """Return the manifest of the newest generation or step, or None: `layout._newest`."""
    while True:
        found = yield from committed(setting, where)
        if not found:
            return None
        manifest = yield Op("read", f"{where}{found[-1]}/{MANIFEST}")
        if manifest is not None:
            return manifest
        del found, manifest  # It was replaced by a newer one between the two looks: look again.


def look(setting: Setting, state: Manifest, thorough: bool = False) -> Program:
    """Return what is in the view of a generation, or None to start over: `edits.look`.

    Args:
        thorough: do not believe the versions that the view's manifest recorded.
    """
    rules = setting.rules
    view = yield Op("read", f"v/{MANIFEST}")
    if view is None or view.wid != state.wid:
        ahead = view is not None and rules.view_ahead and view.number > state.number
        del view
        if ahead and not (yield from _is_newest(setting, state)):
            return None
        return NOTHING
    files = yield Op("list", "v")
    edit: str | None = None
    late: tuple[str, ...] = ()
    shown = () if thorough else view.shown
    text = yield from _other_text(setting, shown, state, files)
    if text is not None:
        # ◆ A text of its forerunners is no edit, but what a late refresh left there.
        if rules.forerunners and (TEXT, text) in state.earlier:
            late = (TEXT,)
        else:
            edit = text
    replaced: tuple[str, ...] = ()
    for plain, path in state.data():
        known, there = dict(shown).get(plain), dict(files).get(plain)
        kind = yield from _kind(setting, known, state, plain, path, there)
        if kind == "changed":
            replaced = (*replaced, plain)
        elif kind == "late":
            late = (*late, plain)
        del known, there, kind
    if edit is not None or replaced:
        again = yield Op("read", f"v/{MANIFEST}")
        if again is None or again.wid != view.wid:
            return NOTHING
        del again, view, files, shown
        # ◆ A listing made after that still shows it as the newest.
        if rules.relist and not (yield from _is_newest(setting, state)):
            return None
    return Look(edit, replaced, late)


def _is_newest(setting: Setting, state: Manifest) -> Program:
    top = yield from newest(setting)
    return top is not None and top.wid == state.wid


def _other_text(
    setting: Setting,
    shown: tuple[tuple[str, str], ...],
    state: Manifest,
    files: tuple[tuple[str, Any], ...],
) -> Program:
    """Return the view's text where it is not the generation's: `edits._other_texts`."""
    there = dict(files).get(TEXT)
    if TEXT not in state.plain() or there is None:
        return None
    if setting.storage == "s3" and there == dict(shown).get(TEXT):
        return None
    del files, shown, there
    text = yield Op("read", f"v/{TEXT}")
    return text if text != state.text else None


def _kind(
    setting: Setting, known: str | None, state: Manifest, plain: str, path: str, there: str | None
) -> Program:
    """Say where a file of bytes in the view comes from: `edits._kind`."""
    if there is None or there == known:
        return "kept"
    source = yield Op("entry", f"{state.folder}/{path}")
    if source is None or source == there:
        return "kept"  # The same inode or ETag, or superseded.
    del known, there, source
    if setting.same_size:
        one = yield Op("open", f"v/{plain}")
        if one is None:
            return "kept"
        other = yield Op("open", f"{state.folder}/{path}")
        if other is None or one == other:
            return "kept"
        del one, other
    found = yield Op("open", f"v/{plain}")
    if found is None or (found == state.wid and setting.rules.own_digest):
        return "kept"  # A late refresh was refreshed again meanwhile.
    return "late" if (plain, found) in state.earlier else "changed"


def shows(setting: Setting, state: Manifest) -> Program:
    """Return whether the view is that of a generation, and all of it is there: `view.shows`."""
    view = yield Op("read", f"v/{MANIFEST}")
    if view is None or view.wid != state.wid:
        return False
    del view
    files = yield Op("list", "v")
    return {*state.plain()} <= {plain for plain, _ in files}
