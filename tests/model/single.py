"""Programs of the single checkpoint: a save, its refresh and its retention; readers; people.

What they end in is said with ``end``: ``ok``, ``conflict``, ``superseded``, ``unknown`` (whether
it was committed), ``failed``. What must never happen is said with ``bad``.
"""

from __future__ import annotations

from .attempt import commit, write
from .looking import Program, committed, look, newest
from .reading import open_newest
from .removing import remove_older, remove_state
from .world import MANIFEST, TEXT, USER, Manifest, Op, Setting

__all__ = ["carry", "commit_late", "edit", "put", "save", "show", "show_late"]


def save(
    setting: Setting, wid: str, plain: str = "cm", text: str | None = None, began: int | None = None
) -> Program:
    """Save the next generation: `save.save_generation`.

    Args:
        wid: the write's id.
        plain: the plain names of its files.
        text: of config.json; one of its own by default.
        began: the newest generation that had been acknowledged before; asked for by default.
    """
    if began is None:
        began = yield Op("start", alone=True)
    manifest = yield from _commit_next(setting, wid, plain, text)
    if manifest is None:
        return
    if setting.rules.late_withdraws:
        top = yield from newest(setting)
        late = top is not None and top.number > manifest.number
        del top
        if late:
            yield from remove_state(setting, manifest)
            yield Op("end", "conflict", alone=True)
            return
        del late
    # From here on nothing fails any more: what does is a warning.
    yield Op("ack", manifest.folder, wid, began, alone=True)
    del began, text, plain, wid
    if setting.rules.commit_first:
        manifest = yield from show(setting, manifest)
        yield from remove_older(setting, manifest.number)
    yield Op("end", "ok", alone=True)


def _commit_next(setting: Setting, wid: str, plain: str, text: str | None) -> Program:
    """Return the committed manifest, or None."""
    base = yield from newest(setting)
    place = yield from _check_place(setting, base)
    if place is not None:
        yield Op("end", place, alone=True)
        return None
    folder = f"g{1 if base is None else base.number + 1}"
    if not setting.rules.commit_first and base is not None:
        yield from remove_state(setting, base)
    manifest = Manifest(wid, folder, (), text or wid, _earlier(base))
    del base, place
    manifest = yield from write(setting, manifest, plain)
    if (yield from commit(setting, manifest)):
        return manifest
    return None


def _check_place(setting: Setting, base: Manifest | None) -> Program:
    """Return what speaks against saving here: `save._check_place`."""
    if base is not None:
        found = yield from look(setting, base)
        if found is not None and found.replaced:
            yield Op("claim", "replaced", found.replaced, alone=True)
            return "conflict"
        return None
    there = yield from committed(setting, "s")
    if there:
        return "conflict"
    files = yield Op("list", "v")
    if MANIFEST in dict(files):
        view = yield Op("read", f"v/{MANIFEST}")
        if view is None:
            return "conflict"
    return None


def _earlier(base: Manifest | None) -> frozenset[tuple[str, str]]:
    if base is None:
        return frozenset()
    own = {(plain, base.text if plain == TEXT else base.wid) for plain in base.plain()}
    return base.earlier | own


def show(setting: Setting, state: Manifest, edited: tuple[str, ...] = ()) -> Program:
    """Refresh the view until it shows the newest, and return that: `view.show`."""
    while True:
        complete = yield from _refresh(setting, state, edited)
        if not setting.rules.look_again:
            return state
        # ◆ A newer generation has appeared, or a source has vanished: refresh again.
        top = yield from newest(setting)
        if top is None or (complete and top.folder == state.folder):
            return state
        state, edited = top, ()
        del top, complete


def _refresh(setting: Setting, state: Manifest, edited: tuple[str, ...]) -> Program:
    """Return whether all could be copied: `view._refresh`."""
    before = yield Op("read", f"v/{MANIFEST}")
    before = () if before is None else before.plain()
    for plain, path in state.data():
        if not (yield Op("copy", f"v/{plain}", f"{state.folder}/{path}")):
            return False
    if TEXT in state.plain() and TEXT not in edited:
        yield Op("replace", f"v/{TEXT}", state.text)
    listed = yield Op("list", "v")
    shown = tuple((p, v) for p, v in listed if p in state.plain() and p not in edited)
    gone = tuple(p for p in before if p not in state.plain())
    strays = tuple(p for p, _ in listed if p not in before and p not in state.plain())
    del listed, before
    for plain in strays:  # What a refresh that was cut off put there.
        if plain in {known for known, _ in state.earlier}:
            held = yield Op("open", f"v/{plain}")
            if (plain, held) in state.earlier:
                gone = (*gone, plain)
            del held
    del strays
    for plain in gone:
        yield Op("delete", f"v/{plain}")
    del gone
    yield Op("replace", f"v/{MANIFEST}", state._replace(shown=shown))
    yield Op("flush", "v", alone=True)
    return True


def carry(setting: Setting, wid: str) -> Program:
    """Open, and save with a person's text carried over: what `sync` and `GPT.save` do."""
    began = yield Op("start", alone=True)
    _, text = yield from open_newest(setting, began)
    del _
    yield from save(setting, wid, "cm", text, began)


def edit(setting: Setting) -> Program:
    """A person edits config.json in the view."""
    yield Op("replace", f"v/{TEXT}", USER)
    yield Op("end", "ok", alone=True)


def put(setting: Setting) -> Program:
    """A person puts weights of their own into the view."""
    yield Op("replace", "v/m", USER)
    yield Op("end", "ok", alone=True)


def commit_late(setting: Setting, manifest: Manifest) -> Program:
    """A writer that wrote its files, slept, and now goes on to commit them."""
    if not (yield from commit(setting, manifest)):
        return
    top = yield from newest(setting)
    if top is not None and top.number > manifest.number:
        yield from remove_state(setting, manifest)
    yield Op("end", "conflict", alone=True)


def show_late(setting: Setting, state: Manifest) -> Program:
    """A writer that committed a state, slept, and now goes on to show it."""
    state = yield from show(setting, state)
    yield from remove_older(setting, state.number)
    yield Op("end", "ok", alone=True)
