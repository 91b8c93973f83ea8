"""Histories, retention, and saves in the background."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

import ckptstore


def state(value: float, size: int = 8) -> dict[str, torch.Tensor]:
    return {"w": torch.full((size,), value)}


@pytest.fixture
def history(location: Any) -> Any:
    url, options = location
    with ckptstore.Store(url, keep=ckptstore.Keep(), storage_options=options) as store:
        yield store


class TestHistory:
    def test_steps_are_kept_and_opened_by_number(self, history):
        for step in (10, 20, 30):
            history.save(model=state(step), step=step)

        assert history.steps() == (10, 20, 30)
        assert history.open().step == 30
        assert history.open(20).load_model()["w"][0] == 20
        with pytest.raises(ckptstore.NotFoundError, match="no checkpoint at step 15 .* 10, 20, 30"):
            history.open(15)

    def test_a_step_is_required(self, history):
        with pytest.raises(ckptstore.UnsupportedError, match="pass step="):
            history.save(model=state(1))

    def test_the_same_step_again(self, history):
        history.save(model=state(1), step=1)

        history.save(model=state(1), step=1)
        with pytest.raises(ckptstore.ConflictError, match="with other content"):
            history.save(model=state(2), step=1)

        assert history.open().load_model()["w"][0] == 1

    def test_rewind_removes_the_later_steps_and_says_which(self, history):
        for step in (10, 20, 30):
            history.save(model=state(step), step=step)

        assert history.rewind(10) == (20, 30)

        assert history.steps() == (10,)
        with pytest.raises(ckptstore.NotFoundError, match="no checkpoint at step 20"):
            history.rewind(20)

    def test_remove_a_step(self, history):
        history.save(model=state(1), step=1)
        history.save(model=state(2), step=2)

        assert history.remove(2, dry_run=True) == ("step-00000002",)
        assert history.remove(2) == ("step-00000002",)

        assert history.steps() == (1,)


LOSSES = {100: 3.0, 200: 1.0, 300: 2.0, 400: 2.5, 500: 2.6}


class TestKeep:
    """A step stays if any part of the policy wants it; the newest always does."""

    def run(self, tmp_path: Any, keep: ckptstore.Keep, losses: dict[int, float]) -> tuple[int, ...]:
        with ckptstore.Store(tmp_path, keep=keep) as store:
            for step, loss in losses.items():
                store.save(model=state(step), step=step, metrics={"val_loss": loss})
            return store.steps()

    def test_nothing_said_keeps_all(self, tmp_path):
        assert self.run(tmp_path, ckptstore.Keep(), LOSSES) == (100, 200, 300, 400, 500)

    def test_last(self, tmp_path):
        assert self.run(tmp_path, ckptstore.Keep(last=2), LOSSES) == (400, 500)

    def test_every(self, tmp_path):
        assert self.run(tmp_path, ckptstore.Keep(every=200), LOSSES) == (200, 400, 500)

    def test_best_and_last(self, tmp_path):
        keep = ckptstore.Keep(last=1, best="val_loss")
        assert self.run(tmp_path, keep, LOSSES) == (200, 500)

    def test_best_by_the_greatest(self, tmp_path):
        keep = ckptstore.Keep(best="val_loss", mode="max")
        assert self.run(tmp_path, keep, LOSSES) == (100, 500)

    def test_newer_than(self, tmp_path):
        assert self.run(tmp_path, ckptstore.Keep(newer_than=3600), LOSSES) == tuple(LOSSES)

    def test_a_policy_that_makes_no_sense_is_refused(self):
        with pytest.raises(ckptstore.UnsupportedError, match=r"Keep\(last=0\)"):
            ckptstore.Keep(last=0)


class TestInTheBackground:
    def test_the_state_is_the_one_at_the_call(self, location):
        url, options = location
        weights = state(1.0, size=100_000)
        with ckptstore.Store(url, storage_options=options) as store:
            future = store.save_async(model=weights, step=1)
            weights["w"].fill_(2.0)

            checkpoint = future.result()

        loaded = checkpoint.load_model()["w"]
        assert torch.equal(loaded, torch.full((100_000,), 1.0))

    def test_many_in_a_row_are_each_whole(self, tmp_path):
        weights = state(0.0, size=50_000)
        with ckptstore.Store(tmp_path, keep=ckptstore.Keep()) as store:
            store.prepare(model=weights)
            for step in range(1, 6):
                weights["w"].fill_(step)
                store.save_async(model=weights, step=step)

        for step in range(1, 6):
            loaded = store.open(step).load_model()["w"]
            assert torch.equal(loaded, torch.full((50_000,), float(step)))

    def test_a_failure_is_raised_by_the_future_and_not_again(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=ckptstore.Keep())
        store.save(model=state(1), step=1)

        future = store.save_async(model=state(2), step=1)

        with pytest.raises(ckptstore.ConflictError, match="step 1"):
            future.result()
        store.close()

    def test_a_failure_that_nobody_asked_for_is_raised_by_close_and_stops_no_save(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=ckptstore.Keep())
        store.save(model=state(1), step=1)

        store.save_async(model=state(2), step=1)
        store.save_async(model=state(3), step=3)

        with pytest.raises(ckptstore.ConflictError, match="step 1"):
            store.close()
        assert store.steps() == (1, 3)

    def test_ties_and_views_survive_the_copy(self, tmp_path):
        shared = torch.arange(100.0)
        model = {"a": shared, "b": shared[10:20], "c": shared.view(10, 10).t()}
        with ckptstore.Store(tmp_path) as store:
            loaded = store.save_async(model=model).result().load_model()

        assert all(torch.equal(loaded[name], model[name]) for name in model)

    def test_a_save_under_way_at_the_end_of_the_process_is_finished(self, tmp_path):
        script = (
            "import ckptstore, torch, sys\n"
            "store = ckptstore.Store(sys.argv[1])\n"
            "store.save_async(model={'w': torch.zeros(3_000_000)}, step=7)\n"
        )

        subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=True)

        assert ckptstore.open(tmp_path / "x").step == 7

    def test_no_thread_is_left(self, tmp_path):
        with ckptstore.Store(tmp_path) as store:
            store.save_async(model=state(1))

        assert not [t for t in threading.enumerate() if t.name == "ckptstore-save"]


class TestDamagedHistory:
    """One step that nobody can read takes nothing else with it."""

    @pytest.fixture
    def damaged(self, tmp_path: Any) -> Any:
        store = ckptstore.Store(tmp_path, keep=ckptstore.Keep())
        for step in (1, 2, 3):
            store.save(model=state(step), step=step)
        (tmp_path / "step-00000003" / "manifest.json").write_text('{"ckptstore": 1, "wri')
        return store

    def test_the_other_steps_open(self, damaged):
        assert damaged.open(2).load_model()["w"][0] == 2
        with pytest.raises(ckptstore.CorruptionError, match="step-00000003"):
            damaged.open()

    def test_doctor_names_it_and_it_can_be_removed(self, damaged):
        assert "ckptstore rm --step 3" in damaged.repair()[0]

        damaged.remove(3)

        assert damaged.open().step == 2
        assert damaged.repair() == ()

    def test_rewind_and_retention_go_on(self, damaged, tmp_path):
        with ckptstore.Store(tmp_path, keep=ckptstore.Keep(last=1)) as store:
            store.save(model=state(4), step=4)
            assert store.steps() == (3, 4)

        assert damaged.rewind(3) == (4,)


def test_rewind_takes_a_later_single_checkpoint_with_it(tmp_path):
    ckptstore.save(tmp_path, model=state(7), step=1000)
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep()) as store:
        store.save(model=state(5), step=500)
        store.save(model=state(15), step=1500)

        assert store.rewind(500) == (1000, 1500)

        assert store.open().step == 500
        assert not (tmp_path / "model.pt").exists()


class TestWhatCallersPass:
    def test_metrics_that_are_no_numbers_are_refused_before_anything_is_written(self, tmp_path):
        for value in (None, "x", [1.0], 10**400):
            with pytest.raises(ckptstore.UnsupportedError, match="the metric 'loss' is"):
                ckptstore.save(tmp_path / "x", model=state(1), metrics={"loss": value})
        assert not (tmp_path / "x").exists()

    def test_a_loss_that_is_nan_does_not_keep_the_state_from_being_saved(self, tmp_path, caplog):
        checkpoint = ckptstore.save(
            tmp_path, model=state(1), metrics={"loss": float("nan"), "best": torch.tensor(1.5)}
        )

        assert checkpoint.metrics == {"best": 1.5}
        assert "the metric 'loss' is nan" in caplog.text

    def test_steps_that_are_no_counts_are_refused(self, tmp_path):
        for step in (-1, 10**18, 1.5, "3", True):
            with pytest.raises(ckptstore.UnsupportedError, match="not a count of finished steps"):
                ckptstore.save(tmp_path / "x", model=state(1), step=step)
        assert not (tmp_path / "x").exists()

    def test_config_that_could_not_be_read_back_is_refused(self, tmp_path):
        deep: dict[str, Any] = {}
        for _ in range(200):
            deep = {"deeper": deep}
        for config in ({1: "a", "1": "b"}, deep, {"a": float("inf")}):
            with pytest.raises(ckptstore.UnsupportedError, match="config.json"):
                ckptstore.save(tmp_path / "x", model=state(1), config=config)

    def test_a_legacy_file_is_never_a_state_of_the_bundle(self, tmp_path):
        (tmp_path / "latest.pt").write_bytes(b"years of work")

        with pytest.raises(ckptstore.UnsupportedError, match="'latest'"):
            ckptstore.save(tmp_path, model=state(1), state={"latest": {"a": 1}})

        assert (tmp_path / "latest.pt").read_bytes() == b"years of work"

    def test_metrics_of_a_save_in_the_background_are_those_at_the_call(self, tmp_path):
        metrics = {"loss": 1.0}
        with ckptstore.Store(tmp_path) as store:
            future = store.save_async(model=state(1, size=1_000_000), metrics=metrics)
            metrics["loss"] = 99.0

            assert future.result().metrics == {"loss": 1.0}

    def test_a_relative_location_stays_where_it_was(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = ckptstore.Store("run")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        store.save(model=state(1), step=1)

        assert store.open().step == 1
        assert (tmp_path / "run" / "model.pt").exists()


def test_a_config_added_by_hand_is_shown(tmp_path):
    ckptstore.save(tmp_path, model=state(1))
    (tmp_path / "config.json").write_text('{"n_layer": 2}')
    (tmp_path / "notes.json").write_text("not even JSON")

    checkpoint = ckptstore.open(tmp_path)

    assert checkpoint.config == {"n_layer": 2}
    assert checkpoint.edited == ("config.json",)
