"""G2, G7: a single checkpoint is whole or absent, and of several writers one wins."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from ckptstore.commit.edits import hand_edits
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import generations, newest_generation
from ckptstore.commit.save import save_generation
from ckptstore.errors import ConflictError, CorruptionError, SupersededError
from ckptstore.storage import connect


@pytest.fixture
def place(location: Any) -> Any:
    return connect(*location)


def content(place: Any) -> str:
    state = newest_generation(place)
    with CommittedFiles(place, state, edits={}).open("model.pt") as file:
        return file.read().decode()


def test_first_save_is_generation_one_and_shows_plain_files(place, save_of):
    state = save_generation(place, save_of("a", optimizer=True))

    assert state.manifest.generation == 1
    assert set(place.list("").files) == {
        "config.json",
        "manifest.json",
        "model.pt",
        "optimizer.pt",
    }
    assert place.read("model.pt") == b"model.pt of a"
    assert json.loads(place.read("config.json")) == {"content": "a"}


def test_second_save_replaces_the_first_and_removes_it(place, save_of):
    save_generation(place, save_of("a", optimizer=True))

    save_generation(place, save_of("b"))

    assert generations(place) == (2,)
    assert content(place) == "model.pt of b"
    assert place.read("model.pt") == b"model.pt of b"
    assert place.entry("optimizer.pt") is None, "the view is never a mix of two states"
    assert place.list(".ckptstore").folders == ("00000002",)


def test_a_failing_write_leaves_the_old_state_and_nothing_else(place, save_of):
    save_generation(place, save_of("a"))
    before = place.list(".ckptstore").folders

    def fail(files: Any) -> None:
        files.write_text("config.json", "{}\n")
        with files.create("model.pt") as sink:
            sink.write(memoryview(b"half"))
            raise RuntimeError("the power of the process ends here")

    with pytest.raises(RuntimeError, match="power of the process"):
        save_generation(place, replace(save_of("b"), write=fail))

    assert content(place) == "model.pt of a"
    assert place.list(".ckptstore").folders == before


def test_leftovers_of_a_killed_writer_are_removed_by_the_next_save(place, save_of):
    save_generation(place, save_of("a"))
    place.create(".ckptstore/00000002/model.dead.pt", b"half a model")

    save_generation(place, save_of("b"))
    save_generation(place, save_of("c"))

    assert place.list(".ckptstore").folders == ("00000003",)
    assert set(place.list(".ckptstore/00000003").files) >= {"manifest.json"}


def test_a_writer_that_comes_too_late_withdraws(place, save_of):
    save_generation(place, save_of("a"))
    slow = save_of("slow")

    def overtaken(files: Any) -> None:
        slow.write(files)
        save_generation(place, save_of("b"))
        save_generation(place, save_of("c"))

    with pytest.raises(ConflictError, match="came too late|another writer"):
        save_generation(place, replace(slow, write=overtaken))

    assert content(place) == "model.pt of c"
    assert generations(place) == (3,)
    assert place.list(".ckptstore").folders == ("00000003",)


def test_of_two_writers_of_one_generation_one_wins(place, save_of):
    def meanwhile(files: Any) -> None:
        save_of("loser").write(files)
        save_generation(place, save_of("winner"))

    with pytest.raises(ConflictError, match="generation 1 of .* committed by another writer"):
        save_generation(place, replace(save_of("loser"), write=meanwhile))

    assert content(place) == "model.pt of winner"


def test_racing_writers_each_win_a_generation_or_know_that_they_lost(tmp_path, save_of):
    place = connect(tmp_path / "dante")
    outcomes: list[object] = []

    def run(name: str) -> None:
        try:
            outcomes.append(save_generation(place, save_of(name)).manifest.generation)
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(f"writer {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    won = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(outcomes) == 8
    assert won
    assert len(won) == len(set(won)), "no generation has two winners"
    assert generations(place)[-1] == max(won)
    newest = newest_generation(place)
    assert (
        place.read("model.pt")
        .decode()
        .endswith(json.loads(newest.manifest.texts["config.json"].text)["content"])
    )


def test_a_pinned_state_that_is_gone_is_superseded_not_damaged(place, save_of):
    pinned = CommittedFiles(place, save_generation(place, save_of("a")), edits={})

    save_generation(place, save_of("b"))

    with pytest.raises(SupersededError, match="generation 1 of .* open the location again"):
        pinned.open("model.pt")


def test_a_state_that_goes_while_it_is_read_is_superseded_or_stays_what_it_was(place, save_of):
    pinned = CommittedFiles(place, save_generation(place, save_of("a")), edits={})
    with pinned.open("model.pt") as file:
        save_generation(place, save_of("b"))

        # On local disk an open file stays readable; elsewhere it is gone, and said to be.
        try:
            assert file.read() == b"model.pt of a"
        except SupersededError as error:
            assert "generation 1 of" in str(error)  # noqa: PT017


def test_a_flipped_byte_names_the_file_and_the_chunk(place, save_of):
    state = save_generation(place, save_of("a"))
    path = state.path(state.manifest.files["model.pt"].path)
    place.replace(path, b"model.pt of A")

    with (
        CommittedFiles(place, state, edits={}).open("model.pt") as file,
        pytest.raises(CorruptionError, match=r"model.pt .* is damaged: chunk 0 is xxh3-128:"),
    ):
        file.read()


class TestHandEdits:
    """What a person changes in the view is told from what a refresh left there."""

    def test_nothing_is_edited_after_a_save(self, place, save_of):
        state = save_generation(place, save_of("a"))

        assert hand_edits(place, state) == {}

    def test_a_changed_text_is_an_edit(self, place, save_of):
        state = save_generation(place, save_of("a"))
        place.replace("config.json", b'{"content": "mine"}')

        assert hand_edits(place, state) == {"config.json": '{"content": "mine"}'}

    def test_a_forerunners_text_is_a_late_refresh(self, place, save_of):
        save_generation(place, save_of("a"))
        old = place.read("config.json")
        state = save_generation(place, save_of("b"))
        place.replace("config.json", old)

        assert hand_edits(place, state) == {}

    def test_an_old_state_has_no_edits_to_offer(self, place, save_of):
        old = save_generation(place, save_of("a"))
        save_generation(place, save_of("b"))
        place.replace("config.json", b'{"content": "mine"}')

        assert hand_edits(place, old) is None, "open what is there by now"

    def test_a_replaced_file_of_bytes_is_an_error_that_offers_both_ways(self, place, save_of):
        state = save_generation(place, save_of("a"))
        place.replace("model.pt", b"somebody's own model")

        with pytest.raises(ConflictError, match=r"doctor --adopt .* doctor --restore"):
            hand_edits(place, state)
        with pytest.raises(ConflictError, match="replaced by hand"):
            save_generation(place, save_of("b"))
        assert place.read("model.pt") == b"somebody's own model"
        assert generations(place) == (1,)
