"""A step is put back whole or not at all, leads nowhere else, and the best one comes along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ckptstore_transformers import resume, upload
from safetensors.torch import load_file

import ckptstore
from ckptstore.testing import Crash, Killed, Nothing, inject


def test_a_fetch_that_dies_at_any_moment_leaves_the_old_folder_or_none(folder, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    upload(folder, store)
    with inject(Nothing()) as seen:
        resume(store, out)
    size = len(list((out / "checkpoint-4").iterdir()))
    before = (out / "checkpoint-4").stat().st_ino
    shutil.rmtree(out)
    count = len(seen.operations)
    assert count > 10

    for at in range(1, count + 1):
        with pytest.raises(Killed), inject(Crash(at)):
            resume(store, out)
        assert not list(out.glob("*")), at
    resume(store, out)
    before = (out / "checkpoint-4").stat().st_ino
    for at in range(1, count + 1, 5):
        with pytest.raises(Killed), inject(Crash(at)):
            resume(store, out)
        assert (out / "checkpoint-4").stat().st_ino == before
        assert len(list((out / "checkpoint-4").iterdir())) == size


def test_what_a_killed_fetch_left_goes_with_the_next_and_a_half_folder_is_replaced(
    folder, tmp_path
):
    store, out = tmp_path / "store", tmp_path / "out"
    upload(folder, store)
    (out / ".ckptstore-checkpoint-4-x1y2/new").mkdir(parents=True)
    (out / "checkpoint-4").mkdir()
    (out / "checkpoint-4/model.safetensors").touch()

    resume(store, out)

    assert [path.name for path in out.iterdir()] == ["checkpoint-4"]
    assert (out / "checkpoint-4/trainer_state.json").exists()
    assert (out / "checkpoint-4/model.safetensors").stat().st_size


def test_nothing_saved_yet_is_none_and_a_step_that_is_not_there_an_error(folder, tmp_path):
    assert resume(tmp_path / "store", tmp_path / "out") is None

    upload(folder, tmp_path / "store")
    with pytest.raises(ckptstore.NotFoundError, match="no checkpoint at step 7 .* steps: 4"):
        resume(tmp_path / "store", tmp_path / "out", step=7)


def test_a_checkpoint_of_somebody_elses_is_refused(tmp_path):
    ckptstore.save(tmp_path / "store", model={"w": torch.ones(1)}, step=3, state={"rng": 1})

    with pytest.raises(
        ckptstore.UnsupportedError,
        match="is no checkpoint of the Trainer's: its states are 'rng'; load it with",
    ):
        resume(tmp_path / "store", tmp_path / "out")


def forged(location: Path, **changes: Any) -> None:
    trainer = {"version": 1, "weights": "model.safetensors", "metadata": {}, "files": {}}
    trainer["files"] = {"trainer_state.json": "{}"}
    with ckptstore.Store(location, keep=ckptstore.Keep()) as store:
        store.save(model={"w": torch.ones(1)}, step=3, state={"trainer": {**trainer, **changes}})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"files": {"trainer_state.json": "{}", "../x": ""}}, ckptstore.UnsafeError, r"'\.\.'"),
        (
            {"files": {"trainer_state.json": "{}", "/etc/x": ""}},
            ckptstore.CorruptionError,
            "/etc/x",
        ),
        ({"weights": "../w"}, ckptstore.UnsafeError, r"\.\./w"),
        ({"files": {"trainer_state.json": "{"}}, ckptstore.CorruptionError, "is malformed"),
        ({"files": 3}, ckptstore.CorruptionError, "the state 'trainer' in .* is malformed"),
        ({"names": ["a", "b"]}, ckptstore.CorruptionError, "has 1 weights, not 2"),
        ({"version": 2}, ckptstore.UnsupportedError, "is of version 2, .* knows 1; upgrade it"),
    ],
)
def test_a_forged_state_leads_nowhere(tmp_path, changes, error, message):
    forged(tmp_path / "store", **changes)

    with pytest.raises(error, match=message):
        resume(tmp_path / "store", tmp_path / "a/b/out")

    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]


@pytest.mark.parametrize("random", [3, {"numpy": ("MT19937", torch.zeros(3), 0)}, {}])
def test_random_states_that_are_none_are_damage(folder, tmp_path, random):
    from ckptstore_transformers.folder import contents_of

    contents = contents_of(folder)
    contents["state"]["rng"] = {"rng_state.pth": random}
    with ckptstore.Store(tmp_path / "store", keep=ckptstore.Keep()) as store:
        store.save(**contents)

    with pytest.raises(ckptstore.CorruptionError, match="holds no random states of the Trainer"):
        resume(tmp_path / "store", tmp_path / "out")


# -- going back, and the best -------------------------------------------------------------


@pytest.fixture
def history(whole: Path, tmp_path: Path) -> Path:
    """Give a store with three steps, of which the first is the best that the last knows."""
    for step in (4, 8, 12):
        folder = Path(
            shutil.copytree(whole / f"checkpoint-{step}", tmp_path / "copies" / str(step))
        )
        state = json.loads((folder / "trainer_state.json").read_text())
        state |= {"best_global_step": 4, "best_model_checkpoint": "/elsewhere/checkpoint-4"}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        upload(folder, tmp_path / "store")
    return tmp_path / "store"


def test_the_best_comes_along_and_is_found_where_it_is_now(history, tmp_path):
    path = resume(history, tmp_path / "out")

    state = json.loads((Path(path) / "trainer_state.json").read_text())
    assert path == str(tmp_path / "out/checkpoint-12")
    assert state["best_model_checkpoint"] == str(tmp_path / "out/checkpoint-4")
    assert load_file(tmp_path / "out/checkpoint-4/model.safetensors")


def test_a_step_before_the_newest_can_be_gone_back_to(history, tmp_path):
    resume(history, tmp_path / "out", step=8)
    assert ckptstore.Store(history).steps() == (4, 8, 12)

    resume(history, tmp_path / "out", step=8, rewind=True)
    assert ckptstore.Store(history).steps() == (4, 8)


def test_where_the_newest_is_damaged_the_one_before_can_be_taken(history, tmp_path):
    file = history / "step-00000012/model.pt"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ckptstore.CorruptionError, match="model.pt"):
        resume(history, tmp_path / "out", rewind=True)
    assert ckptstore.Store(history).steps() == (4, 8, 12)

    found = resume(history, tmp_path / "out", fallback=True, rewind=True)

    assert found == str(tmp_path / "out/checkpoint-8")
    assert ckptstore.Store(history).steps() == (4, 8)
