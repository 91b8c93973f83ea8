"""G2, G7: the model's programs do what the code does, operation by operation, whoever comes in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.commit.pins import pin
from ckptstore.commit.remove import remove_step
from ckptstore.commit.repair import repair
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    NotFoundError,
    StorageError,
    SupersededError,
)
from ckptstore.formats.base import NewFiles
from ckptstore.opening import open_place
from ckptstore.storage import connect

from . import history, mending, reading, single
from .looking import Program
from .recording import Recording, files_of, names_of, play, values_of
from .world import Setting, World, first_world

TEXTS = {"c": "config.json"}
BYTES = {"m": "model.pt", "o": "optimizer.pt"}


def save(content: str, plain: str = "cm", step: int | None = None) -> Save:
    def write(files: NewFiles) -> None:
        files.write_text("config.json", f'{{"content": "{content}"}}')
        for name in plain[1:]:
            with files.create(BYTES[name]) as sink:
                sink.write(memoryview(f"{BYTES[name]} of {content}".encode()))

    return Save(write=write, index=lambda files, name: None, step=step)


def read(storage: Any) -> None:
    checkpoint = open_place(storage, None)
    for name in ("model.pt", "optimizer.pt"):
        if name in checkpoint.source.names():
            with checkpoint.source.open(name) as file:
                file.read()


Real = Callable[[Any], object]
Modelled = Callable[[Setting], Program]
Act = tuple[Real, Modelled]


def saving(content: str, plain: str = "cm") -> Act:
    return (
        lambda storage: save_generation(storage, save(content, plain)),
        lambda setting: single.save(setting, content, plain),
    )


def stepping(content: str, step: int, overwrite: bool = False, same: str = "") -> Act:
    return (
        lambda storage: save_step(storage, save(same or content, step=step), overwrite=overwrite),
        lambda setting: history.save_step(setting, content, step, 0, overwrite, bool(same)),
    )


READING: Act = (read, reading.reader)
READING_STEPS: Act = (read, history.open_step)
REPAIRING: Act = (lambda storage: repair(storage), mending.doctor)
EDITING: Act = (
    lambda storage: storage.replace("config.json", b'{"content": "U"}'),
    single.edit,
)
PUTTING: Act = (lambda storage: storage.replace("model.pt", b"model.pt of U"), single.put)
REMOVING: Act = (
    lambda storage: remove_step(storage, 1),
    lambda setting: history.remove_states(setting, 1),
)

PINNING: Act = (lambda storage: pin(storage, 1), lambda setting: history.pin(setting, 1))

UNFINISHED: Act = (
    lambda storage: storage.create("step-00000003/model.pt", b"model.pt of X"),
    history.leave_unfinished,
)

A, B, C = saving("A"), saving("B"), saving("C")
WITH_OPTIMIZER = saving("O", "cmo")
STEP_1, STEP_9 = stepping("S", 1), stepping("T", 9)

CASES: dict[str, tuple[tuple[Act, ...], Act, tuple[Act, ...]]] = {
    # What was there, what is done, and what somebody else does in between.
    "save": ((A,), B, ()),
    "first save": ((), B, ()),
    "save without the optimizer": ((WITH_OPTIMIZER,), B, ()),
    "a rival in a save": ((A,), B, (C,)),
    "a rival in a first save": ((), B, (C,)),
    "two rivals in a save": ((A,), B, (C, saving("D"))),
    "a reader": ((A,), READING, ()),
    "a save in a reader": ((A,), READING, (C,)),
    "two saves in a reader": ((WITH_OPTIMIZER,), READING, (C, saving("D"))),
    "an edit, then a reader": ((A, EDITING), READING, ()),
    "an edit, then a reader, and a save in it": ((A, EDITING), READING, (C,)),
    "an edit in a save": ((A,), B, (EDITING,)),
    "weights by hand, then a save": ((A, PUTTING), B, ()),
    "weights by hand in a save": ((A,), B, (PUTTING,)),
    "doctor": ((A,), REPAIRING, ()),
    "doctor after an edit": ((A, EDITING), REPAIRING, ()),
    "a save in doctor": ((A,), REPAIRING, (C,)),
    "weights by hand in doctor": ((A,), REPAIRING, (PUTTING,)),
    "step": ((STEP_1,), stepping("B", 2), ()),
    "the same step, equal": ((STEP_1,), stepping("B", 1, same="S"), ()),
    "the same step, different": ((STEP_1,), stepping("B", 1), ()),
    "overwriting": ((STEP_1,), stepping("B", 1, True), ()),
    "a rival in a step": ((STEP_1,), stepping("B", 2), (stepping("C", 2),)),
    "a rival in overwriting": ((STEP_1,), stepping("B", 1, True), (stepping("C", 1, True),)),
    "removal in overwriting": ((STEP_1, STEP_9), stepping("B", 1, True), (REMOVING,)),
    "overwriting in a removal": ((STEP_1, STEP_9), REMOVING, (stepping("C", 1, True),)),
    "removal, and saving again, in a removal": (
        (STEP_1, STEP_9),
        REMOVING,
        (REMOVING, stepping("C", 1)),
    ),
    "pinning": ((STEP_1, STEP_9), PINNING, ()),
    "pinning again": ((STEP_1, PINNING), PINNING, ()),
    "pinning what is not there": ((STEP_9,), PINNING, ()),
    "a removal in pinning": ((STEP_1, STEP_9), PINNING, (REMOVING,)),
    "removal, and saving again, in pinning": ((STEP_1,), PINNING, (REMOVING, stepping("C", 1))),
    "overwriting in pinning": ((STEP_1,), PINNING, (stepping("C", 1, True),)),
    "removal of what is pinned": ((STEP_1, PINNING), REMOVING, ()),
    "pinning in a removal": ((STEP_1, STEP_9), REMOVING, (PINNING,)),
    "overwriting what is pinned": ((STEP_1, PINNING), stepping("B", 1, True), ()),
    "a reader of steps, one below an unfinished one": ((STEP_1, UNFINISHED), READING_STEPS, ()),
    "a step in such a reader": ((STEP_1, UNFINISHED), READING_STEPS, (stepping("C", 4),)),
    "a reader of steps": ((STEP_1, STEP_9), READING_STEPS, ()),
    "overwriting in a reader of steps": ((STEP_1,), READING_STEPS, (stepping("C", 1, True),)),
}


@pytest.mark.parametrize("kind", ["s3", "local"])
@pytest.mark.parametrize("case", CASES)
def test_the_model_does_what_the_code_does(case: str, kind: str, memory_url: str) -> None:
    before, act, rivals = CASES[case]
    for number in itertools.count():
        at = number if rivals else -1
        real, found, ended = run_real(before, act, rivals, kind, at, f"{memory_url}/{number}")
        modelled, world, said = run_model(before, act, rivals, kind, at)

        assert modelled == real, f"somebody came in before operation {at}"
        assert values_of(world) == found
        assert said == ended
        if at >= len(real) or not rivals:
            break
    assert real, "it did something"


LOST = {
    "save": ((A,), B, ()),
    "a rival in a save": ((A,), B, (C,)),
    "overwriting": ((STEP_1,), stepping("B", 1, True), ()),
    "a rival in overwriting": ((STEP_1,), stepping("B", 1, True), (stepping("C", 1, True),)),
    "a rival in a step": ((STEP_1,), stepping("B", 2), (stepping("C", 2),)),
}


@pytest.mark.parametrize("lost", ["done", "never"])
@pytest.mark.parametrize("case", LOST)
def test_the_model_settles_a_lost_reply_as_the_code_does(
    case: str, lost: str, memory_url: str
) -> None:
    before, act, rivals = LOST[case]
    for at in itertools.count():
        real, found, ended = run_real(before, act, rivals, "s3", at, f"{memory_url}/{at}", lost)
        modelled, world, said = run_model(before, act, rivals, "s3", at, lost)

        assert modelled == real, f"somebody came in before operation {at}"
        assert values_of(world) == found
        assert said == ended
        if at >= len(real) or not rivals:
            break


@pytest.mark.parametrize("kind", ["s3", "local"])
@pytest.mark.parametrize(
    "rivals", [(), (REMOVING,), (REMOVING, stepping("C", 1)), (stepping("C", 3),)]
)
def test_the_model_sweeps_as_the_code_does(
    rivals: tuple[Act, ...], kind: str, memory_url: str
) -> None:
    for at in itertools.count():
        real, found = sweep_real(rivals, kind, at, f"{memory_url}/{at}")
        modelled, world = sweep_model(rivals, kind, at)

        assert modelled == real, f"somebody came in before operation {at}"
        assert values_of(world) == found
        if at >= len(real) or not rivals:
            break


@pytest.mark.parametrize("kind", ["s3", "local"])
@pytest.mark.parametrize("act", ["retention", "going back", "removal"])
def test_the_model_does_what_a_store_does(
    act: str, kind: str, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, labels = connect(memory_url), {}
    for one in (STEP_1, stepping("V", 5), STEP_9):
        one[0](Recording(place, kind, labels))
    recording = Recording(place, kind, labels)
    monkeypatch.setattr("ckptstore.storage.connect", lambda location, options: recording)
    store = ckptstore.Store(memory_url, keep=ckptstore.Keep(last=2))
    model = {"w": torch.zeros(1)}
    real: dict[str, Callable[[], object]] = {
        "retention": lambda: store.save(model=model, config={"content": "B"}, step=10),
        "going back": lambda: store.rewind(1),
        "removal": lambda: store.remove(5),
    }
    setting = Setting(storage=kind)
    modelled = {
        "retention": lambda: history.save_step(setting, "B", 10, 2, plain="ctm", opened=True),
        "going back": lambda: history.rewind(setting, 1),
        "removal": lambda: history.remove_steps(setting, 5),
    }

    real[act]()

    world = after((STEP_1, stepping("V", 5), STEP_9), setting, first_world())
    steps, world, _ = play(modelled[act](), world)
    assert steps == recording.steps
    assert {name for name, _ in world.files} == names_of(place, labels)


def sweep_real(
    rivals: tuple[Act, ...], kind: str, at: int, url: str
) -> tuple[list[Any], dict[str, str]]:
    storage, labels = connect(url), {"0" * 12: "X"}

    def do(*acts: Act) -> None:
        for one in acts:
            one[0](Recording(storage, kind, labels))

    do(STEP_1, STEP_9)
    for name in (f"step-00000001/model.{'0' * 12}.pt", "step-00000003/model.pt"):
        storage.create(name, b"model.pt of X")
    storage.create("step-00000003/config.json", b'{"content": "X"}')
    recording = Recording(storage, kind, labels, at, lambda: do(*rivals), aged=True)
    repair(recording)  # type: ignore[arg-type]
    return recording.steps, files_of(storage, labels)


def sweep_model(rivals: tuple[Act, ...], kind: str, at: int) -> tuple[list[Any], World]:
    setting = Setting(storage=kind)
    left = {"s1/m.X": "X", "s3/c": "X", "s3/m": "X"}
    world = after((STEP_1, STEP_9), setting, first_world(files=left, old=frozenset("X")))
    steps, world, _ = play(
        history.sweep(setting), world, at, lambda now: after(rivals, setting, now)
    )
    return steps, world


def after(rivals: tuple[Act, ...], setting: Setting, world: World) -> World:
    for rival in rivals:
        world = play(rival[1](setting), world)[1]
    return world


def run_real(
    before: tuple[Act, ...],
    act: Act,
    rivals: tuple[Act, ...],
    kind: str,
    at: int,
    url: str,
    lost: str = "",
) -> tuple[list[Any], dict[str, str], str]:
    storage, labels = connect(url), {}

    def do(one: Act) -> str:
        try:
            one[0](Recording(storage, kind, labels))
        except CkptstoreError as error:
            return type(error).__name__
        return ""

    for one in before:
        do(one)
    recording = Recording(storage, kind, labels, at, lambda: [do(r) for r in rivals], lost=lost)
    ended = "ok"
    try:
        act[0](recording)
    except SupersededError:
        ended = "superseded"
    except ConflictError:
        ended = "conflict"
    except NotFoundError:
        ended = "no such step"
    except StorageError as error:
        ended = "unknown" if error.committed is None else "failed"
    return recording.steps, files_of(storage, labels), ended


def run_model(
    before: tuple[Act, ...],
    act: Act,
    rivals: tuple[Act, ...],
    kind: str,
    at: int,
    lost: str = "",
) -> tuple[list[Any], World, str]:
    setting = Setting(storage=kind)
    world = after(before, setting, first_world())
    return play(act[1](setting), world, at, lambda now: after(rivals, setting, now), lost)
