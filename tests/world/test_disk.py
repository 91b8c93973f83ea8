"""G2, and errors that say what to do: disks that are full, limits, permissions, things in the way.

Whatever the disk refuses, the old checkpoint stays, nothing of the new one is left, and what was
refused works as soon as the fault is gone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import ckptstore

WRITING = [
    "full",
    "nearly full",
    "read-only disk",
    "quota",
    "file size",
    "open files",
    "read-only folder",
]
ALL = [*WRITING, "no permission"]
LARGE = 100_000


def files(location: str) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), location)
        for folder, _, names in os.walk(location)
        for name in names
    }


def is_one_line(result, code, says):
    """Whether a command ended with an exit code and one line of error, and nothing else."""
    lines = result.stderr.splitlines()
    assert "Traceback" not in result.stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], result.stderr
    assert result.exit_code == code, result.stderr
    assert says in lines[-1], lines[-1]
    return True


@pytest.mark.parametrize("name", ALL)
def test_a_save_that_the_disk_refuses_is_told_and_leaves_the_old_checkpoint(break_disk, name):
    broken = break_disk(name)
    before = files(broken.place.url)

    with broken.fault(), pytest.raises(ckptstore.StorageError, match=broken.says) as caught:
        broken.place.save(2, LARGE)

    assert caught.value.committed is False
    assert "\n" not in str(caught.value)
    assert broken.place.holds(1)
    assert files(broken.place.url) == before
    broken.place.save(3, LARGE)
    assert broken.place.holds(3)


@pytest.mark.parametrize("name", WRITING)
def test_a_step_that_the_disk_refuses_is_told_and_leaves_the_older_steps(break_disk, name):
    broken = break_disk(name)
    store = ckptstore.Store(f"{broken.place.url}-history", keep=ckptstore.Keep(last=1))
    store.save(model={"w": torch.ones(10)}, step=1)

    with broken.fault(), pytest.raises(ckptstore.StorageError, match=broken.says):
        store.save(model={"w": torch.ones(LARGE)}, step=2)

    assert store.steps() == (1,)
    assert store.open().verify().sound
    assert not [path for path in files(store.location) if not path.startswith("step-00000001")]


@pytest.mark.parametrize("name", ["full", "nearly full", "quota", "file size"])
def test_room_can_be_made_by_removing_steps(break_disk, name):
    broken = break_disk(name)
    store = ckptstore.Store(f"{broken.place.url}-history", keep=ckptstore.Keep())
    for step in (1, 2, 3, 4):
        store.save(model={"w": torch.ones(10)}, step=step)

    with broken.fault():
        store.remove(1)
        assert [*store.retain(ckptstore.Keep(last=1)).gone] == [2, 3]

    assert store.steps() == (4,)
    assert {path.partition("/")[0] for path in files(store.location)} == {"step-00000004"}


@pytest.mark.parametrize("name", WRITING)
def test_saves_in_the_background_fail_and_training_goes_on(break_disk, name, caplog):
    broken = break_disk(name)
    store = broken.place.store()
    state = {"w": torch.zeros(LARGE)}
    store.prepare(model=state)

    with broken.fault():
        for step in (2, 3):
            state["w"].fill_(step)
            store.save_async(model=state, step=step)
        store._background._join()
    state["w"].fill_(4)
    store.save_async(model=state, step=4).result()

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2
    with pytest.raises(ckptstore.StorageError, match=broken.says):
        store.close()
    assert broken.place.holds(4)


@pytest.mark.parametrize("command", ["sync", "convert"])
@pytest.mark.parametrize("name", WRITING)
def test_what_a_command_cannot_write_is_one_line(break_disk, run, tmp_path, name, command):
    broken = break_disk(name)
    source = tmp_path / "source"
    ckptstore.save(source, model={"w": torch.ones(LARGE)}, step=9)
    more = ["--overwrite"] if command == "convert" else []
    run("ckptstore", "ls", source)  # What it imports, it imports before the harm.
    run("ckptstore", command, "--help")

    with broken.fault():
        result = run("ckptstore", command, source, broken.place.url, *more)

    assert is_one_line(result, 1, "cannot")
    assert broken.place.holds(1)


@pytest.mark.parametrize("name", ["read-only disk", "read-only folder"])
def test_what_cannot_be_removed_stays_whole(break_disk, run, name):
    broken = break_disk(name)

    with broken.fault():
        result = run("ckptstore", "rm", "--yes", broken.place.url)
        readable = broken.place.holds(1)
        mended = run("ckptstore", "doctor", "--fix", broken.place.url)

    assert is_one_line(result, 1, "cannot delete")
    assert readable
    assert (mended.exit_code, mended.stderr) == (1, "")
    assert "cannot write" in mended.stdout
    assert "nothing can be saved there; permit writing" in mended.stdout
    assert broken.place.holds(1)


@pytest.mark.parametrize("command", ["inspect", "verify", "ls", "doctor"])
@pytest.mark.parametrize("name", ["no permission", "open files"])
def test_what_cannot_be_read_is_one_line(break_disk, run, name, command):
    broken = break_disk(name)
    run("ckptstore", command, broken.place.url)

    with broken.fault():
        result = run("ckptstore", command, broken.place.url)
        with pytest.raises(ckptstore.StorageError, match=broken.says):
            broken.place.open()

    assert is_one_line(result, 1, "cannot list")


@pytest.mark.parametrize("name", ["full", "quota", "read-only folder"])
def test_a_training_that_cannot_save_ends_with_one_line_and_resumes(
    break_disk, train, name, tmp_path
):
    broken = break_disk(name)
    base = Path(broken.place.url).parent
    trained = train(base / "models", 1)

    with broken.fault():
        stopped = train(base / "models", 3)
    resumed = train(base / "models", 3)

    assert trained.exit_code == 0, trained.stderr
    assert is_one_line(stopped, 1, "cannot")
    assert "going on at step 1" in resumed.stdout
    assert ckptstore.open(base / "models" / "dante").step == 3


class TestInTheWay:
    """Something else has the name that is needed."""

    def test_a_file_where_the_location_should_be_is_told(self, run, place, tmp_path):
        file = tmp_path / "file"
        file.write_text("mine")

        for act in (
            lambda: ckptstore.save(file, model={"w": torch.ones(1)}),
            lambda: ckptstore.save(file / "deeper" / "dante", model={"w": torch.ones(1)}),
            lambda: ckptstore.sync(place.url, file),
        ):
            with pytest.raises(ckptstore.StorageError, match="is a file, not a folder; choose"):
                act()

        assert is_one_line(run("ckptstore", "sync", place.url, file), 1, "is a file, not a folder")
        assert is_one_line(run("ckptstore", "ls", file / "x"), 1, "is a file, not a folder")
        assert file.read_text() == "mine"

    @pytest.mark.parametrize("name", [".ckptstore", ".ckptstore/00000002"])
    def test_a_file_where_a_generation_should_be_is_told(self, place, tmp_path, name):
        copy = ckptstore.sync(place.url, tmp_path / "copy").destination
        in_the_way = Path(copy, name)
        if in_the_way.exists():
            for path in sorted(in_the_way.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            in_the_way.rmdir()
        in_the_way.write_text("mine")

        with pytest.raises(ckptstore.StorageError, match="is a file, not a folder; choose"):
            ckptstore.save(copy, model={"w": torch.ones(1)}, step=2)

        assert ckptstore.open(copy).step == 1
        assert in_the_way.read_text() == "mine"

    @pytest.mark.parametrize("name", ["model.pt", "manifest.json"])
    def test_a_folder_in_the_view_is_left_alone_and_the_save_counts(self, place, caplog, name):
        Path(place.url, name).unlink()
        Path(place.url, name, "mine").mkdir(parents=True)

        place.save(2)

        assert place.open().step == 2
        assert "is committed, but its view" in caplog.text
        assert "it is a folder, not a file; move it away" in caplog.text
        assert Path(place.url, name, "mine").is_dir()

    def test_a_folder_where_a_manifest_should_be_is_not_taken_for_a_rival(self, place):
        in_the_way = Path(place.url, ".ckptstore", "00000002", "manifest.json")
        in_the_way.mkdir(parents=True)

        with pytest.raises(ckptstore.StorageError, match="it is a folder, not a file; move it"):
            place.save(2)

        assert place.holds(1)

    @pytest.mark.parametrize("name", ["x" * 300, "/".join("x" * 2500)])
    def test_a_name_that_is_too_long_is_told(self, place, tmp_path, run, name):
        for act in (
            lambda: ckptstore.open(tmp_path / name),
            lambda: ckptstore.save(tmp_path / name, model={"w": torch.ones(1)}),
            lambda: ckptstore.sync(place.url, tmp_path / name),
        ):
            with pytest.raises(ckptstore.StorageError, match="name is too long; choose a shorter"):
                act()

        assert is_one_line(run("ckptstore", "inspect", tmp_path / name), 1, "name is too long")
