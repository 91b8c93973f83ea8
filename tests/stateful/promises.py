"""What has to hold at every moment, and of every act that ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    NotFoundError,
    StorageError,
    SupersededError,
    UnsupportedError,
)
from tests.stateful.acts import Act, Found
from tests.stateful.ledger import Ledger, Snapshot, State
from tests.stateful.processes import Process

if TYPE_CHECKING:
    from tests.stateful.world import World

__all__ = ["BrokenPromiseError", "broken", "judge", "standing"]


class BrokenPromiseError(AssertionError):
    """A promise is broken; the message says which, and what happened before."""


def broken(world: World, said: str) -> BrokenPromiseError:
    """Return the error that says which promise is broken, and all that happened."""
    return BrokenPromiseError("\n  ".join([said, "what happened:", *world.log]))


# -- at every moment --------------------------------------------------------------------


def standing(world: World, ledger: Ledger, before: Snapshot, act: Act | None) -> None:
    """Check what is committed now, after something has changed in it.

    Args:
        world: the history.
        ledger: of which of its locations.
        before: what was committed a moment ago.
        act: what whoever changed it is about; None for nobody who is alive.
    """
    top, last = ledger.now.newest, before.newest
    if top is None:
        if last is not None and not _spoiled(world, last):
            raise broken(world, "G2: nothing is committed where something was")
        return
    steps = top.folder[0] != "."
    for state in ledger.now.states.values() if steps else (top,):
        if state.wrong and not _spoiled(world, state):
            raise broken(world, f"G2: {state.folder} is committed, and {state.wrong}")
        if state.content is not None and before.states.get(state.folder) != state:
            _known(world, ledger, state)
    if steps:
        _vanished(world, ledger, before, act)
        return
    if last is not None and not _spoiled(world, last):
        if top.number < last.number:
            raise broken(world, f"G2: after {last.folder} the newest is {top.folder}")
        if top.number == last.number and top.wid != last.wid:
            raise broken(world, f"G7: {top.folder} was {last.wid}'s, and is {top.wid}'s")


def _spoiled(world: World, state: State) -> bool:
    """Whether a writer made this that slept within its commit, and will find out or never.

    It takes such a commit back when it finds files gone; where it is killed before, that stays.
    """
    maker = world.makers.get(state.wid)
    if maker is None or not maker.slept or (maker.over and not maker.killed):
        return False
    world.spoiled = world.spoiled or maker.killed
    return True


def _known(world: World, ledger: Ledger, state: State) -> None:
    content = state.content
    if content is None:
        return
    if ledger is world.copied:
        known = any(
            other.content is not None
            and world.ledger.edited(other, content.config)
            and replace(content, config=other.content.config) == other.content
            for other in world.ledger.ever()
        )
    else:
        known = ledger.possible(content)
    if not known:
        raise broken(world, f"G2: {state.folder} holds {content}, which nobody saved: a mixture")
    if content.model in ledger.refused:
        raise broken(world, f"G7: {state.folder} holds {content}, and its writer was told it fails")


def _vanished(world: World, ledger: Ledger, before: Snapshot, act: Act | None) -> None:
    """Check that whoever removed a step may."""
    for folder, state in before.states.items():
        there = ledger.now.states.get(folder)
        if there is not None or act is None or _spoiled(world, state):
            continue
        process = next(p for p, a in world.live.values() if a is act)
        if act.kind == "rewind" and act.step is not None and state.number > act.step:
            continue
        if act.kind == "save" and act.keep is not None and state.number != act.step:
            higher = (
                sum(other.number > state.number for other in snapshot.states.values())
                for snapshot in ledger.since(process.begun)
            )
            if max(higher) >= act.keep:
                continue
        raise broken(world, f"G2: {folder} is gone, by one who {act.said}")


# -- of every act -----------------------------------------------------------------------


def judge(world: World, process: Process, act: Act) -> None:
    """Check what an actor was told, at the moment when it was."""
    error = process.error
    if error is not None and not isinstance(error, CkptstoreError):
        raise broken(world, f"{act.said}: {type(error).__name__}: {error}") from error
    world.counts[f"{act.kind}: {type(error).__name__ if error else 'done'}"] += 1
    if error is None:
        _JUDGES.get(act.kind, _nothing)(world, process, act)
        return
    if world.spoiled or process.slept:
        return
    ledger = world.ledger
    if act.kind in ("save", "carry") and act.content is not None:
        _failed_save(world, process, act)
    reason = _reason(world, process, act, error)
    if reason is None:
        said = f"{act.said}: for no reason {type(error).__name__}: {error}"
        raise broken(world, said) from error
    if "replaced by hand" in str(error) and not ledger.puts:
        raise broken(world, f"nobody put anything, and one who {act.said} is told: {error}")


def _reason(world: World, process: Process, act: Act, error: CkptstoreError) -> str | None:
    """Return why somebody may be told this, or None."""
    ledger, begun = world.ledger, process.begun
    tops = {s.newest.wid if s.newest else None for s in ledger.since(begun)}
    if "while it was listed" in str(error) or "faster than" in str(error):
        return "others were at work" if not process.alone else None
    if isinstance(error, SupersededError):
        return "superseded" if act.kind in ("again", "open", "sync", "carry") else None
    if isinstance(error, NotFoundError):
        if act.step is not None and act.kind in ("open", "rewind"):
            folder = f"step-{act.step:08d}"
            return "absent" if any(folder not in s.states for s in ledger.since(begun)) else None
        return "nothing was there" if None in tops or act.kind == "adopt" else None
    if isinstance(error, ConflictError):
        return _rival(world, process, act, tops)
    if isinstance(error, StorageError) and (process.lost or process.slept):
        return "a reply was lost"
    if isinstance(error, UnsupportedError) and act.overwrite and world.place.kind == "one writer":
        return "no conditions"
    return None


def _rival(world: World, process: Process, act: Act, tops: set[str | None]) -> str | None:
    if "replaced by hand" in str(process.error) and world.ledger.puts:
        return "a person put something there"
    if act.step is not None and act.kind == "save":
        folder = f"step-{act.step:08d}"
        others = any(folder in s.states for s in world.ledger.since(process.begun))
        return "it was there" if others else None
    if "may hold files of two states" in str(process.error):
        behind = world.shown() != (world.ledger.now.newest or State("", 0, "", None, None, ())).wid
        return "the view is behind" if behind or not process.alone else None
    if act.kind == "sync":
        return "another"
    return "another was first" if len(tops) > 1 else None


def _failed_save(world: World, process: Process, act: Act) -> None:
    """Check that what failed left nothing, or is known to have."""
    ledger, error, content = world.ledger, process.error, act.content
    if content is None or not isinstance(error, CkptstoreError) or error.committed is None:
        return
    ever = [state for state in ledger.ever() if state.content == content]
    mine = [state for state in ever if world.makers[state.wid] is process]
    if error.committed:
        if not mine:
            raise broken(world, f"it is told that {content} is committed, and it never was")
    elif len(mine) == len(ever):
        there = [state for state in mine if ledger.now.states.get(state.folder) == state]
        if there:
            raise broken(world, f"G7: {there[0].folder} is there, and its writer was told: {error}")
        ledger.refused.add(content.model)


def _saved(world: World, process: Process, act: Act) -> None:
    ledger, checkpoint = world.ledger, process.result
    number = checkpoint.generation
    folder = f"step-{checkpoint.step:08d}" if number is None else f".ckptstore/{number:08d}"
    found = {
        s.states[folder].wid
        for s in ledger.since(process.begun)
        if folder in s.states and s.states[folder].content == act.content
    }
    if not found:
        raise broken(world, f"G2: {folder} was returned as {act.content}, and never was that")
    if number is not None:
        for other, wid in ledger.acked:
            if other == folder:
                raise broken(world, f"G7: {folder} was returned twice, to {wid} and {found}")
        ledger.acked.append((folder, next(iter(found))))
        top = ledger.now.newest
        if top is None or top.number < number:
            raise broken(world, f"G2: {folder} was returned, and the newest is {top}")
    else:
        _step_rules(world, process, act, folder)
    _carried(world, process, act)


def _step_rules(world: World, process: Process, act: Act, folder: str) -> None:
    """Check what alone one knows: equal changes nothing, different needs to be told."""
    if not process.alone or world.late:
        return
    *_, first = world.ledger.since(process.begun)
    before, now = first.states.get(folder), world.ledger.now.states.get(folder)
    if now is None:
        raise broken(world, f"G2: {folder} was just saved, and is not there")
    if before is not None and before.content == act.content and before.wid != now.wid:
        raise broken(world, f"{folder} was saved again as it was, and is another write")
    if before is not None and before.content != act.content and not act.overwrite:
        raise broken(world, f"G7: {folder} was replaced by one who did not ask for that")


def _carried(world: World, process: Process, act: Act) -> None:
    fresh = process.fresh if act.kind == "carry" and process.alone else None
    if fresh and act.content is not None and act.content.config != fresh[0]:
        raise broken(world, f"the edit {fresh[0]} is lost by one who {act.said}")


def _opened(world: World, process: Process, act: Act) -> None:
    _, found = process.result
    ledger = world.ledger
    states: list[State | None] = []
    for snapshot in ledger.since(process.begun):
        folder = f"step-{act.step:08d}" if act.step is not None else ""
        states.append(snapshot.states.get(folder) if folder else snapshot.newest)
    of = [s for s in states if s is not None and _shows(ledger, s, found)]
    if not of:
        right = sorted({f"{s.folder} {s.content}" for s in states if s is not None})
        said = f"G2: it opened {found.folder} {found.content}, edited {found.edited}; newest were "
        raise broken(world, said + (", ".join(right) or "none"))
    if bool(found.edited) != (of[0].content is not None and found.content != of[0].content):
        raise broken(world, f"it says that {found.edited} are edited, of {found.content}")
    fresh = process.fresh if process.fresh == world.fresh else None
    if fresh and of[0].wid == fresh[1] and found.content.config != fresh[0]:
        raise broken(world, f"the edit {fresh[0]} is not shown, but {found.content.config}")


def _shows(ledger: Ledger, state: State, found: Found) -> bool:
    if found.folder != state.folder or state.content is None:
        return False
    if found.content == state.content:
        return True
    return ledger.edited(state, found.content.config) and (
        replace(found.content, config=state.content.config) == state.content
    )


def _again(world: World, process: Process, act: Act) -> None:
    if act.handle is not None and process.result != act.handle[1]:
        raise broken(world, f"G7: a handle showed {act.handle[1]}, and now {process.result}")


def _rewound(world: World, process: Process, act: Act) -> None:
    if act.step is None or not process.alone:
        return
    left = [s.folder for s in world.ledger.now.states.values() if s.number > act.step]
    if left or f"step-{act.step:08d}" not in world.ledger.now.states:
        raise broken(world, f"going back to {act.step} has left {left}")


def _synced(world: World, process: Process, act: Act) -> None:
    top = world.copied.now.newest
    if top is None or top.content is None:
        raise broken(world, f"the mirror is {top} after a sync")
    if process.result.changed:
        world.copied.acked.append((top.folder, top.wid))
    fresh = process.fresh if process.alone and process.fresh == world.fresh else None
    if fresh and top.content.config != fresh[0]:
        raise broken(world, f"the edit {fresh[0]} did not come along: {top.content}")


def _nothing(world: World, process: Process, act: Act) -> None:
    pass


_JUDGES = {
    "save": _saved,
    "carry": _saved,
    "open": _opened,
    "again": _again,
    "rewind": _rewound,
    "sync": _synced,
}
