"""G2: a pinned step stays, whoever removes it meanwhile, and whoever is killed in that."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import ckptstore
from ckptstore.commit.layout import PIN, listed_steps, step_folder, steps
from ckptstore.commit.leftovers import find_leftovers
from ckptstore.commit.pins import PinnedError, pin, pinned_steps, unpin
from ckptstore.commit.remove import remove_everything, remove_saved, remove_state, remove_step
from ckptstore.commit.repair import repair
from ckptstore.commit.save import save_step
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError
from ckptstore.manifest import MANIFEST
from ckptstore.storage import connect
from ckptstore.testing import Crash, FaultyStorage, Killed, Operation
from ckptstore.verify import prove


@pytest.fixture
def place(location: Any) -> Any:
    return connect(*location)


@pytest.fixture
def history(place: Any, save_of: Any) -> Any:
    """Give a place with the steps 1 to 3."""
    for step in (1, 2, 3):
        save_step(place, save_of(f"s{step}", step=step), overwrite=False)
    return place


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody wait for a removal that is under way."""
    monkeypatch.setattr("ckptstore.commit.pins._PAUSE", 0.0)


def test_a_pin_is_a_file_beside_the_manifest_which_is_not_changed(history):
    before = history.list("step-00000002").files

    pin(history, 2)

    after = history.list("step-00000002").files
    assert after.keys() - before.keys() == {"pinned.json"}
    assert {name: after[name] for name in before} == before
    assert b'"pinned": "20' in history.read("step-00000002/pinned.json")
    assert pinned_steps(history) == (2,)
    assert steps(history) == (1, 2, 3)


def test_pinning_twice_changes_nothing(history):
    pin(history, 2)
    first = history.read("step-00000002/pinned.json")

    pin(history, 2)

    assert history.read("step-00000002/pinned.json") == first


def test_what_is_unpinned_can_go(history):
    pin(history, 2)

    assert unpin(history, 2)
    assert not unpin(history, 2)

    remove_step(history, 2)
    assert steps(history) == (1, 3)
    assert history.list("").folders == ("step-00000001", "step-00000003")


@pytest.mark.parametrize("step", [4, -1])
def test_a_step_that_is_not_there_is_not_pinned(history, step):
    with pytest.raises(NotFoundError, match=f"no checkpoint at step {step} .*: 1, 2, 3"):
        pin(history, step)
    with pytest.raises(NotFoundError, match=f"no checkpoint at step {step} .*: 1, 2, 3"):
        unpin(history, step)

    assert len(history.list("").folders) == 3


def test_what_nobody_can_read_is_not_pinned(history):
    history.replace("step-00000002/manifest.json", b"{")

    with pytest.raises(CorruptionError, match="step-00000002/manifest.json"):
        pin(history, 2)


def test_removal_of_a_pinned_step_names_the_way(history):
    pin(history, 2)

    with pytest.raises(PinnedError, match=r"is pinned, and was not removed; .*unpin.* --remove"):
        remove_step(history, 2)
    with pytest.raises(ConflictError, match=r"removing all would take step 2 of .* pinned stays"):
        remove_everything(history)

    assert steps(history) == (1, 2, 3)
    assert not any("removing" in name for name in history.list("step-00000002").files)


def test_what_is_pinned_and_damaged_is_not_removed(history):
    pin(history, 2)
    history.replace("step-00000002/manifest.json", b"{")

    with pytest.raises(PinnedError, match="step-00000002 of .* is pinned"):
        remove_step(history, 2)

    assert history.read("step-00000002/manifest.json") == b"{"


def test_what_nobody_can_read_is_not_taken_for_the_save_that_is_meant(history):
    history.replace("step-00000002/manifest.json", b"{")

    with pytest.raises(CorruptionError, match="step-00000002/manifest.json"):
        remove_saved(history, "step-00000002", "0123456789ab")

    assert history.read("step-00000002/manifest.json") == b"{"
    assert not any("removing" in name for name in history.list("step-00000002").files)


def test_other_content_never_takes_the_place_of_a_pinned_step(history, save_of):
    pin(history, 2)

    with pytest.raises(ConflictError, match=r"step 2 of .* is pinned, and is not replaced"):
        save_step(history, save_of("other", step=2), overwrite=True)
    save_step(history, save_of("s2", step=2), overwrite=True)

    assert len(history.list("step-00000002").files) == 4


