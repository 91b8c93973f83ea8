"""What must hold: in every state, of every claim that a program makes, and when all is at rest."""

from __future__ import annotations

from typing import Any

from .effects import outcomes
from .mending import doctor
from .world import MANIFEST, TEXT, USER, Manifest, Op, Setting, World

__all__ = ["broken_at_rest", "broken_by", "broken_in"]


def broken_in(world: World, setting: Setting) -> str | None:
    """Return which promise a state breaks, or None."""
    files = dict(world.files)
    there = [(name[0], value) for name, value in world.files if name.endswith(f"/{MANIFEST}")]
    generations = [manifest for kind, manifest in there if kind == "g"]
    steps = [manifest for kind, manifest in there if kind == "s"]
    if not generations and not steps and world.acked:
        return "G2: nothing is committed where something was"
    if generations:
        top = max(generations, key=lambda manifest: manifest.number)
        wrong = _damage(top, files) or _lost_generation(top, world)
        if wrong:
            return wrong
    for step in steps:
        wrong = _damage(step, files)
        if wrong:
            return wrong
    for folder in setting.kept:
        if f"{folder}/{MANIFEST}" not in files:
            return f"G2: {folder} is gone, though every policy keeps it"
    for pin, _ in world.acked:
        if pin[0] == "p" and f"s{pin[1:]}/{MANIFEST}" not in files:
            return f"G2: step {pin[1:]} is gone, and was pinned"
    for stolen in world.stolen:
        if setting.meant and stolen in world.acked and stolen[0][0] == "s":
            return f"G7: {stolen[0]} of {stolen[1]} was removed by one who meant another save of it"
    return None


def _damage(manifest: Manifest, files: dict[str, Any]) -> str | None:
    for _, path in manifest.data():
        held = files.get(f"{manifest.folder}/{path}")
        if held != manifest.wid:
            return f"G2: {manifest.folder} of {manifest.wid} is committed, and its {path} is {held}"
    return None


def _lost_generation(top: Manifest, world: World) -> str | None:
    for folder, wid in world.acked:
        number = int(folder[1:]) if folder[0] == "g" else 0
        if number > top.number:
            return f"G2: generation {number} was returned to {wid}, the newest is {top.number}"
        if number == top.number and wid != top.wid:
            return f"G7: generation {number} was returned to {wid}, and is {top.wid}'s"
    return None


def broken_by(op: Op, world: World, setting: Setting, name: str) -> str | None:
    """Return which promise a program breaks by what it says."""
    if op.kind == "bad":
        return op.name
    if op.kind == "claim" and (op.value != USER if op.name == "edit" else not setting.puts):
        return f"G7: {name} takes {op.value!r} in the view for a person's, and nobody wrote it"
    if op.kind == "ack" and op.name[0] == "g":
        if any(folder == op.name for folder, _ in world.acked):
            return f"G7: generation {op.name[1:]} is returned to two writers"
        if int(op.name[1:]) <= op.other:
            return f"G7: {op.value} is returned as {op.name[1:]}, {op.other} was before it began"
    return None


def broken_at_rest(world: World, setting: Setting, *, disturbed: bool) -> str | None:
    """Return which promise a state breaks in which nobody does anything any more.

    Args:
        disturbed: whether somebody was killed, or a late request landed: then the view may be
            behind, and `doctor` has to be able to mend it.
    """
    if not any(name[0] == "g" for name, _ in world.files):
        return None
    wrong = _wrong_view(world, disturbed=disturbed)
    if wrong is None or not disturbed:
        return wrong and f"G1: all is at rest, and {wrong}"
    mended = _mended(world, setting)
    if isinstance(mended, str):
        return mended
    wrong = _wrong_view(mended, disturbed=True)
    return wrong and f"G1: doctor has nothing to do, and {wrong}"


def _wrong_view(world: World, *, disturbed: bool) -> str | None:
    files = dict(world.files)
    numbers = (int(name[1:-2]) for name in files if name[0] == "g" and name.endswith("/M"))
    state = files[f"g{max(numbers)}/{MANIFEST}"]
    view = {name[2:]: value for name, value in files.items() if name.startswith("v/")}
    manifest = view.pop(MANIFEST, None)
    held = None if manifest is None else manifest.wid
    right = {plain: state.text if plain == TEXT else state.wid for plain in state.plain()}
    wrong = {p: v for p, v in view.items() if v != USER and v != right.get(p)}
    if disturbed:  # A forerunner's file that the newest has not stays until the next refresh.
        wrong = {p: v for p, v in wrong.items() if p in right}
    if held == state.wid and not wrong and right.keys() <= view.keys():
        return None
    return f"the newest is {state.folder} of {state.wid}, the view {held}'s with {view}"


def _mended(world: World, setting: Setting) -> World | str:
    """Run doctor alone, and return the world after it."""
    running = doctor(setting)
    op = running.send(None)
    quiet = world._replace(lost=0, repeats=0)
    while op.kind != "end":
        wrong = broken_by(op, quiet, setting, "doctor")
        if wrong:
            return wrong
        answer = None
        if op.kind != "claim":
            answer, quiet = outcomes(quiet, op)[0]
        op = running.send(answer)
    return quiet
