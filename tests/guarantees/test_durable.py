"""G3: when a save returns, power may fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.testing import PowerLoss, Remains

MODEL = {"w": torch.arange(1000.0)}
OTHER = {"w": torch.full((1000,), 7.0)}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def fsyncs(power: PowerLoss) -> list[str]:
    return [call for call in power.calls if call.startswith("fsync")]


@pytest.mark.parametrize("keep", [None, ckptstore.Keep()], ids=["single", "history"])
def test_every_file_is_on_disk_before_the_manifest_has_its_name(disk, tmp_path, keep):
    store = ckptstore.Store(disk / "dante", keep=keep)
    with PowerLoss(disk) as power:
        store.save(
            model=MODEL, optimizer={"state": {}, "param_groups": []}, config={"n": 1}, step=5
        )

    folder = "dante/step-00000005" if keep else "dante/.ckptstore/00000001"
    committing = power.calls.index(f"link {folder}/manifest.json")
    before, after = power.left(committing), power.left(len(power.calls))
    before.write_to(tmp_path / "before")
    files = {p.name: p.read_bytes() for p in (tmp_path / "before" / folder).iterdir()}
    committed = {
        path.name: path.read_bytes()
        for path in (disk / folder).iterdir()
        if path.name != "manifest.json"
    }
    assert len(committed) == 4
    assert committed.items() <= files.items()
    assert "manifest.json" not in files
    assert f"{folder}/manifest.json" in dict(after.names)


@pytest.mark.parametrize("which", ["synced", "names", "zeros", *range(5)])
@pytest.mark.parametrize("keep", [None, ckptstore.Keep()], ids=["single", "history"])
def test_a_save_that_returned_survives_a_loss_of_power(disk, tmp_path, keep, which):
    with PowerLoss(disk) as power:
        ckptstore.Store(disk / "new" / "dante", keep=keep).save(model=MODEL, config={}, step=5)

    power.left(len(power.calls), which).write_to(tmp_path / "left")

    checkpoint = ckptstore.open(tmp_path / "left" / "new" / "dante")
    assert checkpoint.verify().sound
    assert torch.equal(checkpoint.load_model()["w"], MODEL["w"])
    assert checkpoint.edited == ()


def test_not_durable_means_no_fsync_at_all(disk):
    with PowerLoss(disk) as power:
        for number in range(3):
            ckptstore.save(disk / "dante", model=MODEL, config={"n": number}, durable=False)
            store = ckptstore.Store(disk / "steps", keep=ckptstore.Keep(last=1), durable=False)
            store.save(model=MODEL, step=number)

    assert fsyncs(power) == []


def test_a_step_saved_again_is_made_durable_though_nothing_is_written(disk, tmp_path):
    keep = ckptstore.Keep()
    with PowerLoss(disk) as power:
        ckptstore.Store(disk / "dante", keep=keep, durable=False).save(model=MODEL, step=5)
        written = len(power.calls)
        ckptstore.Store(disk / "dante", keep=keep).save(model=MODEL, step=5)

    assert power.left(written).names == ()
    power.left(len(power.calls)).write_to(tmp_path / "left")
    checkpoint = ckptstore.open(tmp_path / "left" / "dante")
    assert torch.equal(checkpoint.load_model()["w"], MODEL["w"])


def test_what_was_not_durable_is_never_taken_for_sound_when_it_is_not(disk, tmp_path):
    ckptstore.save(disk / "dante", model=MODEL, config={"n": 1}, step=1)
    with PowerLoss(disk) as power:
        ckptstore.save(disk / "dante", model=OTHER, config={"n": 2}, step=2, durable=False)

    told = {_held(remains, tmp_path / str(n)) for n, remains in enumerate(_disks(power))}

    assert told == {"old", "new", "an error"}


def _disks(power: PowerLoss) -> Iterator[Remains]:
    kinds = ("synced", "names", "zeros", "all", *range(4))
    yield from {power.left(m, k) for m in range(0, len(power.calls) + 1, 3) for k in kinds}


def _held(remains: Remains, folder: Path) -> str:
    """Say what a folder holds: it is either whole, or an error at the latest when it is read."""
    remains.write_to(folder)
    try:
        checkpoint = ckptstore.open(folder / "dante")
        weights = checkpoint.load_model()["w"]
    except ckptstore.CkptstoreError:
        return "an error"
    assert checkpoint.config in ({"n": 1}, {"n": 2})
    assert torch.equal(weights, MODEL["w"] if checkpoint.config == {"n": 1} else OTHER["w"])
    return "old" if checkpoint.config == {"n": 1} else "new"
