"""G2, G7: whatever a storage answers, files that a manifest names are never taken away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import generations, newest_generation, step_named
from ckptstore.commit.repair import adopt_view, repair
from ckptstore.commit.save import save_generation, save_step
from ckptstore.commit.view import view_manifest
from ckptstore.errors import ConflictError, StorageError, UnsafeError, UnsupportedError
from ckptstore.manifest import MANIFEST
from ckptstore.storage import connect
from ckptstore.testing import FaultyStorage, Lose, Operation, Refuse, asked


@pytest.fixture
def place(tmp_path: Any) -> Any:
    return connect(tmp_path / "dante")


def content(place: Any, state: Any) -> str:
    with CommittedFiles(place, state, edits={}).open("model.pt") as file:
        return file.read().decode()


def on_manifest(operation: str) -> Callable[[Operation], bool]:
    """Pick what is done to the manifest of a generation or step, not of the view."""
    return asked(operation, f"/{MANIFEST}")


@pytest.mark.parametrize("operation", ["create", "swap"])
class TestAnswers:
    """Of a first save of a generation, and of a step that is replaced."""

    def save(self, storage: Any, save_of: Any, operation: str) -> Any:
        if operation == "create":
            return save_generation(storage, save_of("b"))
        return save_step(storage, save_of("b", step=1), overwrite=True)

    def state(self, place: Any, operation: str) -> Any:
        return newest_generation(place) if operation == "create" else step_named(place, 1)

    @pytest.fixture
    def old(self, place: Any, save_of: Any, operation: str) -> Any:
        if operation == "create":
            return save_generation(place, save_of("a"))
        return save_step(place, save_of("a", step=1), overwrite=False)

    def test_a_lost_reply_to_a_write_that_happened_is_a_success(
        self, place, save_of, operation, old
    ):
        storage = FaultyStorage(place, Lose(on_manifest(operation)))

        self.save(storage, save_of, operation)

        assert content(place, self.state(place, operation)) == "model.pt of b"

    def test_a_lost_reply_to_a_write_that_may_still_happen_leaves_the_files(
        self, place, save_of, operation, old
    ):
        storage = FaultyStorage(place, Lose(on_manifest(operation), done=False))

        with pytest.raises(StorageError, match="whether the save was committed is not") as error:
            self.save(storage, save_of, operation)

        assert error.value.committed is None
        assert content(place, self.state(place, operation)) == "model.pt of a"
        folder = ".ckptstore/00000002" if operation == "create" else "step-00000001"
        assert [name for name in place.list(folder).files if name.startswith("model.")]

    def test_a_failure_after_the_manifest_took_its_name_keeps_the_files(
        self, place, save_of, operation, old
    ):
        fault = Refuse(on_manifest(operation), "broken", times=1, done=True)
        storage = FaultyStorage(place, fault)

        with pytest.raises(StorageError, match="the save is committed, and may not") as error:
            self.save(storage, save_of, operation)

        assert error.value.committed is True
        assert content(place, self.state(place, operation)) == "model.pt of b"

    def test_a_definite_failure_leaves_nothing(self, place, save_of, operation, old):
        before = {folder: place.list(folder) for folder in (".ckptstore", "step-00000001")}
        storage = FaultyStorage(place, Refuse(on_manifest(operation), "denied", times=1))

        with pytest.raises(StorageError, match="access denied") as error:
            self.save(storage, save_of, operation)

        assert error.value.committed is False
        assert content(place, self.state(place, operation)) == "model.pt of a"
        assert {folder: place.list(folder) for folder in before} == before


def test_where_a_late_rival_cannot_be_ruled_out_the_outcome_is_unknown(place, save_of):
    committed = False

    def gone(operation: Operation, perform: Callable[..., Any]) -> Any:
        nonlocal committed
        if committed:
            raise StorageError("the server is gone")
        result = perform()
        committed = on_manifest("create")(operation)
        return result

    with pytest.raises(StorageError, match="the server is gone") as error:
        save_generation(FaultyStorage(place, gone), save_of("a"))

    assert error.value.committed is None
    assert content(place, newest_generation(place)) == "model.pt of a"


@pytest.mark.parametrize("step", [-5, 10**400])
def test_what_nobody_could_open_is_not_committed(place, save_of, step):
    save_generation(place, save_of("a"))

    with pytest.raises(UnsupportedError, match="cannot be saved, for nobody could open it"):
        save_generation(place, replace(save_of("b"), step=-5, metrics={"x": step}))

    assert content(place, newest_generation(place)) == "model.pt of a"
    assert place.list(".ckptstore").folders == ("00000001",)


def test_files_that_are_taken_over_never_get_a_rivals_name(place, save_of):
    source = save_generation(place, save_of("a"))
    entry = source.manifest.files["model.pt"]

    def taken_over(files: Any) -> None:
        files.write_text("config.json", "{}\n")
        files.reuse("model.pt", source.path(entry.path), entry)

    def overtaken(files: Any) -> None:
        taken_over(files)
        save_step(place, replace(save_of("rival", step=7), write=taken_over), overwrite=False)

    loser = replace(save_of("a", step=7), write=overtaken)
    with pytest.raises(ConflictError, match="step 7"):
        save_step(place, loser, overwrite=False)

    assert content(place, step_named(place, 7)) == "model.pt of a"


class TestLateRefresh:
    """A file of bytes that a killed refresh left in the view is nobody's replacement."""

    @pytest.fixture
    def late(self, place: Any, save_of: Any) -> Any:
        save_generation(place, save_of("older"))
        old = place.read("model.pt")
        save_generation(place, save_of("b"))
        place.replace("model.pt", old)
        return place

    def test_saving_goes_on(self, late, save_of):
        assert save_generation(late, save_of("c")).manifest.generation == 3
        assert late.read("model.pt") == b"model.pt of c"

    def test_doctor_refreshes_it(self, late):
        assert repair(late) == ("refreshed the view to generation 2",)
        assert late.read("model.pt") == b"model.pt of b"


