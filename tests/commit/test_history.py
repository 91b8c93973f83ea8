"""G2, G7: a history holds one bundle per step, each whole or absent, none ever changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed, newest, read_manifest, step_folder, step_named, steps
from ckptstore.commit.leftovers import Leftovers, find_leftovers
from ckptstore.commit.remove import remove_everything, remove_state
from ckptstore.commit.save import Save, save_generation, save_step
from ckptstore.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.storage import connect


@pytest.fixture
def place(location: Any) -> Any:
    return connect(*location)


def content(place: Any, step: int) -> str:
    with CommittedFiles(place, step_named(place, step), edits={}).open("model.pt") as file:
        return file.read().decode()


def test_a_step_is_a_folder_of_plain_files(place, save_of):
    save_step(place, save_of("a", step=500, optimizer=True), overwrite=False)

    assert set(place.list("step-00000500").files) == {
        "config.json",
        "manifest.json",
        "model.pt",
        "optimizer.pt",
    }
    assert place.list("").files == {}, "a history has no view"
    assert steps(place) == (500,)


def test_the_newest_is_the_highest_committed_step(place, save_of):
    for step in (1000, 500, 99_999_999, 123_456_789):
        save_step(place, save_of(f"s{step}", step=step), overwrite=False)
    place.create("step-200000000/model.pt", b"never committed")

    assert newest(place).manifest.step == 123_456_789
    assert steps(place) == (500, 1000, 99_999_999, 123_456_789)


def test_a_missing_step_is_named_beside_those_that_there_are(place, save_of):
    save_step(place, save_of("a", step=500), overwrite=False)
    save_step(place, save_of("b", step=1000), overwrite=False)

    with pytest.raises(NotFoundError, match="no checkpoint at step 1500 .*: 500, 1000"):
        step_named(place, 1500)


def test_the_same_step_with_the_same_content_changes_nothing(place, save_of):
    first = save_step(place, save_of("a", step=1), overwrite=False)

    again = save_step(place, save_of("a", step=1), overwrite=False)

    assert again.manifest.write_id == first.manifest.write_id
    assert len(place.list("step-00000001").files) == 3


def test_the_same_step_with_other_content_is_a_conflict(place, save_of):
    save_step(place, save_of("a", step=1), overwrite=False)

    with pytest.raises(ConflictError, match="step 1 is in .* overwrite=True"):
        save_step(place, save_of("b", step=1), overwrite=False)

    assert content(place, 1) == "model.pt of a"
    assert len(place.list("step-00000001").files) == 3


def test_overwrite_replaces_a_step_or_refuses_where_the_storage_cannot(place, save_of):
    old = save_step(place, save_of("a", step=1), overwrite=False)
    pinned = CommittedFiles(place, old, edits={})
    try:
        save_step(place, save_of("b", step=1), overwrite=True)
    except UnsupportedError as error:
        assert "ckptstore rm" in str(error) or "rm" in str(error)  # noqa: PT017
        assert content(place, 1) == "model.pt of a"
        assert len(place.list("step-00000001").files) == 3
        return

    assert content(place, 1) == "model.pt of b"
    assert len(place.list("step-00000001").files) == 3
    with pytest.raises(SupersededError, match="step 1 of .* was replaced"):
        pinned.open("model.pt").read()


def test_a_leftover_under_the_plain_name_is_worked_around(place, save_of):
    place.create("step-00000001/model.pt", b"half of an attempt that was killed")

    state = save_step(place, save_of("a", step=1), overwrite=False)

    assert state.manifest.files["model.pt"].path != "model.pt"
    assert content(place, 1) == "model.pt of a"


def test_of_two_writers_of_one_step_one_wins(place, save_of):
    loser = save_of("loser", step=1)

    def meanwhile(files: Any) -> None:
        loser.write(files)
        save_step(place, save_of("winner", step=1), overwrite=False)

    with pytest.raises(ConflictError, match="step 1"):
        save_step(place, replace(loser, write=meanwhile), overwrite=False)

    assert content(place, 1) == "model.pt of winner"
    assert set(place.list("step-00000001").files) >= {"manifest.json"}


def test_removing_a_step_spares_a_newer_save_of_it(place, save_of):
    old = save_step(place, save_of("a", step=1), overwrite=False)
    assert remove_state(place, old)
    save_step(place, save_of("b", step=1), overwrite=False)

    assert not remove_state(place, old)

    assert content(place, 1) == "model.pt of b"


def test_young_leftovers_are_left_alone(place, save_of):
    save_step(place, save_of("a", step=1), overwrite=False)
    place.create("step-00000002/model.pt", b"perhaps somebody is still writing this")

    assert find_leftovers(place, older_than=86_400) == Leftovers()


def test_a_plain_save_onto_a_history_says_how(place, save_of):
    save_step(place, save_of("a", step=1), overwrite=False)

    with pytest.raises(ConflictError, match="is a history of steps; save to it with"):
        save_generation(place, save_of("b"))


def test_of_a_generation_and_a_step_the_higher_training_step_is_the_newest(place, save_of):
    save_generation(place, save_of("single", step=700))
    save_step(place, save_of("a", step=500), overwrite=False)
    assert newest(place).manifest.generation == 1

    save_step(place, save_of("b", step=1000), overwrite=False)
    assert newest(place).manifest.step == 1000
    assert step_named(place, 700).manifest.generation == 1


def test_a_folder_moved_to_another_steps_name_is_refused(tmp_path, save_of):
    place = connect(tmp_path)
    save_step(place, save_of("a", step=1), overwrite=False)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000002")

    with pytest.raises(CorruptionError, match="move the folder back"):
        read_manifest(place, step_folder(2))


def test_remove_everything_leaves_only_what_was_never_ours(place, save_of):
    place.create("latest.pt", b"a legacy file")
    save_generation(place, save_of("a", step=1))
    save_step(place, save_of("b", step=2), overwrite=False)

    gone = remove_everything(place)

    assert gone[-1] == ".ckptstore/00000001"
    assert set(place.list("").files) == {"latest.pt"}
    assert newest(place) is None
    with pytest.raises(NotFoundError, match="nothing in .* was committed"):
        remove_everything(place)


def test_a_removed_state_is_found_by_nobody(place, save_of):
    state = save_step(place, save_of("a", step=1), overwrite=False)

    remove_state(place, Committed(state.folder, state.manifest))

    assert steps(place) == ()
    assert place.list("step-00000001").files == {}


def test_a_step_of_very_many_files_goes_as_a_whole(place, monkeypatch):
    """As hundreds of ranks write them; where each removal is a request, several are under way."""

    def write(files):
        for rank in range(60):
            with files.create(f"of-rank-{rank}.bin") as sink:
                sink.write(memoryview(b"shards"))

    monkeypatch.setattr(type(place), "at_once", 8)
    state = save_step(place, Save(write, lambda files, name: None, step=3), overwrite=False)
    assert len(place.list(state.folder).files) == 61

    assert remove_state(place, state)

    assert not place.list(state.folder).files
