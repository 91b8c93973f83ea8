"""G2: what killed writers leave is found and cleaned, and never a file that may still count."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ckptstore.commit import intact
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import newest, newest_generation
from ckptstore.commit.leftovers import Leftovers, find_leftovers, remove_leftovers
from ckptstore.commit.repair import repair
from ckptstore.commit.save import save_generation, save_step
from ckptstore.errors import NotFoundError, StorageError
from ckptstore.storage import connect
from ckptstore.storage.base import Storage
from ckptstore.testing import FaultyStorage, Operation

DAY = 86_400.0
EVERYTHING = -1.0  # What is not older than this has yet to be made.
DEAD = "model.deaddeaddead.pt"


@pytest.fixture
def place(location: Any) -> Any:
    return connect(*location)


def content(place: Storage) -> bytes:
    state = newest(place)
    assert state is not None
    with CommittedFiles(place, state, edits={}).open("model.pt") as file:
        return file.read()


class TestSingle:
    def test_a_dead_writers_file_beside_the_newest_state_goes_at_once(self, place, save_of):
        place.create(f".ckptstore/00000001/{DEAD}", b"half")
        place.create(".ckptstore/00000001/notes.txt", b"mine")
        save_generation(place, save_of("a"))

        assert repair(place, dry_run=True) == (
            f"would remove the leftover .ckptstore/00000001/{DEAD}",
        )
        assert repair(place) == (f"removed the leftover .ckptstore/00000001/{DEAD}",)

        assert content(place) == b"model.pt of a"
        assert place.read(".ckptstore/00000001/notes.txt") == b"mine"
        assert repair(place) == ()

    def test_above_the_newest_a_file_goes_by_age_alone(self, place, save_of):
        save_generation(place, save_of("a"))
        place.create(f".ckptstore/00000002/{DEAD}", b"half")
        place.create(".ckptstore/00000002/.tmp-0123456789abcdef", b"half")
        place.create(".ckptstore/00000002/notes.txt", b"mine")

        assert repair(place) == ()
        assert sorted(repair(place, older_than=EVERYTHING)) == [
            f"removed the leftover .ckptstore/00000002/{DEAD}",
            "removed the temporary .ckptstore/00000002/.tmp-0123456789abcdef",
        ]

        assert set(place.list(".ckptstore/00000002").files) == {"notes.txt"}

    def test_a_first_save_that_was_killed_is_found_too(self, place):
        place.create(f".ckptstore/00000001/{DEAD}", b"half")

        assert repair(place) == ()
        assert repair(place, older_than=EVERYTHING) == (
            f"removed the leftover .ckptstore/00000001/{DEAD}",
        )

        with pytest.raises(NotFoundError, match="nothing is there"):
            repair(place)

    def test_an_empty_folder_goes_without_a_word(self, tmp_path, save_of):
        place = connect(tmp_path)
        save_generation(place, save_of("a"))
        (tmp_path / ".ckptstore" / "00000002").mkdir()

        assert repair(place) == ()

        assert place.list(".ckptstore").folders == ("00000001",)

    def test_a_save_goes_on_while_its_leftovers_are_looked_for(self, place, save_of):
        save_generation(place, save_of("a"))
        mine = save_of("b", optimizer=True)

        def meanwhile(files: Any) -> None:
            mine.write(files)
            assert repair(place) == ()

        save_generation(place, replace(mine, write=meanwhile))

        assert content(place) == b"model.pt of b"


class TestHistory:
    def test_a_dead_writers_file_in_a_committed_step_goes_by_age(self, place, save_of):
        place.create("step-00000001/model.pt", b"half")
        save_step(place, save_of("a", step=1), overwrite=False)
        place.create("step-00000001/notes.txt", b"mine")

        assert repair(place) == ()
        assert repair(place, older_than=EVERYTHING) == (
            "removed the leftover step-00000001/model.pt",
        )

        assert content(place) == b"model.pt of a"
        assert place.read("step-00000001/notes.txt") == b"mine"

    def test_a_step_that_is_saved_again_meanwhile_stays_whole(self, place, save_of):
        save_step(place, save_of("a", step=1), overwrite=False)
        place.create("step-00000002/model.pt", b"half")
        found = find_leftovers(place, older_than=EVERYTHING)
        save_step(place, save_of("b", step=2), overwrite=False)

        remove_leftovers(place, found)

        assert content(place) == b"model.pt of b"
        assert place.entry("step-00000002/model.pt") is None

    def test_an_overwrite_goes_on_while_leftovers_are_looked_for(self, tmp_path, save_of):
        place = connect(tmp_path)
        save_step(place, save_of("a", step=1), overwrite=False)
        mine = save_of("b", step=1)

        def meanwhile(files: Any) -> None:
            mine.write(files)
            assert repair(place) == ()

        save_step(place, replace(mine, write=meanwhile), overwrite=True)

        assert content(place) == b"model.pt of b"

    def test_a_link_to_old_bytes_is_as_young_as_it_is(self, tmp_path, save_of):
        import os

        place = connect(tmp_path)
        save_step(place, save_of("a", step=1), overwrite=False)
        os.utime(tmp_path / "step-00000001" / "model.pt", (0, 0))

        place.copy("step-00000001/model.pt", f"step-00000002/{DEAD}")

        assert find_leftovers(place, older_than=DAY) == Leftovers()


class TestClocks:
    """Neither a wrong clock nor a long sleep makes anybody's files look old."""

    def test_a_wrong_clock_of_this_machine_makes_nothing_old(self, place, save_of, monkeypatch):
        save_step(place, save_of("a", step=1), overwrite=False)
        place.create(f"step-00000002/{DEAD}", b"of a writer at work")
        place.create(".tmp-0123456789abcdef", b"of a writer at work")
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + 3 * DAY)

        assert find_leftovers(place, older_than=DAY) == Leftovers()

    def test_what_a_storage_does_not_date_stays_and_is_named(self, tmp_path, save_of):
        class Undated(FaultyStorage):
            def entry(self, name: str) -> Any:
                found = super().entry(name)
                return found and replace(found, modified=0.0)

        real = connect(tmp_path)
        save_step(real, save_of("a", step=1), overwrite=False)
        real.create(".tmp-0123456789abcdef", b"?")

        said = repair(Undated(real, lambda operation, perform: perform()), older_than=EVERYTHING)

        assert said == (
            "left alone: .tmp-0123456789abcdef, for the storage does not say how old it is",
        )
        assert real.read(".tmp-0123456789abcdef") == b"?"

    def test_where_nothing_may_be_written_the_age_is_not_known(self, tmp_path, save_of):
        def refuse(operation: Operation, perform: Callable[[], Any]) -> Any:
            if operation.name == "create":
                raise StorageError("access denied")
            return perform()

        real = connect(tmp_path)
        save_step(real, save_of("a", step=1), overwrite=False)
        real.create(".tmp-0123456789abcdef", b"?")

        said = repair(FaultyStorage(real, refuse), dry_run=True)

        assert said == (
            "left alone: .tmp-0123456789abcdef, for its age cannot be told: access denied",
        )

    @pytest.fixture
    def clocks(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """Give clocks of attempts that go on by ``ahead[name]`` seconds."""
        ahead = {"monotonic": 0.0, "wall": 0.0, "boottime": 0.0}
        clocks = SimpleNamespace(
            ahead=ahead,
            CLOCK_BOOTTIME=7,
            monotonic=lambda: 1000.0 + ahead["monotonic"],
            time=lambda: 5000.0 + ahead["wall"],
            clock_gettime=lambda clock: {7: 1.0 + ahead["boottime"]}[clock],
        )
        monkeypatch.setattr(intact, "time", clocks)
        return clocks

    @pytest.mark.parametrize("clock", ["monotonic", "wall", "boottime"])
    def test_an_attempt_gives_up_after_twelve_hours_by_any_clock(
        self, tmp_path, save_of, clocks, clock
    ):
        place = connect(tmp_path)
        save_generation(place, save_of("a"))
        mine = save_of("b")

        def slowly(files: Any) -> None:
            mine.write(files)
            clocks.ahead[clock] += 12.1 * 3600

        with pytest.raises(StorageError, match="took 12 hours .* nothing was committed"):
            save_generation(place, replace(mine, write=slowly))

        assert content(place) == b"model.pt of a"
        assert place.list(".ckptstore").folders == ("00000001",)

    def test_a_clock_that_is_set_back_stops_nobody(self, tmp_path, save_of, clocks):
        mine = save_of("a")

        def meanwhile(files: Any) -> None:
            mine.write(files)
            clocks.ahead["wall"] -= 3 * DAY

        save_generation(connect(tmp_path), replace(mine, write=meanwhile))

        assert content(connect(tmp_path)) == b"model.pt of a"

    @pytest.mark.parametrize("cleaned", [True, False])
    def test_a_sleep_in_the_very_commit_leaves_a_whole_state(
        self, tmp_path, save_of, clocks, cleaned
    ):
        place = connect(tmp_path)
        save_generation(place, save_of("a"))

        def sleep(operation: Operation, perform: Callable[[], Any]) -> Any:
            if str(operation) == "create .ckptstore/00000002/manifest.json":
                clocks.ahead["boottime"] += 2 * DAY
                if cleaned:
                    repair(place, older_than=EVERYTHING)
            return perform()

        refused = pytest.raises(
            StorageError, match="was removed while this save .* nothing was committed"
        )
        with refused if cleaned else contextlib.nullcontext():
            save_generation(FaultyStorage(place, sleep), save_of("b"))

        assert content(place) == (b"model.pt of a" if cleaned else b"model.pt of b")
        assert newest_generation(place).manifest.generation == (1 if cleaned else 2)

    def test_a_sleep_in_the_very_overwrite_leaves_the_old_step(self, tmp_path, save_of, clocks):
        place = connect(tmp_path)
        save_step(place, save_of("a", step=1), overwrite=False)

        def sleep(operation: Operation, perform: Callable[[], Any]) -> Any:
            if operation.name == "swap" and not clocks.ahead["boottime"]:
                clocks.ahead["boottime"] += 2 * DAY
                repair(place, older_than=EVERYTHING)
            return perform()

        with pytest.raises(
            StorageError, match="was removed while this save .* nothing was committed"
        ):
            save_step(FaultyStorage(place, sleep), save_of("b", step=1), overwrite=True)

        assert content(place) == b"model.pt of a"