def test_doctor_keeps_a_hand_edit_when_it_refreshes(place, save_of):
    save_generation(place, save_of("a", optimizer=True))
    place.replace("config.json", b'{"content": "mine"}')
    place.delete("optimizer.pt")

    assert repair(place) == ("refreshed the view to generation 1",)

    assert place.read("config.json") == b'{"content": "mine"}'
    assert place.entry("optimizer.pt") is not None


def test_folders_of_others_are_no_leftovers(tmp_path, place, save_of):
    import os

    save_step(place, save_of("a", step=1), overwrite=False)
    for folder, name in [("step-by-step-guide", "notes.md"), ("step-00000500", "lit_model.pth")]:
        path = tmp_path / "dante" / folder
        path.mkdir()
        (path / name).write_text("mine")
        os.utime(path / name, (0, 0))
    leftover = tmp_path / "dante" / "step-00000009"
    leftover.mkdir()
    (leftover / "model.pt").write_text("half")
    os.utime(leftover / "model.pt", (0, 0))

    assert repair(place, older_than=-1) == ("removed the leftover step-00000009/model.pt",)

    assert (tmp_path / "dante" / "step-by-step-guide" / "notes.md").read_text() == "mine"
    assert (tmp_path / "dante" / "step-00000500" / "lit_model.pth").read_text() == "mine"


def test_cleaning_does_not_follow_links_out_of_the_location(tmp_path, place, save_of):
    save_generation(place, save_of("a"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    (tmp_path / "dante" / ".ckptstore" / "00000000").symlink_to(tmp_path / "precious")

    save_generation(place, save_of("b"))
    with contextlib.suppress(UnsafeError):
        repair(place)

    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"
    assert generations(place) == (2,)


def test_another_programs_manifest_is_not_replaced(place, save_of):
    place.create(MANIFEST, b'{"name": "a web app"}')

    with pytest.raises(ConflictError, match="manifest.json in .* is not ckptstore's"):
        save_generation(place, save_of("a"))

    assert place.read(MANIFEST) == b'{"name": "a web app"}'
    assert view_manifest(place) is None


def test_adopting_says_what_it_would_do(place, save_of):
    save_generation(place, save_of("a"))

    assert adopt_view(place, lambda files, name: None, dry_run=True) == (
        "would commit the view as a new generation: model.pt",
    )