def test_no_file_of_a_checkpoint_can_have_the_name(history, save_of):
    from ckptstore.commit.save import Save

    def write(files: Any) -> None:
        files.write_text("pinned.json", "{}")

    with pytest.raises(ConflictError, match=r"pinned.json is a name of ckptstore's own"):
        save_step(
            history, Save(write=write, index=lambda files, name: None, step=9), overwrite=False
        )


def test_a_pin_proves_nothing_and_breaks_nothing(history):
    pin(history, 2)

    checkpoint = ckptstore.open(history.location) if os.path.isdir(history.location) else None

    assert find_leftovers(history, older_than=-1).files == ()
    assert repair(history, older_than=-1) == ()
    assert checkpoint is None or prove(checkpoint.source, checkpoint.reader.files())


class TestAtTheSameTime:
    """What happens between each two operations of a removal, and of a pin."""

    @pytest.fixture
    def place(self, tmp_path: Any) -> Any:
        return connect(tmp_path / "dante")

    def between(self, place: Any, at: int, act: Callable[[], None]) -> tuple[Any, list[Any]]:
        """Return a storage that lets somebody in before an operation, and what that came to."""
        came: list[Any] = []

        def fault(operation: Operation, perform: Callable[[], Any]) -> Any:
            if operation.number == at:
                try:
                    act()
                    came.append("done")
                except ckptstore.CkptstoreError as error:
                    came.append(error)
            return perform()

        return FaultyStorage(place, fault), came

    def test_of_a_pin_and_a_removal_at_most_one_succeeds(self, tmp_path, save_of, quick):
        outcomes = set()
        for at in itertools.count(1):
            place = connect(tmp_path / str(at))
            first = save_step(place, save_of("s1", step=1), overwrite=False)
            save_step(place, save_of("s2", step=2), overwrite=False)
            storage, came = self.between(place, at, partial(pin, place, 1))
            try:
                removed = remove_state(storage, first)
            except PinnedError:
                removed = False
            if not came:
                break
            pinned = came[0] == "done"
            outcomes.add((removed, pinned))
            assert not (removed and pinned)
            assert (1 in steps(place)) == (not removed)
            assert not (removed and place.list("step-00000001").files), "nothing of it is left"
        # Where each sees the other's sign the step stays, and whoever pins is told to look again.
        assert outcomes == {(True, False), (False, True), (False, False)}
        assert at > 8

    def test_a_removal_that_was_killed_takes_no_pinned_step(self, tmp_path, save_of, quick):
        for at in itertools.count(1):
            place = connect(tmp_path / str(at))
            first = save_step(place, save_of("s1", step=1), overwrite=False)
            save_step(place, save_of("s2", step=2), overwrite=False)
            try:
                remove_state(FaultyStorage(place, Crash(at)), first)
                break
            except Killed:
                pass
            there = 1 in steps(place)
            try:
                pin(place, 1)
                assert 1 in steps(place)
            except NotFoundError:
                assert not there
            except ConflictError as error:
                assert "a removal of it was cut off" in str(error)  # noqa: PT017
                assert "doctor --fix" in str(error)  # noqa: PT017
            repair(place, older_than=-1)
            if there:
                pin(place, 1)
                assert pinned_steps(place) == (1,)
        assert at > 8


def test_what_is_left_of_a_pin_alone_is_a_leftover(history):
    history.create("step-00000007/pinned.json", b"{}\n")
    history.create("step-00000002/removing.0123456789ab", b"{}\n")

    assert steps(history) == (1, 2, 3)
    assert pinned_steps(history) == ()
    found = find_leftovers(history, older_than=-1).files
    assert [entry.name for entry in found] == [
        "step-00000002/removing.0123456789ab",
        f"step-00000007/{PIN}",
    ]

    repair(history, older_than=-1)

    assert not history.list("step-00000007").files
    assert MANIFEST in history.list("step-00000002").files


def test_a_listing_shows_steps_and_pins_together(history):
    pin(history, 3)

    found = listed_steps(history)

    assert {step: it.pinned for step, it in found.items()} == {1: False, 2: False, 3: True}
    assert found[3].manifest.name == f"{step_folder(3)}/{MANIFEST}"
