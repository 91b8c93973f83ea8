"""G2: somebody removes folders, or takes the disk away, while a checkpoint is saved or read.

What is gone is gone; but a save that returns is there, and what fails says why.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.testing import Operation, inject

KEEP = ckptstore.Keep(last=3)


class Meanwhile:
    """Does something before the operation of a number; pieces of a file count once."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.at = at
        self.act = act
        self.seen = 0
        self.done = False
        self.last: tuple[str, str] | None = None

    def __call__(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        this = (operation.name, operation.path)
        self.seen += this != self.last
        self.last = this
        if self.seen == self.at and not self.done:
            self.done = True
            self.act()
        return perform()


def save(location: Path, step: int, keep: ckptstore.Keep | None) -> None:
    optimizer = {"state": {0: {"m": torch.full((5,), float(step))}}, "param_groups": []}
    with ckptstore.Store(location, keep=keep, durable=False) as store:
        store.save(model={"w": torch.full((9,), float(step))}, optimizer=optimizer, step=step)


def shows(location: Path) -> int | str | None:
    """Return the step that is there, whole; None where nothing is, a word where it is known."""
    try:
        checkpoint = ckptstore.open(location)
        step = checkpoint.step
        assert (checkpoint.load_model()["w"] == step).all()
        assert (checkpoint.load_optimizer()["state"][0]["m"] == step).all()
    except ckptstore.NotFoundError:
        return None
    except ckptstore.CorruptionError:
        return "damaged"
    return step


def told(act: Callable[[], object]) -> str:
    """Return how a save ended: saved, refused with this reason, or else the error."""
    try:
        act()
    except ckptstore.StorageError as error:
        known = error.committed is False and "was removed while this save was" in str(error)
        return "refused" if known else str(error)
    return "saved"


@pytest.mark.parametrize(
    ("keep", "folder"),
    [
        (None, ""),
        (None, ".ckptstore"),
        (None, ".ckptstore/00000002"),
        (KEEP, ""),
        (KEEP, "step-00000002"),
    ],
    ids=["location", "generations", "new generation", "history", "new step"],
)
def test_a_folder_that_goes_in_a_save_never_leaves_half_a_checkpoint(tmp_path, keep, folder):
    outcomes = set()
    for at in range(1, 100):
        location = tmp_path / f"{at}"
        save(location, 1, keep)
        gone = Meanwhile(at, lambda at=at: shutil.rmtree(tmp_path / f"{at}" / folder, True))
        with inject(gone):
            outcome = told(lambda location=location: save(location, 2, keep))
        if not gone.done:
            break
        outcomes.add((outcome, shows(location)))

    old = 1 if folder else None
    assert {("saved", 2), ("refused", old)} <= outcomes
    # What was removed after the commit may show as damage, for the view was being refreshed.
    assert outcomes <= {("saved", 2), ("refused", old), ("saved", old), ("saved", "damaged")}
    assert at > 12


@pytest.mark.parametrize("keep", [None, KEEP], ids=["single", "history"])
def test_what_goes_between_opening_and_loading_is_told(tmp_path, keep):
    save(tmp_path / "dante", 1, keep)
    checkpoint = ckptstore.open(tmp_path / "dante")
    shutil.rmtree(tmp_path / "dante")

    for read in (checkpoint.load_model, checkpoint.load_optimizer, checkpoint.verify):
        with pytest.raises(ckptstore.SupersededError, match="was replaced or removed since"):
            read()


def test_a_disk_that_is_replaced_by_an_empty_one_is_told(tmp_path):
    save(tmp_path / "disk" / "dante", 1, None)
    checkpoint = ckptstore.open(tmp_path / "disk" / "dante")
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    (tmp_path / "disk").mkdir()

    with pytest.raises(ckptstore.SupersededError, match="open the location again"):
        checkpoint.load_model()
    with pytest.raises(ckptstore.NotFoundError, match="nothing is there"):
        ckptstore.open(tmp_path / "disk" / "dante")

    assert shows(tmp_path / "unplugged" / "dante") == 1


def test_a_disk_that_is_unplugged_in_a_save_keeps_the_old_checkpoint(tmp_path):
    """What is written after that lands on the disk below, where half of it is not taken for all."""
    for at in range(1, 100):
        base = tmp_path / f"{at}"
        save(base / "disk" / "dante", 1, None)
        unplugged = Meanwhile(at, lambda base=base: (base / "disk").rename(base / "unplugged"))
        try:
            with inject(unplugged):
                save(base / "disk" / "dante", 2, None)
        except (ckptstore.StorageError, ckptstore.NotFoundError, ckptstore.SupersededError):
            pass
        if not unplugged.done:
            break
        assert shows(base / "unplugged" / "dante") in (1, 2)
        assert shows(base / "disk" / "dante") in (2, None, "damaged")
    assert at > 12


def test_a_sync_whose_source_goes_commits_nothing(tmp_path):
    for at in range(1, 60, 2):
        base = tmp_path / f"{at}"
        save(base / "source", 2, None)
        save(base / "copy", 1, None)
        gone = Meanwhile(at, lambda base=base: shutil.rmtree(base / "source", True))
        try:
            with inject(gone):
                ckptstore.sync(base / "source", base / "copy")
        except (ckptstore.NotFoundError, ckptstore.SupersededError):
            pass
        if not gone.done:
            break
        assert shows(base / "copy") in (1, 2)
    assert at > 12
