"""Saves in the background: training goes on, nothing goes too early, and no failure is lost."""

from __future__ import annotations

import logging
import threading

import pytest
import tiny_training as tiny
import torch
from ckptstore_lightning import StoreCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

import ckptstore
from ckptstore import StorageError
from ckptstore.testing import Refuse, asked, inject


def weights(value: float) -> dict[str, object]:
    return {"global_step": int(value), "state_dict": {"w": torch.full((3,), value)}}


@pytest.fixture
def io():
    plugin = StoreCheckpointIO(asynchronous=True)
    yield plugin
    plugin.teardown()


class Held:
    """A fault that holds every manifest back until it is let go."""

    def __init__(self):
        self.free = threading.Event()

    def __call__(self, operation, perform):
        if operation.name == "create" and operation.path.endswith("manifest.json"):
            assert self.free.wait(60)
        return perform()


def test_training_goes_on_and_the_old_goes_when_the_new_is_committed(io, folder, names):
    io.save_checkpoint(weights(1), f"{folder}/1.ckpt")
    io.load_checkpoint(f"{folder}/1.ckpt")  # Waits.
    held = Held()
    model = weights(2)

    with inject(held):
        io.save_checkpoint(model, f"{folder}/2.ckpt")
        io.remove_checkpoint(f"{folder}/1.ckpt")
        model["state_dict"]["w"].zero_()
        there = ckptstore.open(f"{folder}/1.ckpt").step
        held.free.set()
        io.teardown()

    assert there == 1
    assert names(folder) == ["2.ckpt"]
    assert ckptstore.open(f"{folder}/2.ckpt").load_model()["w"].tolist() == [2, 2, 2]


def test_a_save_that_fails_is_logged_and_raised_and_what_it_was_to_replace_stays(
    io, folder, names, caplog
):
    io.save_checkpoint(weights(1), f"{folder}/1.ckpt")
    io.load_checkpoint(f"{folder}/1.ckpt")

    with inject(Refuse(asked("create", "manifest.json"), StorageError("no room left"), times=1)):
        io.save_checkpoint(weights(2), f"{folder}/2.ckpt")
        io.remove_checkpoint(f"{folder}/1.ckpt")
        with pytest.raises(StorageError, match="no room left"):
            io.teardown()

    assert ckptstore.open(f"{folder}/1.ckpt").step == 1
    assert "1.ckpt stays: the save that was to replace it failed" in caplog.text
    assert "an earlier checkpoint was not saved: no room left" in caplog.text
    io.teardown()  # A failure is raised once.

    io.save_checkpoint(weights(3), f"{folder}/3.ckpt")
    io.teardown()
    assert names(folder) == ["3.ckpt"]


def test_a_failure_never_stops_training_and_is_raised_at_its_end(folder, names, caplog):
    manifests = iter(range(10))

    def the_second(operation):
        return asked("create", "manifest.json")(operation) and next(manifests) == 1

    failing = Refuse(the_second, StorageError("a bad moment"), times=1)
    keep = ModelCheckpoint(folder, filename="{epoch}")
    runner = tiny.trainer(StoreCheckpointIO(asynchronous=True), keep, epochs=3)

    with inject(failing), pytest.raises(StorageError, match="a bad moment"):
        tiny.fit(runner, tiny.module())

    assert runner.global_step == 3 * tiny.STEPS
    assert "a save in the background failed: a bad moment" in caplog.text
    assert names(folder) == ["epoch=2.ckpt"]


def test_a_save_that_fails_in_the_foreground_stops_training(tmp_path):
    runner = tiny.trainer(StoreCheckpointIO(), ModelCheckpoint(tmp_path), epochs=1)
    failing = Refuse(asked("create", "manifest.json"), StorageError("no room left"))

    with inject(failing), pytest.raises(StorageError, match="no room left"):
        tiny.fit(runner, tiny.module())


def test_what_cannot_be_saved_is_said_at_once(io, tmp_path):
    with pytest.raises(ckptstore.UnsafeError, match="object"):
        io.save_checkpoint({"state_dict": {}, "x": object()}, tmp_path / "a.ckpt")


def test_a_removal_that_fails_is_a_warning(tmp_path, caplog):
    io = StoreCheckpointIO()
    io.save_checkpoint(weights(1), tmp_path / "a.ckpt")

    with inject(Refuse(asked("delete", ""), StorageError("not allowed"))):
        io.remove_checkpoint(tmp_path / "a.ckpt")

    assert "a.ckpt could not be removed: not allowed" in caplog.text


def test_what_is_not_there_is_removed_without_a_word(io, folder, caplog):
    caplog.set_level(logging.WARNING)

    io.remove_checkpoint(f"{folder}/a.ckpt")

    assert caplog.text == ""


def test_a_folder_of_another_is_never_removed(io, tmp_path, caplog):
    (tmp_path / "a.ckpt").mkdir()
    (tmp_path / "a.ckpt" / "mp_rank_00_model_states.pt").write_bytes(b"x")

    io.remove_checkpoint(tmp_path / "a.ckpt")

    assert "a.ckpt stays: ckptstore did not write it" in caplog.text
    assert [path.name for path in (tmp_path / "a.ckpt").iterdir()] == ["mp_rank_00_model_states.pt"]


def test_files_of_others_in_a_checkpoints_folder_stay(io, tmp_path):
    io.save_checkpoint(weights(1), tmp_path / "a.ckpt")
    io.teardown()
    (tmp_path / "a.ckpt" / "notes.txt").write_text("mine")

    io.remove_checkpoint(tmp_path / "a.ckpt")

    assert [path.name for path in (tmp_path / "a.ckpt").iterdir()] == ["notes.txt"]
