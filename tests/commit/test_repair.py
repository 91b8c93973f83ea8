"""The view is a copy: what cuts its refresh off is repaired, what a person put there is kept."""

from __future__ import annotations

from typing import Any

import pytest

from ckptstore.commit.edits import hand_edits
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import generations, newest_generation
from ckptstore.commit.remove import remove_everything
from ckptstore.commit.repair import adopt_view, repair
from ckptstore.commit.save import save_generation
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError
from ckptstore.storage import connect


@pytest.fixture
def place(location: Any) -> Any:
    return connect(*location)


def test_nothing_to_repair_is_nothing_done(place, save_of):
    save_generation(place, save_of("a"))

    assert repair(place) == ()


def test_a_missing_view_is_made_again(place, save_of):
    save_generation(place, save_of("a"))
    for name in place.list("").files:
        place.delete(name)

    assert repair(place, dry_run=True) == ("would refresh the view to generation 1",)
    assert repair(place) == ("refreshed the view to generation 1",)

    assert place.read("model.pt") == b"model.pt of a"


def test_a_view_that_is_behind_is_refreshed(place, save_of):
    save_generation(place, save_of("a", optimizer=True))
    behind = {name: place.read(name) for name in place.list("").files}
    save_generation(place, save_of("b"))
    for name, data in behind.items():
        place.replace(name, data)

    assert repair(place) == ("refreshed the view to generation 2",)

    assert place.read("model.pt") == b"model.pt of b"
    assert place.entry("optimizer.pt") is None


def test_leftovers_below_the_newest_go_and_the_one_above_stays(place, save_of):
    save_generation(place, save_of("a"))
    save_generation(place, save_of("b"))
    place.create(".ckptstore/00000001/model.dead.pt", b"of a writer that was killed")
    place.create(".ckptstore/00000003/model.live.pt", b"of a writer that may be at work")

    assert repair(place) == ("removed the leftover .ckptstore/00000001",)

    assert place.list(".ckptstore").folders == ("00000002", "00000003")


def test_hand_edits_survive_a_repair(place, save_of):
    state = save_generation(place, save_of("a"))
    place.replace("config.json", b'{"content": "mine"}')

    assert repair(place) == ()

    assert hand_edits(place, state) == {"config.json": '{"content": "mine"}'}


class TestReplacedByHand:
    """A file of bytes that somebody put into the view is adopted or given up, by choice."""

    @pytest.fixture
    def replaced(self, place: Any, save_of: Any) -> Any:
        save_generation(place, save_of("a"))
        place.replace("config.json", b'{"content": "mine"}')
        place.replace("model.pt", b"somebody's own model")
        return place

    def test_repair_asks_for_the_choice(self, replaced):
        with pytest.raises(ConflictError, match="replaced by hand"):
            repair(replaced)

    def test_restore_puts_the_saved_file_back_and_keeps_the_hand_edit(self, replaced):
        assert repair(replaced, restore=True) == (
            "put model.pt of generation 1 back into the view",
        )

        assert replaced.read("model.pt") == b"model.pt of a"
        assert hand_edits(replaced, newest_generation(replaced)) == {
            "config.json": '{"content": "mine"}'
        }

    def test_adopt_makes_it_the_next_generation(self, replaced):
        said = adopt_view(replaced, lambda files, name: None)

        assert said == ("committed the view as generation 2: model.pt",)
        state = newest_generation(replaced)
        assert generations(replaced) == (2,)
        assert state.manifest.texts["config.json"].text == '{"content": "mine"}'
        with CommittedFiles(replaced, state, edits={}).open("model.pt") as file:
            assert file.read() == b"somebody's own model"


def test_bytes_overwritten_in_place_can_be_adopted(tmp_path, save_of):
    place = connect(tmp_path)
    state = save_generation(place, save_of("a"))
    with (tmp_path / "model.pt").open("r+b") as file:
        file.write(b"MODEL")
    with (
        CommittedFiles(place, state, edits={}).open("model.pt") as file,
        pytest.raises(CorruptionError, match="is damaged: chunk 0 .* doctor --adopt"),
    ):
        file.read()

    adopt_view(place, lambda files, name: None)

    state = newest_generation(place)
    with CommittedFiles(place, state, edits={}).open("model.pt") as file:
        assert file.read() == b"MODEL.pt of a"


def test_a_copy_of_the_whole_folder_is_no_replacement(tmp_path, save_of):
    import shutil

    save_generation(connect(tmp_path / "dante"), save_of("a"))
    shutil.copytree(tmp_path / "dante", tmp_path / "copy")

    copy = connect(tmp_path / "copy")

    assert hand_edits(copy, newest_generation(copy)) == {}
    assert save_generation(copy, save_of("b")).manifest.generation == 2


def test_adopting_where_nothing_was_saved_says_so(tmp_path):
    with pytest.raises(NotFoundError, match="no generation"):
        adopt_view(connect(tmp_path), lambda files, name: None)


def test_an_empty_folder_of_a_killed_writer_goes_with_the_next_save(tmp_path, save_of):
    place = connect(tmp_path)
    save_generation(place, save_of("a"))
    (tmp_path / ".ckptstore" / "00000002").mkdir()
    save_generation(place, save_of("b"))
    (tmp_path / ".ckptstore" / "00000001").mkdir()

    save_generation(place, save_of("c"))

    assert place.list(".ckptstore").folders == ("00000003",)


def test_removing_a_location_takes_a_damaged_manifest_of_its_view_too(place, save_of):
    save_generation(place, save_of("a"))
    place.replace("manifest.json", place.read("manifest.json")[:-20])

    remove_everything(place)

    assert place.list("").files == {}
    assert save_generation(place, save_of("b")).manifest.generation == 1


def test_removing_a_location_leaves_another_programs_manifest(place, save_of):
    save_generation(place, save_of("a"))
    place.replace("manifest.json", b'{"name": "a web app"}')

    remove_everything(place)

    assert list(place.list("").files) == ["manifest.json"]
