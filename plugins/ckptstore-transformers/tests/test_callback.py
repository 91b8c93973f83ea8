"""What the callback does when the Trainer calls it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ckptstore_transformers import StoreCallback
from transformers import TrainerControl, TrainerState, TrainingArguments

import ckptstore
from ckptstore import Keep
from ckptstore.testing import Refuse, asked, inject

STEPS = (4, 8, 12, 16)


class Run:
    """A Trainer that has written its folders, and calls the callback."""

    def __init__(self, whole: Path, out: Path, callback: StoreCallback, **arguments: Any) -> None:
        self.out = out
        shutil.copytree(whole, out)
        self.callback = callback
        self.args = TrainingArguments(str(out), use_cpu=True, report_to=[], **arguments)
        self.state = TrainerState()

    def begin(self, step: int = 0) -> Run:
        self.state.global_step = step
        self.callback.on_train_begin(self.args, self.state, TrainerControl())
        return self

    def save(self, *steps: int) -> Run:
        for step in steps:
            self.state.global_step = step
            self.callback.on_save(self.args, self.state, TrainerControl())
        return self

    def end(self) -> None:
        self.callback.on_train_end(self.args, self.state, TrainerControl())

    @property
    def local(self) -> list[str]:
        return sorted(path.name for path in self.out.glob("checkpoint-*"))


@pytest.fixture
def begun(whole: Path, tmp_path: Path):
    def run(*, arguments: dict[str, Any] | None = None, **options: Any) -> Run:
        callback = StoreCallback(tmp_path / "store", **options)
        return Run(whole, tmp_path / "out", callback, **(arguments or {}))

    return run


def steps(tmp_path: Path) -> tuple[int, ...]:
    return ckptstore.Store(tmp_path / "store").steps()


def test_every_step_stays_unless_something_is_said(begun, tmp_path):
    begun().begin().save(*STEPS).end()

    assert steps(tmp_path) == STEPS


def test_the_trainers_limit_is_kept_in_the_store_too(begun, tmp_path):
    begun(arguments={"save_total_limit": 2}).begin().save(*STEPS).end()

    assert steps(tmp_path) == (12, 16)


def test_a_policy_of_its_own_comes_before_the_trainers_limit(begun, tmp_path):
    keep = Keep(last=1, every=8)

    begun(keep=keep, arguments={"save_total_limit": 2}).begin().save(*STEPS).end()

    assert steps(tmp_path) == (8, 16)


def test_a_best_of_its_own_is_found_by_the_metric(begun, tmp_path):
    begun(keep=Keep(last=1, best="eval_loss")).begin().save(*STEPS).end()

    assert steps(tmp_path) == (4, 16)


def test_a_run_from_the_start_is_kept_out_of_another_runs_history(begun, tmp_path):
    one = begun()
    one.begin().save(4, 8).end()

    with pytest.raises(
        ckptstore.ConflictError,
        match=r"holds steps up to 8, and this training begins at 4; go on from them with "
        r"resume\(\)",
    ):
        one.begin(4)

    one.begin(8).save(8, 12).end()
    assert steps(tmp_path) == (4, 8, 12)


def test_local_folders_go_once_they_are_committed(begun, tmp_path):
    one = begun(keep_local=False).begin()

    assert one.save(4).local == ["checkpoint-12", "checkpoint-16", "checkpoint-8"]
    with (
        pytest.raises(ckptstore.StorageError),
        inject(Refuse(asked("create", "manifest.json"), "denied")),
    ):
        one.begin(4).save(8)
    assert "checkpoint-8" in one.local


def test_the_best_local_folder_stays_until_the_trainer_has_loaded_it(begun):
    one = begun(
        keep_local=False,
        arguments={
            "load_best_model_at_end": True,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_steps": 4,
        },
    )
    one.state.best_global_step = 4

    one.begin().save(*STEPS)
    assert one.local == ["checkpoint-4"]
    one.end()
    assert one.local == []


def test_beside_the_training_a_failure_stops_nothing_and_is_raised_at_the_end(
    begun, tmp_path, caplog
):
    with inject(Refuse(asked("create", "step-00000004/manifest.json"), "denied", times=1)):
        one = begun(asynchronous=True, keep_local=False).begin().save(4, 8)
        with pytest.raises(ckptstore.StorageError, match="access denied"):
            one.end()

    assert steps(tmp_path) == (8,)
    assert "access denied" in caplog.text
    assert "checkpoint-4" in one.local


def test_a_folder_that_is_not_there_is_said(begun):
    with pytest.raises(ckptstore.NotFoundError, match="no .*checkpoint-5, though the Trainer says"):
        begun().begin().save(5)


def test_only_the_main_process_saves(begun, tmp_path):
    one = begun()
    one.state.is_world_process_zero = False

    one.begin().save(4).end()

    assert steps(tmp_path) == ()
