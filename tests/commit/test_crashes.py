"""G2: a writer that dies before or after any of its operations leaves a whole state.

These are the functions below the public ones, without torch; the public ones are in `tests/faults`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ckptstore.commit.edits import hand_edits
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed, newest
from ckptstore.commit.remove import remove_everything, remove_older
from ckptstore.commit.repair import repair
from ckptstore.commit.save import save_generation, save_step
from ckptstore.errors import NotFoundError
from ckptstore.storage import connect
from ckptstore.storage.base import Storage
from ckptstore.testing import Crash, FaultyStorage, Killed, asked


def state_of(place: Storage) -> str | None:
    """Return what a fresh process finds, after proving that it is one state and no mixture."""
    state = newest(place)
    if state is None:
        return None
    if state.manifest.generation is not None:
        assert hand_edits(place, state) == {}, "nobody edited anything"
    config = state.manifest.texts["config.json"].text
    files = CommittedFiles(place, state, edits={})
    for name in state.manifest.files:
        with files.open(name) as file:
            assert f"{name} of {file.read().decode().split(' of ')[1]}" in {
                f"{name} of a",
                f"{name} of b",
            }
            file.seek(0)
            assert f'"{file.read().decode().split(" of ")[1]}"' in config, "a mixture"
    return "a" if '"a"' in config else "b"


def deaths(
    place: Callable[[], Storage], prepare: Callable[[Storage], object], act: Callable[[Any], object]
) -> Iterator[Storage]:
    """Run an act again and again, dying one operation later each time, until it survives."""
    for after in (False, True):
        for number in itertools.count(1):
            storage = place()
            prepare(storage)
            try:
                act(FaultyStorage(storage, Crash(number, after=after)))
            except Killed:
                yield storage
            else:
                assert number > 6, "the act did something"
                break


@pytest.fixture(params=["local", "memory"])
def new_place(request: Any, tmp_path: Any) -> Iterator[Callable[[], Storage]]:
    numbers = itertools.count()
    if request.param == "local":
        yield lambda: connect(tmp_path / str(next(numbers)))
        return
    root = f"memory://crash-{tmp_path.name}-{id(numbers)}"
    yield lambda: connect(f"{root}/{next(numbers)}")
    import fsspec

    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(root.removeprefix("memory:/"), recursive=True)


def test_replacing_a_single_checkpoint(new_place, save_of):
    seen = set()
    for place in deaths(
        new_place,
        lambda place: save_generation(place, save_of("a", optimizer=True)),
        lambda place: save_generation(place, save_of("b")),
    ):
        seen.add(state_of(place))
        repair(place)
        assert state_of(place) in ("a", "b")
        save_generation(place, save_of("b"))
        assert state_of(place) == "b"
        assert place.read("model.pt") == b"model.pt of b"
        assert place.entry("optimizer.pt") is None
        assert len(place.list(".ckptstore").folders) == 1
    assert seen == {"a", "b"}


def test_the_first_save(new_place, save_of):
    seen = set()
    for place in deaths(
        new_place, lambda place: None, lambda place: save_generation(place, save_of("a"))
    ):
        seen.add(state_of(place))
        save_generation(place, save_of("b"))
        assert state_of(place) == "b"
    assert seen == {None, "a"}


def test_saving_a_step_beside_another(new_place, save_of):
    seen = set()
    for place in deaths(
        new_place,
        lambda place: save_step(place, save_of("a", step=1), overwrite=False),
        lambda place: save_step(place, save_of("b", step=2), overwrite=False),
    ):
        seen.add(state_of(place))
        save_step(place, save_of("b", step=2), overwrite=False)
        assert state_of(place) == "b"
    assert seen == {"a", "b"}


def test_overwriting_the_only_step(new_place, save_of):
    seen = set()
    for place in deaths(
        new_place,
        lambda place: save_step(place, save_of("a", step=1), overwrite=False),
        lambda place: save_step(place, save_of("b", step=1), overwrite=True),
    ):
        seen.add(state_of(place))
        save_step(place, save_of("b", step=1), overwrite=True)
        assert state_of(place) == "b"
    assert seen == {"a", "b"}


def test_repairing_a_lost_view(new_place, save_of):
    def prepare(place: Storage) -> None:
        save_generation(place, save_of("a"))
        for name in place.list("").files:
            place.delete(name)
        place.create(".ckptstore/00000001/left.over", b"x")

    for place in deaths(new_place, prepare, repair):
        assert state_of(place) == "a"
        repair(place)
        assert repair(place) == ()
        assert place.read("model.pt") == b"model.pt of a"


def test_retention(new_place, save_of):
    def prepare(place: Storage) -> None:
        first = save_generation(place, save_of("a"))
        files = {name: place.read(first.path(name)) for name in place.list(first.folder).files}
        save_generation(place, save_of("b"))
        for name, data in files.items():
            place.create(first.path(name), data)

    for place in deaths(new_place, prepare, lambda place: remove_older(place, 2)):
        assert state_of(place) == "b"
        remove_older(place, 2)
        assert place.list(".ckptstore").folders == ("00000002",)


def test_removing_everything(new_place, save_of):
    def prepare(place: Storage) -> Committed:
        return save_generation(place, save_of("a", optimizer=True))

    seen = set()
    for place in deaths(new_place, prepare, remove_everything):
        seen.add(state_of(place))
        with contextlib.suppress(NotFoundError):
            remove_everything(place)
        assert not place.list("").files, "whoever does it again completes it"
        with contextlib.suppress(NotFoundError):
            repair(place, older_than=-1)
        assert place.list("").folders == (), "and the day after nothing is left"
    assert seen == {"a", None}


def test_what_a_refresh_that_was_cut_off_left_goes_with_the_next_save(new_place, save_of):
    place = new_place()
    dying = FaultyStorage(place, Crash(asked("replace", "config.json")))
    with pytest.raises(Killed):
        save_generation(dying, save_of("a", optimizer=True))
    assert place.entry("optimizer.pt") is not None

    save_generation(place, save_of("b"))

    assert list(place.list("").files) == ["config.json", "manifest.json", "model.pt"]
    assert hand_edits(place, newest(place)) == {}


def test_a_file_of_a_person_is_not_taken_for_what_a_refresh_left(new_place, save_of):
    place = new_place()
    save_generation(place, save_of("a", optimizer=True))
    save_generation(place, save_of("b"))
    place.create("optimizer.pt", b"somebody's own")

    save_generation(place, save_of("c"))

    assert place.read("optimizer.pt") == b"somebody's own"
